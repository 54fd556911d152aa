"""Batches whose rows are windows against the same batches with lists: claims windows.PART.B and windows.step.CASE.

    python benchmarks/windows.py [CASE ...] [--quick] [--markdown] [--json FILE] [--dir DIR]

A history that shifts stands in a batch as a window of ids that its rows share (`reader.windows`), instead of a list.
Both kinds of batches come from the reader, once, and are held in memory. The sides run by turns (A B A B ...).

| claim | measures |
|---|---|
| windows.search.B | the distinct ids of tables whose ids travel, of B samples |
| windows.vectors.B | the same, then the vectors of their rows, of 32 numbers, and the sums of the gradients by id |
| windows.mapped.B | distinct raw ids of a mapped table, and how often each is looked up |
| windows.count.B | what training counts of each batch: rows, ids and distinct ids |
| windows.pack.B | a batch into the block that workers and servers hand over |
| windows.step.CASE | whole steps of training, 2 gloo ranks of one thread, the same first weights; losses are compared |
| windows.tables.CASE | the tables' part of these steps: ids out, lookup, vectors back, the backward pass, the update |

The cases are those of benchmarks/step.py.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import measure
import step

BASELINE = "the same batches with lists"
SIZES = 512, 4096
"""Samples of the batches whose parts are measured alone."""


def rank_main(config: dict[str, Any]) -> None:
    """One rank: measures steps or parts; rank 0 writes the results."""
    import torch

    from recd_dist.job.config import load
    from recd_dist.job.job import resolve
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries

    torch.set_num_threads(1)
    log_to_screen()
    quiet_libraries()
    with process_group("cpu") as ranks:
        job = resolve(load("train", config["overrides"]))
        results = (measure_parts if config["parts"] else measure_steps)(job, ranks, config)
        if ranks.is_first:
            Path(config["out"]).write_text(json.dumps(results))


def read_both(job: Any, ranks: Any, model: Any, most: int) -> list[list[Any]]:
    """The first batches of a rank: with windows, and with lists; the ids of their rows are the same."""
    from recd_dist.train import build

    both = []
    for given in (model, None):
        with closing(build.build_loader(job, ranks, job.transforms.fit(job.table), model=given)) as loader:
            both.append(list(islice(iter(loader), min(most, len(loader)))))
    for windows, lists in zip(*both, strict=True):
        if not windows.sparse.windows or not windows.sparse.lists().values.equal(lists.sparse.values):
            raise RuntimeError("windows: the batches do not hold the same lists, or none of their rows is a window")
    return both


def measure_steps(job: Any, ranks: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Trains both kinds of batches by turns: whole steps, then the tables alone."""
    baseline = step.Trainer(job, ranks, [])
    windows, lists = read_both(job, ranks, baseline.model, config["num_batches"])
    baseline.batches = cycle(lists)
    ours = step.Trainer(job, ranks, windows)
    tables = [Tables(t.model.module.embeddings, b) for t, b in ((ours, windows), (baseline, lists))]
    results: dict[str, Any] = {}
    for name, sides in (("step", (ours, baseline)), ("tables", tables)):
        both = [lambda side=side: side.steps(config["block"]) / config["block"] for side in sides]
        results[name] = measure.alternate(*both, config["pairs"] + 1)[1:]
    losses = zip(ours.losses[: len(lists)], baseline.losses, strict=False)
    difference = max(abs(a - b) / abs(b) for a, b in losses)
    return {**results, **counts(windows, lists), "loss_difference_first_pass": difference}


def measure_parts(job: Any, ranks: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Times the host's work on both kinds of batches, part by part; batches are new objects each time."""
    import torch

    from recd_dist.embedding.exchange.classes import class_rows
    from recd_dist.embedding.exchange.distinct import distinct_ids
    from recd_dist.embedding.exchange.row_vectors import gather_vectors
    from recd_dist.embedding.ids.distinct_of_batch import find_distinct
    from recd_dist.plan.step_rows import StepRows, table_uses
    from recd_dist.reader.shared_blocks import SharedBlocks
    from recd_dist.train import build

    model = build.build_model(job, job.dedup)
    windows, lists = read_both(job, ranks, model, config["num_batches"])
    classes, uses = model.embeddings.classes, table_uses(model.embeddings)
    shared = [c for c in classes if not c.pooled]
    items = next(c.features for c in shared if set(c.features) & set(windows[0].sparse.windows))

    def search(batch: Any) -> list[tuple[Any, Any, Any]]:
        return [(each, *distinct_ids(class_rows(batch.sparse, each).values, 1 << 30, 1)[:2]) for each in shared]

    def gather(batch: Any) -> None:
        for each, once, index in search(batch):
            vectors = torch.zeros(len(once), 32, requires_grad=True)
            sizes = [batch.sparse.num_values(f) for f in each.features]
            parts = zip(each.features, index.split(sizes), strict=True)
            rows = [gather_vectors(batch.sparse, feature, part, vectors) for feature, part in parts]
            torch.autograd.backward(rows, [row.detach() for row in rows])

    parts: dict[str, Callable[[Any], object]] = {
        "search": search,
        "vectors": gather,
        "mapped": lambda batch: find_distinct(batch.sparse, items),
        "count": lambda batch: StepRows.of_batch(batch.sparse, uses),
        "pack": lambda batch: (blocks := SharedBlocks()).pack(batch, blocks.open()),
    }

    def run(part: Callable[[Any], object], batches: Sequence[Any]) -> float:
        started = time.perf_counter()
        for batch in batches:
            part(replace(batch, sparse=replace(batch.sparse)))
        return (time.perf_counter() - started) / len(batches)

    results: dict[str, Any] = {}
    for name, part in parts.items():
        sides = [lambda part=part, side=side: run(part, side) for side in (windows, lists)]
        results[name] = measure.alternate(*sides, config["pairs"] + 1)[1:]
    return {**results, **counts(windows, lists)}


def counts(windows: list[Any], lists: list[Any]) -> dict[str, Any]:
    """What a batch holds on average, for the table of results."""
    keys = windows[0].sparse.windows
    return {
        "stored_ids": round(sum(b.sparse.num_values(k) for b in windows for k in keys) / len(windows)),
        "list_ids": round(sum(b.sparse.num_values(k) for b in lists for k in keys) / len(lists)),
        "all_ids_of_lists": round(sum(b.sparse.value_offsets[-1] for b in lists) / len(lists)),
    }


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


def results_of(name: str, words: str, numbers: dict[str, Any]) -> list[measure.Result]:
    """The results of a run: those of its parts, with what its batches hold."""
    details = {key: value for key, value in numbers.items() if not isinstance(value, list)}
    results = []
    for part, pairs in numbers.items():
        if isinstance(pairs, list):
            ours, baseline = (round(1e3 * statistics.median(side), 2) for side in zip(*pairs, strict=True))
            times = {"ours_ms": ours, "baseline_ms": baseline, **details}
            claim = f"windows.{part}.{name}"
            results.append(measure.speed_up(claim, pairs, BASELINE, f"{words}, {len(pairs)} pairs", **times))
    return results


def main() -> None:
    options = step.read_options(__doc__, ["rm1"])
    if options.rank:
        rank_main(options.rank)
        return
    results: list[measure.Result] = []
    for name in options.cases:
        case, chosen = step.CASES[name], {"pairs": options.rounds, "block": 4, "num_batches": 16}
        given = step.prepare(case, options)
        for size in SIZES if name == options.cases[0] else ():
            config = {**chosen, "num_batches": 4, "parts": True}
            numbers = measure.run_ranks(__file__, config, [*given, f"batch_size={size}"], num_ranks=1)
            results += results_of(str(size), f"batches of {name}, B={size}, one thread", numbers)
        numbers = measure.run_ranks(__file__, {**chosen, "parts": False}, given)
        results += results_of(name, f"{case.words}; 2 gloo ranks, 1 thread each", numbers)
    measure.report(results, options)


if __name__ == "__main__":
    main()
