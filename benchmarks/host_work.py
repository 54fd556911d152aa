"""The host's work in a step of the exchange, for 4 to 256 simulated ranks in one process.

The host's work is all that Python, numpy and torch do on a rank beside the lookup kernels and the wire: sorting ids by
rank, sizes, splits, permutations, joining what came, and the same on the way back. One process is rank 0 of a world of
W. The other ranks are simulated: every rank has the same batch, so that what comes from another rank is what this one
sends to itself. The copies that stand for the wire are not timed, and lookups return memory that nobody has written.

The number of samples of a rank, its tables and its features stay the same, so that the numbers that a rank sends and
receives do not grow with W, but for the lengths of tables with rows split that send rows. What grows is the number of
ranks in every list. Worlds are measured by turns, and ratios to the smallest one are taken within a round.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import measure
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchrec.distributed.types import ShardingEnv
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.sharded_embeddings import EmbeddingsSharder, ShardedEmbeddings
from recd_dist.embedding.tables import Embeddings
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.ikjt import IKJT

WORLDS = (4, 16, 64, 256)
GROUPS = {"user": 16, "request": 4}
"""The groups that share rows, with the number of samples of a row."""
TABLES_A_GROUP = 16
IDS_A_LIST = 5
PLANS = {
    "mixed": {"sharding": "TW", "split": ("item", "shop"), "send": "ids"},
    "all whole": {"sharding": "TW", "split": (), "send": "rows"},
    "all split, ids": {"sharding": "RW", "split": (), "send": "ids"},
    "all split, rows": {"sharding": "RW", "split": (), "send": "rows"},
}
"""Two tables split among whole ones; all tables whole; all tables split by rows over all ranks. Of tables that are
split and send rows, every rank sends a partial sum of every row: there the numbers themselves grow with W."""


def schema() -> Schema:
    """Whole tables for each group and for the samples, and two tables that every group looks up."""
    features = []
    for group in (*GROUPS, "sample"):
        features += [Feature(f"{group}_{n}", Kind.ids, group, f"t_{group}_{n}") for n in range(TABLES_A_GROUP)]
        features += [Feature(f"{group}_{table}", Kind.ids, group, table) for table in ("item", "shop")]
    return Schema(tuple(features))


def batch(num_samples: int) -> IKJT:
    """One rank's batch."""
    torch.manual_seed(1)
    keys = [f.name for f in schema().sparse]
    rows = {g: num_samples // size for g, size in GROUPS.items()} | {"sample": num_samples}
    values, lengths = [], []
    for feature in schema().sparse:
        num_rows = rows[feature.group]
        ids = torch.randint(0, 100_000, (num_rows, IDS_A_LIST), dtype=torch.int32)
        values.append(ids.repeat_interleave(num_samples // num_rows, 0).reshape(-1))
        lengths.append(torch.full((num_samples,), IDS_A_LIST, dtype=torch.int32))
    kjt = KeyedJaggedTensor(keys, torch.cat(values), lengths=torch.cat(lengths))
    return deduplicate(kjt, {g: [f.name for f in schema().sparse if f.group == g] for g in GROUPS})


class Wire:
    """Stands for the collectives: what comes from every rank is what this rank sends to itself.

    Attributes:
        seconds: time that the copies took since the last ``take``.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def all_to_all_single(
        self,
        output: Tensor,
        input: Tensor,
        output_split_sizes: list[int] | None = None,
        input_split_sizes: list[int] | None = None,
        group: Any = None,
        async_op: bool = False,
    ) -> "Wire":
        """Fills the output; its first rows are this rank's own."""
        del group, async_op
        start = time.perf_counter()
        if not input.is_floating_point():
            own = input[: input_split_sizes[0]] if input_split_sizes else input[: 1 if input.dim() > 1 else None]
            repeats = len(output_split_sizes) if output_split_sizes else len(output) // len(own)
            output.copy_(own.repeat(repeats, *[1] * (own.dim() - 1)))
        self.seconds += time.perf_counter() - start
        return self

    def wait(self) -> None:
        """There is nothing to wait for."""

    def take(self) -> float:
        """Seconds of the wire since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Rank:
    """Rank 0 of a simulated world.

    Args:
        world_size: W, the number of ranks.
        plan: one of ``PLANS``.
        sparse: the batch of every rank.
        wire: stands for the collectives.
    """

    def __init__(self, world_size: int, plan: dict[str, Any], sparse: IKJT, wire: Wire) -> None:
        group = dist.new_group(list(range(world_size)))
        names = schema().tables
        tables = {name: Table(name, 100_000, 16) for name in names}
        by_ids = plan["split"] or (names if plan["send"] == "ids" else ())
        embeddings = Embeddings(schema(), tables, send=dict.fromkeys(by_ids, "ids"), device="meta")
        whole = {n: {"type": "TW", "ranks": [k % world_size]} for k, n in enumerate(names)}
        sharding = whole | dict.fromkeys(plan["split"], "RW") if plan["sharding"] == "TW" else plan["sharding"]
        chosen = place_tables(embeddings, World.of_one_host(world_size), sharding)
        env = ShardingEnv.from_process_group(group)
        module_plan = next(iter(chosen.plan.values()))
        params = {"learning_rate": 0.01}
        self.module: ShardedEmbeddings = EmbeddingsSharder(params).shard(
            embeddings, module_plan, env, torch.device("cpu")
        )
        self.module._kernels = dict.fromkeys(self.module._kernels, self._no_lookup)
        self.sparse, self.wire = sparse, wire

    def _no_lookup(self, kjt: KeyedJaggedTensor) -> Tensor:
        return torch.empty(kjt.stride(), 16 * len(kjt.keys()), requires_grad=True)

    def step_ms(self) -> float:
        """Milliseconds of the host's work in one step."""
        self.wire.take()
        start = time.perf_counter()
        ctx = self.module.create_context()
        inputs = self.module.input_dist(ctx, self.sparse).wait().wait()
        embedded = self.module.output_dist(ctx, self.module.compute(ctx, inputs)).wait()
        rows = [g.values for g in embedded.pooled.values()]
        torch.autograd.backward(rows, rows)
        return (time.perf_counter() - start - self.wire.take()) * 1e3


def main() -> None:
    """Measures each plan."""
    parser = measure.build_parser(__doc__)
    parser.add_argument("--samples", type=int, default=1024, help="samples of a rank's batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each plan (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=0, world_size=max(WORLDS), store=FakeStore())
    wire = Wire()
    dist.all_to_all_single = wire.all_to_all_single
    sparse, results = batch(options.samples), []
    for name, plan in PLANS.items():
        ranks = [Rank(w, plan, sparse, wire) for w in WORLDS]
        sides: list[Callable[[], float]] = [lambda r=r: statistics.median(r.step_ms() for _ in range(5)) for r in ranks]
        measure.rounds(sides, 2)
        found = measure.rounds(sides, 5 if options.quick else options.rounds)
        first = statistics.median(times[0] for times in found)
        for n, world in enumerate(WORLDS[1:], 1):
            ratios = [times[n] / times[0] for times in found]
            results.append(
                measure.Result(
                    f"host.{name.replace(', ', '.').replace(' ', '_')}.{world}",
                    round(statistics.median(ratios), 3),
                    round(min(ratios), 3),
                    round(max(ratios), 3),
                    "the same exchange on 4 simulated ranks",
                    "ratio",
                    f"{options.samples} samples a rank, {len(sparse.keys)} features of {len(schema().tables)} tables",
                    {
                        "plan": name, "ranks": world, "ms": f"{statistics.median(t[n] for t in found):.2f}",
                        "ms of 4 ranks": f"{first:.2f}",
                    },
                )
            )  # fmt: skip
    measure.report(results, options)


if __name__ == "__main__":
    main()
