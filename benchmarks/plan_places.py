"""Seconds in which tables are placed, ranks that are used, and balance: our search against TorchRec's planner.

20 tables of 10 million rows and 128 columns, lists of 20 ids, 512 unique rows a rank, on hosts of 8 H100 by their data
sheets. Both are told the same rows, ids, memory and bandwidths, and the cost of both plans is that of plan/cost.py.
TorchRec's planner runs once a number of ranks, because it takes minutes at 1,000.
"""

import time
from collections.abc import Callable
from typing import Any

import measure
import numpy as np
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recd_dist.embedding.sharders import BagSharder
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.plan.cost import rank_ms
from recd_dist.plan.machines import find_machine
from recd_dist.plan.search_places import search_places
from recd_dist.plan.shard_memory import table_memory
from recd_dist.plan.step_ledger import Alternative, StepLedger
from recd_dist.plan.step_rows import StepRows, TableUse, table_uses
from recd_dist.plan.torchrec_planner import plan_with_torchrec
from recd_dist.plan.world import World
from recd_dist.table.schema import Feature, Kind, Schema, Table

NUM_TABLES, NUM_ROWS, DIM, UNIQUE_ROWS, IDS_A_LIST = 20, 10_000_000, 128, 512, 20
CASES = ((64, 1.0), (64, 4.0), (1000, 1.0), (1000, 4.0))
"""Ranks, and how often an id repeats in a batch."""
MACHINE = find_machine("h100x8")


def build(repeats: float) -> tuple[Embeddings, StepRows]:
    """The tables, and what a rank's batch asks of them."""
    schema = Schema(tuple(Feature(f"f{n}", Kind.ids, "sample", f"t{n}") for n in range(NUM_TABLES)))
    tables = {f"t{n}": Table(f"t{n}", NUM_ROWS, DIM) for n in range(NUM_TABLES)}
    ids = float(UNIQUE_ROWS * IDS_A_LIST)
    rows = {f"f{n}": float(UNIQUE_ROWS) for n in range(NUM_TABLES)}
    counts = dict.fromkeys(rows, ids)
    distinct = dict.fromkeys(tables, ids / repeats)
    step = StepRows(UNIQUE_ROWS, rows, counts, counts, distinct_ids=distinct, length_bytes=1)
    return Embeddings(schema, tables, device="meta"), step


def search(embeddings: Embeddings, step: StepRows, world: World) -> dict[str, Alternative]:
    """Our plan."""
    return search_places([table_uses(embeddings)], world, MACHINE, step).ledger.chosen


def torchrec(embeddings: Embeddings, step: StepRows, world: World) -> dict[str, Alternative]:
    """TorchRec's plan; unique rows travel, which is what it is told."""
    configs = [
        EmbeddingBagConfig(name=t, embedding_dim=s.dim, num_embeddings=s.num_embeddings, feature_names=[t])
        for t, s in embeddings.tables.items()
    ]
    modules: dict[str, tuple[nn.Module, Any]] = {
        "embeddings": (EmbeddingBagCollection(tables=configs, device="meta"), BagSharder())
    }
    plan = plan_with_torchrec(embeddings, modules, world, step, MACHINE)
    return {t: Alternative("rows", place) for t, place in read_placement(plan).items()}


def timed(planner: Callable[..., dict[str, Alternative]], *given: object) -> tuple[float, dict[str, Alternative]]:
    """Seconds of a planner, and its plan."""
    start = time.perf_counter()
    found = planner(*given)
    return time.perf_counter() - start, found


def describe(uses: list[TableUse], found: dict[str, Alternative], step: StepRows, world: World) -> dict[str, float]:
    """Ranks that hold something, and the fullest and the slowest of them against the mean of all ranks."""
    ledger = StepLedger(uses, step, world.size, MACHINE)
    memory = np.zeros(world.size)
    for use in uses:
        ledger.put(use.table, found[use.table])
        memory += table_memory(use, found[use.table].place, world.size, "rowwise_adagrad")
    busy = rank_ms(ledger.total, MACHINE)
    return {
        "ranks": int((memory > 0).sum()),
        "memory": round(float(memory.max() / memory.mean()), 2),
        "time": round(float(busy.max() / busy.mean()), 2),
        "ms": round(ledger.ms(), 2),
    }


def main() -> None:
    """Plans each case with both."""
    options = measure.build_parser(__doc__).parse_args()
    results, baselines = [], dict[int, tuple[float, dict[str, Alternative]]]()
    for size, repeats in CASES[:2] if options.quick else CASES:
        embeddings, step = build(repeats)
        world, uses = World(size, 8, "cuda"), table_uses(embeddings)
        if size not in baselines:  # it is told of unique rows, however often ids repeat
            baselines[size] = timed(torchrec, embeddings, step, world)
        planned = {"ours": timed(search, embeddings, step, world), "torchrec": baselines[size]}
        seconds = {name: took for name, (took, _) in planned.items()}
        found = {name: describe(uses, places, step, world) for name, (_, places) in planned.items()}
        ratio = round(seconds["torchrec"] / seconds["ours"], 2)
        both = {key: f"{found['ours'][key]:g} / {found['torchrec'][key]:g}" for key in found["ours"]}
        results.append(
            measure.Result(
                f"plan.{size}.{repeats:g}", ratio, ratio, ratio, "TorchRec's EmbeddingShardingPlanner, once",
                "times faster", f"{NUM_TABLES} tables of {NUM_ROWS:,} x {DIM}",
                {
                    "ranks": size, "ids repeat": repeats,
                    "seconds": f"{seconds['ours']:.1f} / {seconds['torchrec']:.1f}",
                    "ranks used": both["ranks"], "fullest / mean": both["memory"], "slowest / mean": both["time"],
                    "ms a step": both["ms"],
                },
            )
        )  # fmt: skip
    measure.report(results, options)


if __name__ == "__main__":
    main()
