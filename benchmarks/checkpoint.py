"""The share of training time that checkpoints take: written while training goes on, and while it waits.

    python benchmarks/checkpoint.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

Three sides take turns in the same processes, with the same batches: a block of steps without a checkpoint, one with a
checkpoint in the background at its beginning, and one that waits for its checkpoint. What a checkpoint costs is the
time of its block beyond that of the block without one in the same round: so all that the writing thread takes from the
steps is in it, and not only the time in which training stands still. The share is that of a checkpoint in 100 steps.

Other users of the machine move the first share much more than a checkpoint does. So there is a second one, "by CPU":
the time in which training stands still and all the time that the thread computes, as if every bit of it were taken from
the steps, held against the fastest block of steps.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import step as steps_of

from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

EVERY = 100
"""Steps between two checkpoints."""

BASELINE = "training waits until the checkpoint is whole (checkpoint.background=false)"
SIDES = ("none", "background", "waiting")


def rank_main(config: dict[str, Any]) -> None:
    """One rank: trains blocks of steps with and without checkpoints; rank 0 writes the results."""
    import torch

    from recd_dist.checkpoint.saver import Saver
    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks, Saver() as saver, Saver(in_background=False) as waiting:
        job = resolve(load("train", config["overrides"]))
        batches = steps_of.read_batches(job, ranks, config["block"])
        trainer = steps_of.Trainer(job, ranks, batches)
        savers = {"none": None, "background": saver, "waiting": waiting}
        sides = [Side(name, trainer, savers[name], job, Path(config["directory"]), len(batches)) for name in SIDES]
        trainer.steps(2)
        seconds = measure.rounds(sides, config["rounds"] + 1)[1:]
        path = saver.latest
        size = sum(file.stat().st_size for file in path.iterdir()) if path else 0
        results = {"seconds": seconds, "block": len(batches), "bytes": size, "staged": saver.counts.staged_bytes}
        results |= {side.name: {"wait": side.wait_s, "write": side.write_s, "cpu": side.cpu_s} for side in sides}
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(results))


class Side:
    """A block of steps, with a checkpoint or without.

    Attributes:
        name: of ``SIDES``.
        wait_s: for each block the seconds in which training stood still.
        write_s: for each block the seconds from the copy to the whole checkpoint.
        cpu_s: for each block the seconds that the writing thread has computed.
    """

    def __init__(self, name: str, trainer: Any, saver: Any, job: Any, directory: Path, num_steps: int) -> None:
        self.name, self.wait_s, self.write_s, self.cpu_s = name, list[float](), list[float](), list[float]()
        self._trainer, self._saver, self._job = trainer, saver, job
        self._directory, self._num_steps, self._step = directory / name, num_steps, 0

    def __call__(self) -> float:
        """Does the block; returns its seconds, from all ranks being ready to all ranks being done."""
        import torch.distributed as dist

        dist.barrier()
        start = time.perf_counter()
        if self._saver is not None:
            self._step += 1
            state = self._trainer.model, self._trainer.optimizer
            self._saver.save(self._directory, self._step, *state, self._job.schema)
            self.wait_s.append(time.perf_counter() - start)
        self._trainer.steps(self._num_steps)
        seconds = time.perf_counter() - start
        if self._saver is not None:
            before = time.perf_counter()
            self._saver.wait()
            seconds += time.perf_counter() - before  # a checkpoint that takes longer than its block
            self.write_s.append(self._saver.counts.write_s)
            self.cpu_s.append(self._saver.counts.write_cpu_s)
        return seconds


def share(cost_s: float, step_s: float) -> float:
    """The share of a checkpoint in the time of the steps between two."""
    return cost_s / (EVERY * step_s + cost_s)


def result_of(name: str, numbers: dict[str, Any]) -> measure.Result:
    """The share of checkpoints in the background, that of the baseline beside it."""
    block = numbers["block"]
    step_s = statistics.median(none for none, _, _ in numbers["seconds"]) / block
    ours, baseline = ([share(seconds[side] - seconds[0], step_s) for seconds in numbers["seconds"]] for side in (1, 2))
    least_s = min(none for none, _, _ in numbers["seconds"]) / block
    most_cost = [
        wait + cpu for wait, cpu in zip(numbers["background"]["wait"], numbers["background"]["cpu"], strict=True)
    ]
    waits = {side: statistics.median(numbers[side]["wait"]) for side in SIDES[1:]}
    return measure.Result(
        f"checkpoint.{name}",
        round(statistics.median(ours), 4),
        round(min(ours), 4),
        round(max(ours), 4),
        BASELINE,
        "share of training time",
        f"{steps_of.CASES[name].words}; 2 gloo ranks, 1 thread each, {len(ours)} rounds of {block} steps a side, "
        f"shares of a checkpoint in every {EVERY} steps",
        {
            "waiting_share": round(statistics.median(baseline), 4),
            "waiting_range": f"{min(baseline):.4f}–{max(baseline):.4f}",
            "by_CPU_share": round(share(statistics.median(most_cost), least_s), 4),
            "stands_still_ms": round(1e3 * waits["background"], 1),
            "waiting_stands_still_ms": round(1e3 * waits["waiting"], 1),
            "thread_CPU_ms": round(1e3 * statistics.median(numbers["background"]["cpu"])),
            "written_after_ms": round(1e3 * statistics.median(numbers["background"]["write"])),
            "step_ms": round(1e3 * step_s, 1),
            "checkpoint_MB": round(numbers["bytes"] / 1e6, 1),
            "copy_of_rank_0_MB": round(numbers["staged"] / 1e6, 1),
        },
    )


def main() -> None:
    options = steps_of.read_options(__doc__, ["rm1"])
    if options.rank:
        rank_main(options.rank)
        return
    results = []
    for name in options.cases:
        overrides = steps_of.prepare(steps_of.CASES[name], options)
        with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
            chosen = {"rounds": options.rounds, "block": 16, "directory": scratch}
            results.append(result_of(name, measure.run_ranks(__file__, chosen, overrides)))
    measure.report(results, options)


if __name__ == "__main__":
    main()
