"""Whether torch.compile pays on CPU: the dense layers of a model, compiled for changing numbers of rows, and not.

    python benchmarks/compiled.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

Forward and backward of the dense layers over batches whose numbers of unique rows differ, by turns (A B A B ...), one
thread. ``dlrm``, ``dcn_v2`` and ``transformer`` compile the whole model with dynamic shapes; ``over_arch`` compiles the
layers that are computed per sample alone, plain tensors of one size. Compiling is timed apart. It needs a C++ compiler.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import torch

from recd_dist.ranks.quiet import quiet_libraries

BASELINE = "the same layers, not compiled"
MODELS = ("dlrm", "dcn_v2", "transformer")
CASES = ("over_arch", *MODELS)
BATCHES, BATCH_SIZE = 8, 1024


def prepare_model(name: str, directory: Path) -> tuple[torch.nn.Module, list[tuple[Any, ...]]]:
    """The dense layers of a model, and what they get for each of some batches."""
    from recd_dist.cli import main as recd
    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import Ranks
    from recd_dist.train import build

    wanted = ["data=tiny", f"data.path={directory}/raw/tiny", f"data.table={directory}/tables/tiny"]
    if not (directory / "tables/tiny/train/manifest.json").is_file() and recd(["etl", *wanted]):
        raise SystemExit(1)
    job = resolve(load("train", [*wanted, f"model={name}", f"batch_size={BATCH_SIZE}", "model.dim=32"]))
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    with closing(build.build_loader(job, alone, job.transforms.fit(job.table))) as batches:
        chosen = list(islice(batches, BATCHES))
    with build.seeded(job), torch.no_grad():
        tables = build.build_embeddings(job, device="cpu")
        inputs = [(tables(batch.sparse), {g: batch.dense_of(g) for g in batch.dense}) for batch in chosen]
    with build.seeded(job):
        return build.build_dense_model(job), inputs


def prepare_layers() -> tuple[torch.nn.Module, list[tuple[Any, ...]]]:
    """An over-arch on plain tensors with a row per sample."""
    from recd_dist.model.layers import MLP

    torch.manual_seed(0)
    return MLP(512, (256, 128)), [(torch.randn(BATCH_SIZE, 512, requires_grad=True),) for _ in range(BATCHES)]


def train_once(layers: Callable[..., Any], weights: list[torch.Tensor], inputs: list[tuple[Any, ...]]) -> float:
    """Seconds of forward and backward over all inputs."""
    start = time.perf_counter()
    for given in inputs:
        torch.autograd.grad(layers(*given).square().mean(), weights, allow_unused=True)
    return time.perf_counter() - start


def measure_case(name: str, directory: Path, rounds: int) -> measure.Result:
    """The ratio of a case, with what compiling took."""
    from torch._dynamo.utils import counters

    layers, inputs = prepare_layers() if name == "over_arch" else prepare_model(name, directory)
    weights = list(layers.parameters())
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(layers, dynamic=name != "over_arch")
    start = time.perf_counter()
    train_once(compiled, weights, inputs)
    seconds = time.perf_counter() - start
    ours, baseline = (partial(train_once, of, weights, inputs) for of in (compiled, layers))
    baseline()
    pairs = measure.alternate(ours, baseline, rounds)
    return measure.speed_up(
        f"compiled.{name}",
        pairs,
        BASELINE,
        f"{name}, dim 32, {BATCH_SIZE} samples a batch, {BATCHES} batches, {rounds} pairs",
        compiling_s=round(seconds, 1),
        graphs=int(counters["stats"].get("unique_graphs", 0)),
        graph_breaks=sum(counters["graph_break"].values()),
        ms_a_step=round(1e3 * sum(b for _, b in pairs) / len(pairs) / BATCHES, 1),
    )


def read_options() -> argparse.Namespace:
    """The options of this script."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 9, quick 3")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    options.rounds = options.rounds or (3 if options.quick else 9)
    return options


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    quiet_libraries()
    results = [measure_case(name, options.dir, options.rounds) for name in options.cases or CASES]
    measure.report(results, options)


if __name__ == "__main__":
    main()
