"""Where tables lie: every sharding type is a list of rectangles, each on one rank.

::

    TW            CW, TWCW      RW            TWRW (a host)   GRID (columns over hosts, rows inside them)
    +--------+    +---+----+    +--------+    +--------+      +---+----+
    |   r1   |    | r0| r1 |    |   r0   |    |   r2   |      | r0| r2 |
    |        |    |   |    |    +--------+    +--------+      +---+----+
    |        |    |   |    |    |   r1   |    |   r3   |      | r1| r3 |
    +--------+    +---+----+    +--------+    +--------+      +---+----+

The exchange needs nothing else. A rank that holds some of a table's rows receives the ids that fall into them, and
sends back its columns of each list's sum. The sums of row shards are added up; those of column shards are laid side by
side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

from recd_dist.embedding.vocabulary.names import SHARDING_TYPES
from recd_dist.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """A rectangle of a table on one rank.

    Attributes:
        rank: the rank that holds it.
        row: its first row.
        num_rows: number of its rows.
        column: its first column.
        num_columns: number of its columns.
    """

    rank: int
    row: int
    num_rows: int
    column: int
    num_columns: int


@dataclass(frozen=True)
class TablePlace:
    """Where one table lies.

    Attributes:
        sharding: short name of its sharding type.
        shards: its shards, in the order of the plan; none if every rank holds a copy (DP).
    """

    sharding: str
    shards: tuple[Shard, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that hold a shard, each once, in the order of the shards."""
        return tuple(dict.fromkeys(s.rank for s in self.shards))

    @cached_property
    def rectangles(self) -> NDArray[np.int64]:
        """The shards as rows of numbers, int64 [shards, 5]: rank, row, num_rows, column, num_columns."""
        rows = [(s.rank, s.row, s.num_rows, s.column, s.num_columns) for s in self.shards]
        return np.array(rows, dtype=np.int64).reshape(-1, 5)

    @cached_property
    def row_ranges(self) -> NDArray[np.int64]:
        """The ranges of rows of each rank, each once whatever columns of it there are, int64 [ranges, 3]."""
        return np.unique(self.rectangles[:, :3], axis=0)


Placement = Mapping[str, TablePlace]
"""Where each table lies, by the table's name."""


def _short_name(sharding_type: str) -> str:
    """The short name of a sharding type: ``TW`` for ``table_wise``."""
    return next((short for short, long in SHARDING_TYPES.items() if long == sharding_type), sharding_type)


def iterate_parameters(plan: ShardingPlan) -> Iterator[tuple[str, ParameterSharding]]:
    """Goes through the tables of a plan.

    Args:
        plan: the plan.

    Yields:
        Name of the table, and TorchRec's description of its sharding.

    Raises:
        ConfigError: the plan holds more than embedding tables.
    """
    for module in plan.plan.values():
        if not isinstance(module, EmbeddingModuleShardingPlan):
            raise ConfigError(f"plan: {type(module).__name__} is no plan of embedding tables")
        yield from module.items()


def read_placement(plan: ShardingPlan) -> dict[str, TablePlace]:
    """Reads from a plan where each table lies.

    Args:
        plan: the plan.
    """
    return {table: read_place(parameter) for table, parameter in iterate_parameters(plan)}


def read_place(parameter: ParameterSharding) -> TablePlace:
    """Reads where one table lies.

    Empty shards are left out; row-wise tables have some if there are more ranks than blocks of rows.

    Args:
        parameter: TorchRec's description of the table's sharding.
    """
    spec: Any = parameter.sharding_spec
    if spec is None:
        return TablePlace(_short_name(parameter.sharding_type))
    shards = [
        Shard(s.placement.rank(), s.shard_offsets[0], s.shard_sizes[0], s.shard_offsets[1], s.shard_sizes[1])
        for s in spec.shards
    ]
    return TablePlace(_short_name(parameter.sharding_type), tuple(s for s in shards if s.num_rows and s.num_columns))
