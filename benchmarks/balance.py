"""Batches by work against batches by samples, on histories of skewed lengths: claim balance.

    python benchmarks/balance.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

The log is made up: sessions of 16 samples in the mean, each with a history whose length is log-normal (median 80,
sigma 1.2) and at most 1,000. Both kinds are an epoch of the same samples, in the same order and in as many batches, and
train the same model by the same optimizers, in the same processes and by turns (A B A B ...). Costs are measured
before, as in a run with reader.batches=work. Batches are read beforehand, so that reading costs nothing here.

On a machine with fewer cores than ranks a step does not take as long as its slowest rank: a core that one rank leaves
is taken by another. So beside the time of an epoch stands what the slowest ranks computed, by the processor time of
their threads: on a machine where every rank has cores of its own, a step takes at least that.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

BASELINE = "reader.batches=samples: as many samples in every batch"


@dataclass(frozen=True)
class Case:
    """A model and a number of ranks.

    Attributes:
        ranks: number of ranks.
        train: the overrides of the train config.
        words: a description for the result page.
    """

    ranks: int
    train: tuple[str, ...]
    words: str


_HSTU = ("model=hstu", "model.dim=32", "model.max_length=1000", "batch_size=512")
_TRANSFORMER = ("model=transformer", "model.dim=32", "model.max_length=1000", "batch_size=512")
CASES = {
    "hstu.2": Case(2, _HSTU, "HSTU, 2 layers, dim 32, 512 samples a rank, 2 ranks"),
    "transformer.2": Case(2, _TRANSFORMER, "transformer, 2 layers, dim 32, 512 samples a rank, 2 ranks"),
    "hstu.4": Case(4, _HSTU, "HSTU, 2 layers, dim 32, 512 samples a rank, 4 ranks"),
    "transformer.4": Case(4, _TRANSFORMER, "transformer, 2 layers, dim 32, 512 samples a rank, 4 ranks"),
}


def write_log(path: Path, num_sessions: int, median: float = 80.0, sigma: float = 1.2, longest: int = 1000) -> None:
    """Writes the raw log as Parquet.

    Args:
        path: the file.
        num_sessions: sessions of 1 to 31 samples.
        median: of the log-normal lengths of histories.
        sigma: of their logarithms.
        longest: events of the longest history.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 32, num_sessions)
    lengths = np.clip(np.exp(np.log(median) + sigma * rng.standard_normal(num_sessions)), 1, longest).astype(np.int64)
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    history = pa.ListArray.from_arrays(pa.array(offsets), pa.array(rng.integers(0, 20_000, offsets[-1])))
    session = np.repeat(np.arange(num_sessions), sizes)
    columns = {
        "session_id": session,
        "request_id": np.arange(len(session)),
        "timestamp": np.arange(len(session)),
        "item": rng.integers(0, 20_000, len(session)),
        "age": rng.standard_normal(len(session)).astype(np.float32),
        "label": (rng.random(len(session)) < 0.3).astype(np.float32),
        "history": history.take(pa.array(session)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def overrides(directory: Path) -> list[str]:
    """The overrides of the data config."""
    keys = [f"data.keys.{name}={name}_id" for name in ("session", "request")]
    return [
        "data=parquet", "data.name=skewed", f"data.path={directory}/skewed.parquet", f"data.table={directory}/table",
        *keys, "data.keys.timestamp=timestamp", "data.labels=[label]", "data.groups={user: [history]}",
        "data.features={history: {table: item}}", "data.split=0.02",
    ]  # fmt: skip


class Side:
    """One kind of batches, an epoch of them, read beforehand.

    Args:
        pipeline: trains both kinds.
        batches: this rank's batches.
    """

    def __init__(self, pipeline: Any, batches: list[Any]) -> None:
        self._pipeline, self._batches = pipeline, batches
        self.computed: list[list[list[float]]] = []

    def train(self) -> float:
        """Trains the epoch; returns the seconds from all ranks being ready to all ranks being done."""
        import torch.distributed as dist

        steps, feed = [], iter(self._batches)
        dist.barrier()
        start, before = time.perf_counter(), time.thread_time()
        while (output := _progress(self._pipeline, feed)) is not None:
            now = time.thread_time()
            steps.append([now - before, float(output.batch.sparse.lists().value_offsets[-1])])
            before = now
        dist.barrier()
        self.computed.append(steps)
        return time.perf_counter() - start

    def gather(self) -> dict[str, Any]:
        """What the ranks computed in each round but the first; a collective."""
        from recd_dist.metrics.gather import gather_over_ranks

        table = gather_over_ranks(torch.tensor(self.computed[1:], dtype=torch.float64))  # [ranks, rounds, steps, 2]
        most, mean = table.amax(0), table.mean(0)
        return {
            "critical_s": most[..., 0].sum(1).tolist(),
            "imbalance": [float(x) for x in most[..., 0].sum(1) / mean[..., 0].sum(1)],
            "ids": float(most[..., 1].sum() / mean[..., 1].sum()),
            "longest_step": float(most[..., 0].amax(1).mean() / mean[..., 0].mean()),
            "samples": [f(b.batch_size for b in self._batches) for f in (min, max)],
        }


def _progress(pipeline: Any, feed: Iterator[Any]) -> Any:
    """What a step gives; None at the end."""
    try:
        return pipeline.progress(feed)
    except StopIteration:
        return None


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains both kinds by turns; rank 0 writes what was measured."""
    from recd_dist.job.config import load
    from recd_dist.job.preflight import check
    from recd_dist.ranks.process_group import process_group
    from recd_dist.train import build
    from recd_dist.train.measured_work import cutter_of
    from recd_dist.train.training import shard_model, start_pipeline

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = check(load("train", [*config["overrides"], "reader.batches=work"]), ranks.world_size)
        transforms = job.transforms.fit(job.table)
        model, optimizer, _ = shard_model(job, ranks)
        cutter = cutter_of(job, ranks, model, transforms, {})
        pipeline = start_pipeline(model, optimizer, ranks.device)
        model.train()
        sides = []
        for chosen in (cutter, None):
            loader = build.build_loader(job, ranks, transforms, cutter=chosen)
            sides.append(Side(pipeline, list(loader)))
            loader.close()
        pairs = measure.rounds([side.train for side in sides], config["rounds"] + 1)[1:]
        found = [side.gather() for side in sides]
        if ranks.is_first:
            numbers = {"pairs": pairs, "sides": found, "work": str(cutter.work), "steps": len(loader)}
            Path(config["out"]).write_text(json.dumps(numbers))


def results_of(name: str, case: Case, numbers: dict[str, Any]) -> list[measure.Result]:
    """The time of an epoch, and what its slowest ranks computed."""
    ours, baseline = numbers["sides"]
    words = f"{case.words}; {numbers['steps']} steps an epoch, {len(numbers['pairs'])} pairs; costs: {numbers['work']}"
    details = {
        side: {
            "imbalance": round(statistics.median(found["imbalance"]), 3),
            "ids": round(found["ids"], 3),
            "longest_step_over_mean": round(found["longest_step"], 2),
            "samples_a_batch": "–".join(map(str, found["samples"])),
        }
        for side, found in (("work", ours), ("samples", baseline))
    }
    columns = {f"{key}, {side}": value for side, of in details.items() for key, value in of.items()}
    critical = list(zip(ours["critical_s"], baseline["critical_s"], strict=True))
    measured = {
        f"balance.{name}.computing": (critical, "computing of the slowest ranks"),
        f"balance.{name}": (numbers["pairs"], "time of an epoch"),
    }
    return [
        measure.speed_up(claim, pairs, BASELINE, f"{words}; {what}", **columns)
        for claim, (pairs, what) in measured.items()
    ]


def read_options() -> argparse.Namespace:
    """The options of this script."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 9, quick 3")
    parser.add_argument("--sessions", type=int, default=800, help="of the log (default 800)")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    options.rounds = options.rounds or (3 if options.quick else 9)
    return options


def ensure_table(directory: Path, num_sessions: int) -> list[str]:
    """Makes log and table, unless they exist; returns the overrides that name them."""
    from recd_dist.cli import main as recd

    where = directory / f"skewed-{num_sessions}"
    wanted = overrides(where)
    if not (where / "table/train/manifest.json").is_file():
        write_log(where / "skewed.parquet", num_sessions)
        if recd(["etl", *wanted, "overwrite=true"]):
            raise SystemExit(1)
    return wanted


def main() -> None:
    options = read_options()
    if options.rank:
        rank_main(options.rank)
        return
    results: list[measure.Result] = []
    for name in options.cases or list(CASES):
        case = CASES[name]
        wanted = [*ensure_table(options.dir, options.sessions), *case.train]
        numbers = measure.run_ranks(__file__, {"rounds": options.rounds}, wanted, case.ranks)
        results += results_of(name, case, numbers)
    measure.report(results, options)


if __name__ == "__main__":
    main()
