"""Batches whose rows are windows against the same batches with lists: claims windows.CASE and windows.CASE.tables.

    python benchmarks/windows.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

A history that shifts stands in a batch as a window of ids that its rows share, instead of a list. Both are trained by
turns (A B A B ...) in the same processes, deduplicated, from the same first weights, under the same plan and the
pipeline, on 2 gloo ranks of one thread; batches are read once and held in memory. CASE.tables is the part of the tables
alone: ids out, lookup, vectors back, the backward pass and the update of the tables. The losses of both are compared
step by step. The cases are those of benchmarks/step.py.
"""

import json
import statistics
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import measure
import step

BASELINE = "the same batches with lists"


def rank_main(config: dict[str, Any]) -> None:
    """One rank: builds both modes and measures them; rank 0 writes the results."""
    import torch

    from recd_dist.embedding.exchange.classes import shared_features
    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.tensors.find_windows import find_windows

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        lists = [replace(b, sparse=b.sparse.lists()) for b in step.read_batches(job, ranks, config["num_batches"])]
        baseline = step.Trainer(job, ranks, lists)
        keys = shared_features(baseline.model.module.embeddings.classes)
        windows = [replace(b, sparse=find_windows(b.sparse, keys)) for b in lists]
        ours = step.Trainer(job, ranks, windows)
        block, pairs = config["block"], config["pairs"] + 1
        whole = measure.alternate(lambda: ours.steps(block), lambda: baseline.steps(block), pairs)[1:]
        tables = [Tables(t.model.module.embeddings, b) for t, b in ((ours, windows), (baseline, lists))]
        part = measure.alternate(lambda: tables[0].steps(block), lambda: tables[1].steps(block), pairs)[1:]
        shared = list(windows[0].sparse.windows)
        results = {
            "pairs": [(a / block, b / block) for a, b in whole],
            "tables": [(a / block, b / block) for a, b in part],
            "loss_difference": max(
                abs(a - b) / abs(b) for a, b in zip(ours.losses[: len(lists)], baseline.losses, strict=False)
            ),
            "keys": shared,
            "stored": sum(b.sparse.num_values(k) for b in windows for k in shared) / len(lists),
            "listed": sum(b.sparse.num_list_values(k) for b in windows for k in shared) / len(lists),
            "ids": sum(b.sparse.value_offsets[-1] for b in lists) / len(lists),
        }
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(results))


class Tables:
    """The tables' part of a step, on batches in memory.

    Args:
        embeddings: the sharded tables.
        batches: the batches; they are used over and over.
    """

    def __init__(self, embeddings: Any, batches: list[Any]) -> None:
        self.embeddings, self.batches = embeddings, cycle(batches)
        self.forward = type(embeddings).forward  # the pipeline has put another one in its place

    def steps(self, num_steps: int) -> float:
        """Does a number of steps; returns the seconds from all ranks being ready to all ranks being done."""
        import torch
        import torch.distributed as dist

        dist.barrier()
        start = time.perf_counter()
        for _ in range(num_steps):
            batch = next(self.batches)
            found = self.forward(self.embeddings, replace(batch.sparse))
            parts = [*(g.values for g in found.pooled.values()), *(s.values for s in found.sequences.values())]
            torch.autograd.backward(parts, [torch.full_like(p, 1e-6) for p in parts])
        dist.barrier()
        return time.perf_counter() - start


def results_of(name: str, case: step.Case, numbers: dict[str, Any]) -> list[measure.Result]:
    """The results of a case: the whole step, and the tables' part of it."""
    results = []
    for claim, what in ((f"windows.{name}", "pairs"), (f"windows.{name}.tables", "tables")):
        pairs = [(a, b) for a, b in numbers[what]]
        ours, baseline = (statistics.median(side) for side in zip(*pairs, strict=True))
        config = f"{case.words}; 2 gloo ranks, 1 thread each, {len(pairs)} pairs"
        results.append(
            measure.speed_up(
                claim,
                pairs,
                BASELINE,
                config,
                ours_ms=round(1e3 * ours, 1),
                baseline_ms=round(1e3 * baseline, 1),
                keys=", ".join(numbers["keys"]),
                stored_ids=round(numbers["stored"]),
                list_ids=round(numbers["listed"]),
                all_ids=round(numbers["ids"]),
                loss_difference_first_pass=float(f"{numbers['loss_difference']:.1e}"),
            )
        )
    return results


def main() -> None:
    options = step.read_options(__doc__, ["rm1", "rm1.din", "rm1.hstu.shift"])
    if options.rank:
        rank_main(options.rank)
        return
    chosen = {"pairs": options.rounds, "block": 4, "num_batches": 16}
    results: list[measure.Result] = []
    for name in options.cases:
        case = step.CASES[name]
        results += results_of(name, case, measure.run_ranks(__file__, chosen, step.prepare(case, options)))
    measure.report(results, options)


if __name__ == "__main__":
    main()
