"""Seconds in which tables are placed, ranks that are used, and balance: our search against TorchRec's planner.

20 tables of 10 million rows and 128 columns, lists of 20 ids, 512 unique rows a rank, on hosts of 8 H100 by their data
sheets. Both are told the same rows, ids, memory and bandwidths, and the cost of both plans is that of plan/cost.py.
Ours does all that `recd plan` does: it plans the expanded side, then several plans for batches that travel directly and
by host, and takes the cheapest. It runs several times; TorchRec's planner runs once a number of ranks, because it takes
minutes at 1,000.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import measure
import numpy as np
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from recd_dist.embedding.sharders import BagSharder
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.plan.choose_places import choose_places
from recd_dist.plan.cost import no_work, rank_ms, step_time, table_work
from recd_dist.plan.machines import find_machine
from recd_dist.plan.shard_memory import table_memory
from recd_dist.plan.step_ledger import Alternative
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


Plan = tuple[list[TableUse], dict[str, Alternative]]
"""The tables, with how batches travel, and where they lie."""


def search(embeddings: Embeddings, step: StepRows, world: World) -> Plan:
    """Our plan."""
    uses = table_uses(embeddings)
    ways = [uses, [replace(use, host_size=world.host_size) for use in uses]]
    expanded = choose_places([uses], world, MACHINE, step, dedup=False)
    found = choose_places(ways, world, MACHINE, step, expanded=expanded)
    return list(found.uses), found.ledger.chosen


def torchrec(embeddings: Embeddings, step: StepRows, world: World) -> Plan:
    """TorchRec's plan; unique rows travel, which is what it is told."""
    configs = [
        EmbeddingBagConfig(name=t, embedding_dim=s.dim, num_embeddings=s.num_embeddings, feature_names=[t])
        for t, s in embeddings.tables.items()
    ]
    modules: dict[str, tuple[nn.Module, Any]] = {
        "embeddings": (EmbeddingBagCollection(tables=configs, device="meta"), BagSharder())
    }
    plan = plan_with_torchrec(embeddings, modules, world, step, MACHINE)
    return table_uses(embeddings), {t: Alternative("rows", place) for t, place in read_placement(plan).items()}


def timed(planner: Callable[..., Plan], *given: object) -> tuple[float, Plan]:
    """Seconds of a planner, and its plan."""
    start = time.perf_counter()
    found = planner(*given)
    return time.perf_counter() - start, found


def describe(plan: Plan, step: StepRows, world: World) -> dict[str, str]:
    """Ranks that hold something, the fullest and the slowest of them against the mean of all, and what a step costs."""
    uses = [replace(use, send=plan[1][use.table].send) for use in plan[0]]
    places = {table: alternative.place for table, alternative in plan[1].items()}
    memory = sum(table_memory(use, places[use.table], world.size, "rowwise_adagrad") for use in uses)
    works = {use.table: table_work(use, places[use.table], step, world.size, MACHINE, dedup=True) for use in uses}
    busy = rank_ms(sum(works.values(), no_work(world.size)), MACHINE)
    cost = step_time(uses, places, works, world.size, MACHINE, dedup=True)
    kinds = Counter(f"{places[use.table].sharding}, {use.send}" for use in uses)
    return {
        "places": " + ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "ranks used": f"{np.count_nonzero(memory):,}",
        "fullest / mean": f"{np.max(memory) / np.mean(memory):.2f}",
        "slowest / mean": f"{busy.max() / busy.mean():.2f}",
        "ms a step": f"{cost.total:.2f}",
    }


def main() -> None:
    """Plans each case with both."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often ours plans (default: %(default)s)")
    options = parser.parse_args()
    results, baselines = [], dict[int, tuple[float, Plan]]()
    for size, repeats in CASES[:2] if options.quick else CASES:
        embeddings, step = build(repeats)
        world = World(size, 8, "cuda")
        if size not in baselines:  # it is told of unique rows, however often ids repeat
            baselines[size] = timed(torchrec, embeddings, step, world)
        ours = [timed(search, embeddings, step, world) for _ in range(options.repeats)]
        seconds, baseline_s = [took for took, _ in ours], baselines[size][0]
        found = [describe(plan, step, world) for plan in (ours[0][1], baselines[size][1])]
        both = {key: f"{found[0][key]} / {found[1][key]}" for key in found[0]}
        results.append(
            measure.Result(
                f"plan.{size}.{repeats:g}",
                round(baseline_s / statistics.median(seconds), 2),
                round(baseline_s / max(seconds), 2),
                round(baseline_s / min(seconds), 2),
                "TorchRec's EmbeddingShardingPlanner, once",
                "times faster",
                f"{NUM_TABLES} tables of {NUM_ROWS:,} x {DIM}; ours / TorchRec's, {options.repeats} times / once",
                {"ids repeat": repeats, "seconds": f"{statistics.median(seconds):.1f} / {baseline_s:.1f}", **both},
            )
        )
    measure.report(results, options)


if __name__ == "__main__":
    main()
