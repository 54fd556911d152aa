"""The whole training step on unique rows: claims step.rm1, step.rm2, step.rm3, step.s1 and step.bytes.

    python benchmarks/step.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

The baseline runs in the same processes and by turns with ours (A B A B ...). It is the same model with dedup=off, which
is plain TorchRec on expanded KeyedJaggedTensors. Both have the same tables, first weights, optimizers and plan (auto:
whole tables, balanced over the ranks by what each mode sends), and run under TrainPipelineSparseDist on 2 gloo ranks of
one thread each. Batches are read once and held in memory, the expanded ones too, so that reading and expanding cost
nothing here (for that, see the claims of the reader and of the whole path). The losses of both are compared step by
step. The two trainings are the same except for rounding, which grows where the same batches are learnt again and again.

rm1, rm2 and rm3 are trained with model=transformer without history layers (candidates attend to histories), rm2 and rm3
also with model=dlrm (sum pooling: claims step.rm2.dlrm and step.rm3.dlrm). rm1.layers has two history layers, rm1.din
activation units, and rm1.hstu two HSTU layers over a history of 500 events that changes with one sample in fifty (about
12 samples a row; rm1.hstu.shift: as often as in rm1). s1 is rm1 with one sample a session, where deduplication cannot
gain anything. The presets are ours, modelled on RecD's words; its own models are not public.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import measure

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

BASELINE = "dedup=off: plain TorchRec on expanded KeyedJaggedTensors"
DIRECTIONS = ("input", "output", "backward")


@dataclass(frozen=True)
class Case:
    """A preset as it is trained here.

    Attributes:
        data: the overrides of the data config.
        train: the overrides of the train config.
        words: a description for the result page.
    """

    data: tuple[str, ...]
    train: tuple[str, ...]
    words: str


# The rates are small. With the default rates the model memorises the few batches, and only rounding is left to compare.
_RATES = ("optim.tables.lr=0.01", "optim.dense.lr=0.001")
_SEQUENCE = ("model=transformer", "model.history_layers=0", "model.dim=32", "batch_size=512", *_RATES)
_SEQUENCE_SHORT = ("model=transformer", "model.history_layers=0", "model.dim=32", "batch_size=1024", *_RATES)
_EVENTS = "{views_item: [views_category], clicks_item: [clicks_category], purchases_item: [purchases_category]}"
_WITH_EVENTS = ("model.histories=[views_item,clicks_item,purchases_item]", f"model.beside={_EVENTS}", "model.dim=32")
_HSTU = ("model=hstu", "model.histories=[views_item]", "model.beside={views_item: [views_category]}", "model.dim=32")
_LONG = tuple(f"data.synthetic.groups.views.ids.views_{n}.length=500" for n in ("item", "category"))
_DLRM = ("model=dlrm", "model.pooling=sum", "model.dim=64", "batch_size=1024", *_RATES)
CASES = {
    "rm1": Case(("data=rm1",), _SEQUENCE, "transformer without layers, dim 32, B=512 a rank"),
    "rm1.layers": Case(
        ("data=rm1",),
        ("model=transformer", *_WITH_EVENTS, "batch_size=256", *_RATES),
        "transformer, 2 causal layers over 3 histories, dim 32, B=256 a rank",
    ),
    "rm1.din": Case(
        ("data=rm1",),
        ("model=din", *_WITH_EVENTS, "batch_size=512", *_RATES),
        "DIN over 3 histories, dim 32, B=512 a rank",
    ),
    "rm1.hstu": Case(
        ("data=rm1", "data.name=rm1long", *_LONG, "data.synthetic.groups.views.stay=0.98"),
        (*_HSTU, "model.max_length=500", "batch_size=256", *_RATES),
        "HSTU, 2 layers over a history of 500 events, dim 32, B=256 a rank",
    ),
    "rm1.hstu.shift": Case(
        ("data=rm1", "data.name=rm1longshift", *_LONG),
        (*_HSTU, "model.max_length=500", "batch_size=256", *_RATES),
        "HSTU, 2 layers over a history of 500 events that shifts as in rm1, dim 32, B=256 a rank",
    ),
    "rm2": Case(("data=rm2",), _SEQUENCE_SHORT, "transformer without layers, dim 32, B=1024 a rank"),
    "rm3": Case(("data=rm3",), _SEQUENCE_SHORT, "transformer without layers, dim 32, B=1024 a rank"),
    "rm2.dlrm": Case(("data=rm2",), _DLRM, "DLRM (sum pooling), dim 64, B=1024 a rank"),
    "rm3.dlrm": Case(("data=rm3",), _DLRM, "DLRM (sum pooling), dim 64, B=1024 a rank"),
    "s1": Case(
        ("data=rm1", "data.name=s1", "data.synthetic.session_mean=1", "data.synthetic.session_median=1"),
        _SEQUENCE,
        "rm1 with one sample a session, transformer without layers, dim 32, B=512 a rank",
    ),
    "tiny": Case(("data=tiny",), ("model=transformer", "batch_size=64", "optim=sgd"), "for the tests; no claim"),
}


def overrides(case: Case, directory: Path, num_samples: int) -> list[str]:
    """The overrides of the data config: which logs, how many, and the paths of the logs and the table."""
    name = next((d for d in case.data if d.startswith("data.name=")), case.data[0])
    name = f"{name.partition('=')[2]}-{num_samples}"
    return [
        *case.data,
        f"data.synthetic.num_samples={num_samples}",
        f"data.synthetic.num_users={max(100, num_samples // 33)}",
        f"data.path={directory}/raw/{name}",
        f"data.table={directory}/tables/{name}",
    ]


def ensure_table(case: Case, directory: Path, num_samples: int) -> None:
    """Makes the clustered table, unless it exists."""
    from recd_dist.cli import main as recd

    wanted = overrides(case, directory, num_samples)
    if not Path(wanted[-1].partition("=")[2], "train", "manifest.json").is_file() and recd(["etl", *wanted]):
        raise SystemExit(1)


class Trainer:
    """One mode of training on batches in memory.

    Args:
        job: the job to train; its ``dedup`` is the mode.
        ranks: this rank.
        batches: the batches, the same for both modes but expanded for dedup=off; they are used over and over.

    Attributes:
        losses: the losses of this rank, step by step.
    """

    def __init__(self, job: Any, ranks: Any, batches: list[Any]) -> None:
        from recd_dist.train import training

        self.model, self.optimizer, self.placement = training.shard_model(job, ranks)
        self.model.train()
        self.pipeline = training.start_pipeline(self.model, self.optimizer, ranks.device)
        self.batches = cycle(batches)
        self.losses: list[float] = []

    def steps(self, num_steps: int) -> float:
        """Does a number of steps; returns the seconds from all ranks being ready to all ranks being done."""
        import torch.distributed as dist

        losses = []
        dist.barrier()
        start = time.perf_counter()
        for _ in range(num_steps):
            losses.append(self.pipeline.progress(self.batches)[0])
        dist.barrier()
        seconds = time.perf_counter() - start
        self.losses += [float(loss) for loss in losses]
        return seconds


def rank_main(config: dict[str, Any]) -> None:
    """One rank: builds both modes, counts bytes over every batch once, and measures; rank 0 writes the results."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        plain = replace(job, config=replace(job.config, dedup=False))
        batches = read_batches(job, ranks, config["num_batches"])
        ours = Trainer(job, ranks, batches)
        baseline = Trainer(plain, ranks, [b.expand() for b in batches])
        modes = (ours, job.dedup), (baseline, False)
        num_bytes = [count_bytes(trainer, ranks, batches, dedup) for trainer, dedup in modes]
        block = config["block"]
        pairs = measure.alternate(lambda: ours.steps(block), lambda: baseline.steps(block), config["pairs"] + 1)[1:]
        differences = [abs(a - b) / abs(b) for a, b in zip(ours.losses, baseline.losses, strict=True)]
        results = {
            "pairs": [(a / block, b / block) for a, b in pairs],
            "samples": statistics.mean(b.batch_size for b in batches) * ranks.world_size,
            "bytes": num_bytes,
            "num_steps": len(differences),
            "loss_difference": max(differences[: len(batches)]),
            "last_loss_difference": max(differences),
            "factors": {g: round(job.manifest.dedup_factor(g), 2) for g in job.schema.dedup_groups},
            "threads": torch.get_num_threads(),
        }
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(results))


def count_bytes(trainer: Trainer, ranks: Any, batches: list[Any], dedup: bool) -> dict[str, list[float]]:
    """Counts all ranks' bytes in a step by direction, at the collectives and by formula; trains every batch once."""
    import torch
    import torch.distributed as dist

    from recd_dist.metrics.traffic import TrafficCounter
    from recd_dist.plan.step_bytes import StepBytes, step_bytes
    from recd_dist.plan.step_rows import StepRows, table_uses

    embeddings = trainer.model.module.embeddings
    trainer.steps(1)  # the pipeline reads ahead: from now on a cycle of steps sends as much as it uses
    with TrafficCounter() as traffic:
        trainer.steps(len(batches))
        sent = traffic.take()
    due = StepBytes()
    for batch in batches:
        rows = StepRows.of_batch(batch.sparse, table_uses(embeddings), exact=True)
        uses = table_uses(embeddings)
        due += step_bytes(uses, trainer.placement, rows, ranks.world_size, dedup=dedup, rank=ranks.rank)
    both = torch.tensor([[sent[d], getattr(due, d)] for d in DIRECTIONS], dtype=torch.float64) / len(batches)
    dist.all_reduce(both)
    return {d: both[n].tolist() for n, d in enumerate(DIRECTIONS)}


def results_of(name: str, case: Case, numbers: dict[str, Any]) -> list[measure.Result]:
    """The result of a case: its speed, with the bytes beside it."""
    pairs = [(a, b) for a, b in numbers["pairs"]]
    samples = numbers["samples"]
    ours, expanded = (sum(counted for counted, _ in mode.values()) for mode in numbers["bytes"])
    config = f"{case.words}; samples per stored row: " + ", ".join(f"{g} {f}" for g, f in numbers["factors"].items())
    times = [statistics.median(side) for side in zip(*pairs, strict=True)]
    step = measure.speed_up(
        f"step.{name}",
        pairs,
        BASELINE,
        f"{config}; 2 gloo ranks, {numbers['threads']} thread each, {len(pairs)} pairs",
        ours_samples_per_s=round(samples / times[0]),
        baseline_samples_per_s=round(samples / times[1]),
        ours_ms=round(1e3 * times[0], 1),
        baseline_ms=round(1e3 * times[1], 1),
        loss_difference_first_pass=float(f"{numbers['loss_difference']:.1e}"),
        loss_difference=float(f"{numbers['last_loss_difference']:.1e}"),
        num_steps=numbers["num_steps"],
        ours_sent_MB=round(ours / 1e6, 3),
        baseline_sent_MB=round(expanded / 1e6, 3),
    )
    return [step]


def bytes_result(numbers: dict[str, dict[str, Any]]) -> measure.Result:
    """The result of bytes counted against the formula for unique rows: the worst case and direction."""
    ratios: Counter[str] = Counter()
    for name, values in numbers.items():
        for direction, (counted, due) in values["bytes"][0].items():
            ratios[f"{name} {direction}"] = counted / due if due else 1.0
    worst = max(ratios, key=lambda key: abs(ratios[key] - 1))
    return measure.Result(
        "step.bytes",
        round(ratios[worst], 4),
        round(min(ratios.values()), 4),
        round(max(ratios.values()), 4),
        "formula of plan/step_bytes.py for unique rows",
        "counted / formula",
        f"plan=auto (table-wise, balanced), 2 ranks, every batch once; worst: {worst}",
    )


def read_options(doc: str | None, default: Sequence[str]) -> argparse.Namespace:
    """The options of a script that trains these cases, with what they default to.

    Args:
        doc: docstring of the script.
        default: names of the cases that are measured where none is named.
    """
    parser = measure.build_parser(doc)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: {', '.join(default)}"
    )
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 15, quick 5")
    parser.add_argument("--samples", type=int, help="of each table (default 50000, quick 20000)")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    options.cases = options.cases or default
    options.rounds = options.rounds or (5 if options.quick else 15)
    options.samples = options.samples or (20000 if options.quick else 50000)
    return options


def prepare(case: Case, options: argparse.Namespace) -> list[str]:
    """Makes a case's table, unless it exists; returns the overrides that train it."""
    ensure_table(case, options.dir, options.samples)
    return [*overrides(case, options.dir, options.samples), *case.train]


def read_batches(job: Any, ranks: Any, most: int) -> list[Any]:
    """The first batches of a rank."""
    from recd_dist.train import build

    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    batches = list(islice(iter(loader), min(most, len(loader))))
    loader.close()
    return batches


def main() -> None:
    options = read_options(__doc__, [name for name in CASES if name != "tiny"])
    if options.rank:
        rank_main(options.rank)
        return
    chosen = {"pairs": options.rounds, "block": 4, "num_batches": 16}
    numbers: dict[str, dict[str, Any]] = {}
    results: list[measure.Result] = []
    for name in options.cases:
        numbers[name] = measure.run_ranks(__file__, chosen, prepare(CASES[name], options))
        results += results_of(name, CASES[name], numbers[name])
    measure.report([*results, bytes_result(numbers)], options)


if __name__ == "__main__":
    main()
