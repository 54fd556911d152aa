"""Where the parts of the tables lie: every sharding type as a list of rectangles, each on one rank.

::

    TW            CW, TWCW      RW            TWRW (a host)   GRID (columns over hosts, rows inside them)
    +--------+    +---+----+    +--------+    +--------+      +---+----+
    |   r1   |    | r0| r1 |    |   r0   |    |   r2   |      | r0| r2 |
    |        |    |   |    |    +--------+    +--------+      +---+----+
    |        |    |   |    |    |   r1   |    |   r3   |      | r1| r3 |
    +--------+    +---+----+    +--------+    +--------+      +---+----+

The exchange sees nothing else: a rank that holds rows of a table is sent the ids that fall into them, and sends back
its columns of each row's sum. Row shards are added up, column shards laid side by side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

from recd_dist.embedding.names import TYPES
from recd_dist.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """A rectangle of a table on one rank.

    Attributes:
        rank: where it lies.
        row, num_rows: its rows, [row, row + num_rows).
        column, num_columns: its columns.
    """

    rank: int
    row: int
    num_rows: int
    column: int
    num_columns: int


@dataclass(frozen=True)
class Placed:
    """A table's place.

    Attributes:
        sharding: short name of its type.
        shards: in the order of the plan; none where every rank holds a copy (DP).
    """

    sharding: str
    shards: tuple[Shard, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks that hold a shard, in order, each once."""
        return tuple(dict.fromkeys(s.rank for s in self.shards))


Placement = Mapping[str, Placed]
"""By table."""


def short_name(sharding_type: str) -> str:
    """``table_wise`` -> ``TW``."""
    return next((short for short, long in TYPES.items() if long == sharding_type), sharding_type)


def parameters(plan: ShardingPlan) -> Iterator[tuple[str, ParameterSharding]]:
    """Each table of a plan with what TorchRec says of it."""
    for module in plan.plan.values():
        if not isinstance(module, EmbeddingModuleShardingPlan):
            raise ConfigError(f"plan: {type(module).__name__} is no plan of embedding tables")
        yield from module.items()


def placement(plan: ShardingPlan) -> dict[str, Placed]:
    """Where each table of a plan lies."""
    return {table: placed(parameter) for table, parameter in parameters(plan)}


def placed(parameter: ParameterSharding) -> Placed:
    """Where one table lies; empty shards (row-wise, more ranks than blocks) are left out."""
    spec: Any = parameter.sharding_spec
    if spec is None:
        return Placed(short_name(parameter.sharding_type))
    shards = [
        Shard(s.placement.rank(), s.shard_offsets[0], s.shard_sizes[0], s.shard_offsets[1], s.shard_sizes[1])
        for s in spec.shards
    ]
    return Placed(short_name(parameter.sharding_type), tuple(s for s in shards if s.num_rows and s.num_columns))
