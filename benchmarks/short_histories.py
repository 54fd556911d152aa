"""Logs in which little repeats: claim epoch.short, whole epochs from files to weights with and without deduplication.

    python benchmarks/short_histories.py [CASE ...] [--rounds N] [--markdown] [--json FILE] [--dir DIR]

Two logs are made up at the shape of public ones. ``movielens``: each sample is a rating, and the history of ten moves
with every sample, so that only the user's profile repeats. ``impressions``: 5,000 requests of about seven
candidates, whose history of at most 20 events stays as long as the request. Both modes train the same epoch by turns
(A B A B ...) on 2 gloo ranks of one thread, each reading its samples as a job does. The baseline is dedup=off: plain
TorchRec on expanded KeyedJaggedTensors. What a user must not meet is a ratio below 1.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import step
from step import BASELINE, Case

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

_SYNTHETIC = "data.synthetic"
_HISTORY = f"{_SYNTHETIC}.groups.history"


def _lists(length: int) -> tuple[str, ...]:
    return tuple(f"{_HISTORY}.ids.history_{name}.length={length}" for name in ("item", "category"))


_MOVIELENS = (
    *("data=tiny", "data.name=movielens", f"{_SYNTHETIC}.request_mean=1", f"{_HISTORY}.stay=0.0", *_lists(10)),
    *(f"{_SYNTHETIC}.groups.profile.stay=1.0", f"{_SYNTHETIC}.tables.item=4000"),
)
_IMPRESSIONS = (
    *("data=tiny", "data.name=impressions", f"{_SYNTHETIC}.request_mean=7", f"{_HISTORY}.stay=0.5", *_lists(20)),
    *(f"{_SYNTHETIC}.groups.profile.stay=1.0", f"{_SYNTHETIC}.session_mean=14", f"{_SYNTHETIC}.session_median=10"),
)
CASES = {
    f"{name}.{model}": Case(data, (f"model={model}", "batch_size=512"), f"{words}, {model}")
    for name, data, words in (
        ("movielens", _MOVIELENS, "a history of 10 that moves with each sample"),
        ("impressions", _IMPRESSIONS, "requests of 7 candidates, a history of 20"),
    )
    for model in ("dlrm", "din", "transformer")
}
NUM_SAMPLES = 35_000


class Waited:
    """An iterator that counts the seconds in which it is waited for.

    Args:
        batches: what is iterated.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches, self.seconds = batches, 0.0

    def __iter__(self) -> "Waited":
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - start


class Epochs:
    """One mode, trained epoch after epoch.

    Args:
        job: the job to train; its ``dedup`` is the mode.
        ranks: this rank.

    Attributes:
        waited: the share of the last epoch's time in which this rank waited for the reader.
    """

    waited = 0.0

    def __init__(self, job: Any, ranks: Any) -> None:
        from recd_dist.train import build, training

        self.model, self.optimizer, _ = training.shard_model(job, ranks)
        self.model.train()
        self.pipeline = training.start_pipeline(self.model, self.optimizer, ranks.device)
        self.loader = build.build_loader(job, ranks, job.transforms.fit(job.table), model=self.model)

    def run(self) -> float:
        """Trains the next epoch; returns the seconds from all ranks being ready to all ranks being done."""
        import torch.distributed as dist

        dist.barrier()
        start = time.perf_counter()
        batches, num_batches = self._begin()
        waited = Waited(batches)
        for _ in range(num_batches):
            self.pipeline.progress(waited)
        dist.barrier()
        seconds = time.perf_counter() - start
        self.waited = waited.seconds / seconds
        self._end()
        return seconds

    def _begin(self) -> tuple[Iterator[Any], int]:
        """The batches of an epoch, and their number."""
        return iter(self.loader), len(self.loader)

    def _end(self) -> None:
        """Goes to the next epoch."""
        self.loader.start_epoch(self.loader.epoch + 1)


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains both modes by turns; rank 0 writes the seconds."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        ours = Epochs(job, ranks)
        baseline = Epochs(resolve(replace(job.config, dedup=False)), ranks)
        pairs = measure.alternate(ours.run, baseline.run, config["pairs"] + 1)[1:]
        for side in (ours, baseline):
            side.loader.close()
        if ranks.is_first:
            factors = {g: round(job.manifest.dedup_factor(g), 2) for g in job.schema.dedup_groups}
            found = {"pairs": pairs, "factors": factors, "dedup": job.dedup, "samples": job.manifest.num_samples}
            Path(config["out"]).write_text(json.dumps(found))


def result_of(name: str, case: Case, found: dict[str, Any]) -> measure.Result:
    """The result of a case."""
    factors = ", ".join(f"{group} {factor}" for group, factor in found["factors"].items()) or "no group"
    times = [sorted(side)[len(side) // 2] for side in zip(*found["pairs"], strict=True)]
    return measure.speed_up(
        f"epoch.short.{name}",
        [(a, b) for a, b in found["pairs"]],
        BASELINE,
        f"{case.words}; samples per stored row: {factors}; B=512 a rank, 2 gloo ranks of one thread, reading included",
        ours_samples_per_s=round(found["samples"] / times[0]),
        baseline_samples_per_s=round(found["samples"] / times[1]),
    )


def read_options() -> argparse.Namespace:
    """The options of this script."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dir", type=Path, default=Path(".bench"), help="raw logs and tables, kept (default .bench)")
    parser.add_argument("--rounds", type=int, help="default 7, quick 3")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"unknown case '{unknown[0]}'; there are {', '.join(CASES)}")
    return options


def measure_cases(options: argparse.Namespace, names: Sequence[str]) -> list[measure.Result]:
    """Measures some cases."""
    rounds, results = options.rounds or (3 if options.quick else 7), []
    for name in names:
        case = CASES[name]
        step.ensure_table(case, options.dir, NUM_SAMPLES)
        wanted = [*step.overrides(case, options.dir, NUM_SAMPLES), *case.train]
        results.append(result_of(name, case, measure.run_ranks(__file__, {"pairs": rounds}, wanted)))
    return results


def main() -> None:
    options = read_options()
    if options.rank:
        rank_main(options.rank)
        return
    measure.report(measure_cases(options, options.cases or list(CASES)), options)


if __name__ == "__main__":
    main()
