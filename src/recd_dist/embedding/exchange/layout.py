"""The layout of the exchange: what each rank sends and receives under a plan.

The layout is computed once and is the same on every rank.

A *unit* is the tables of one class that have the same sharding type: a rank looks them up in one call. A *bucket* is a
block of a table's rows, or the whole table if its rows are not split. A *segment* is the ids of one key in one bucket.
Each rank receives the segments of the rows that it holds, and sends back one matrix for each unit, with the columns of
its tables side by side::

    unit                                   rank  receives          sends back
    0: item, shop (CW on ranks 0 and 1)    0     item, shop        [R, left half of item | left half of shop]
                                           1     item, shop        [R, right half of item | right half of shop]
    1: city (TW on rank 1)                 1     city              [R, city]
    2: user (RW on ranks 0 and 1)          0     user, rows 0-4    [R, partial sum of user]
                                           1     user, rows 5-9    [R, partial sum of user]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from recd_dist.embedding.exchange.classes import TableClass
from recd_dist.embedding.vocabulary.placement import Placement, Shard

REPLICATED = "DP"
SPLIT_IN_HOST = ("TWRW", "GRID")
"""Sharding types whose row shards are all on one host, where their partial sums can be added up."""


@dataclass(frozen=True)
class Part:
    """Columns of one key that a rank computes, for the ids of one bucket.

    Attributes:
        key: the key.
        bucket: number of the bucket.
        column: first column of the table.
        num_columns: number of columns.
    """

    key: str
    bucket: int
    column: int
    num_columns: int


@dataclass(frozen=True)
class Unit:
    """The tables of one class that have the same sharding type.

    Attributes:
        module: name of the class, and of the module that holds its tables.
        sharding: short name of the sharding type.
        table_class: the class, without the tables that have another sharding type.
        block_rows: for each key the number of rows in a block of its table; empty if rows are not split.
        num_buckets: number of blocks of a table; 1 if rows are not split.
        parts: for each rank the parts that it computes, in the order of its columns.
    """

    module: str
    sharding: str
    table_class: TableClass
    block_rows: tuple[int, ...]
    num_buckets: int
    parts: Mapping[int, tuple[Part, ...]]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the unit, in their order."""
        return tuple(self.table_class.stacks)

    @cached_property
    def num_segments(self) -> int:
        """How many segments a rank makes of a batch; one more for what fills up distinct ids, which is never sent."""
        return self.num_buckets * len(self.keys) + (self.table_class.send == "ids")

    def segments(self, rank: int) -> tuple[int, ...]:
        """Numbers of the segments that a rank receives: each once, whatever columns the rank holds.

        A segment's number is that of its bucket times the number of keys, plus that of its key.

        Args:
            rank: the rank.
        """
        numbers = (p.bucket * len(self.keys) + self.keys.index(p.key) for p in self.parts.get(rank, ()))
        return tuple(sorted(set(numbers)))

    def columns(self, rank: int) -> tuple[int, ...]:
        """For each part that a rank computes the number of its columns.

        Args:
            rank: the rank.
        """
        return tuple(p.num_columns for p in self.parts.get(rank, ()))

    def width(self, rank: int) -> int:
        """How many columns the matrix has that a rank sends back.

        Args:
            rank: the rank.
        """
        return sum(self.columns(rank))


@dataclass(frozen=True)
class Layout:
    """All units of a plan, seen from one rank.

    Attributes:
        units: the units that are exchanged.
        replicated: the units of which every rank holds a copy.
        rank: this rank.
        world_size: W, the number of ranks.
        host_size: number of ranks of a host.
    """

    units: tuple[Unit, ...]
    replicated: tuple[Unit, ...]
    rank: int
    world_size: int
    host_size: int

    @cached_property
    def row_units(self) -> tuple[int, ...]:
        """Numbers of the units whose rows are lists of ids. They come first."""
        return tuple(n for n, unit in enumerate(self.units) if unit.table_class.pooled)

    @cached_property
    def weighted_units(self) -> tuple[int, ...]:
        """Numbers of the units whose ids travel with weights. They come first among ``row_units``."""
        return tuple(n for n in self.row_units if self.units[n].table_class.weighted)

    @cached_property
    def id_units(self) -> tuple[int, ...]:
        """Numbers of the units in which every row is one id."""
        return tuple(n for n, unit in enumerate(self.units) if not unit.table_class.pooled)

    @cached_property
    def local_units(self) -> tuple[int, ...]:
        """Numbers of the units of which this rank holds shards."""
        return tuple(n for n, unit in enumerate(self.units) if unit.parts.get(self.rank))

    def is_summed_in_host(self, unit: Unit) -> bool:
        """Whether the partial sums of a unit are added up inside a host before they leave it.

        Args:
            unit: the unit.
        """
        return unit.sharding in SPLIT_IN_HOST and unit.table_class.pooled and 1 < self.host_size < self.world_size

    def sends_back(self, unit: Unit, rank: int) -> bool:
        """Whether another rank sends a matrix of a unit back to this one.

        Args:
            unit: the unit.
            rank: the other rank.
        """
        has_same_local_rank = rank % self.host_size == self.rank % self.host_size
        return bool(unit.parts.get(rank)) and (has_same_local_rank or not self.is_summed_in_host(unit))

    @cached_property
    def first_segment(self) -> tuple[int, ...]:
        """For each unit the number of its first segment, with the segments of all units numbered in a row."""
        return tuple(accumulate((unit.num_segments for unit in self.units), initial=0))[:-1]

    @cached_property
    def sent_segments(self) -> tuple[int, ...]:
        """Numbers of the segments in the order in which they are sent: rank after rank, unit after unit."""
        firsts = list(zip(self.units, self.first_segment, strict=True))
        return tuple(first + s for q in range(self.world_size) for unit, first in firsts for s in unit.segments(q))

    @cached_property
    def size_index(self) -> tuple[int, ...]:
        """For each sent segment where its number of ids is added in the sizes, [W, 1 + 2 * units] as a flat list."""
        width = 1 + 2 * len(self.units)
        return tuple(
            q * width + 2 + 2 * n
            for q in range(self.world_size)
            for n, unit in enumerate(self.units)
            for _ in unit.segments(q)
        )

    @cached_property
    def received_rows(self) -> tuple[int, ...]:
        """Order in which lookups take the received segments of ``row_units``, which are numbered source by source."""
        return self._received_order([n for n in self.local_units if n in self.row_units])

    @cached_property
    def received_weights(self) -> tuple[int, ...]:
        """Order in which lookups take the weights of the received segments of ``weighted_units``.

        These segments are numbered among themselves, source by source.
        """
        return self._received_order([n for n in self.local_units if n in self.weighted_units])

    @cached_property
    def received_ids(self) -> tuple[int, ...]:
        """Order in which lookups take the received segments of ``id_units``, which are numbered source by source."""
        return self._received_order([n for n in self.local_units if n in self.id_units])

    def _received_order(self, units: Sequence[int]) -> tuple[int, ...]:
        """For each unit and each part of it on this rank the numbers of the part's segments, one from each source."""
        numbers, count = dict[tuple[int, int], int](), 0
        for n in units:
            for segment in self.units[n].segments(self.rank):
                numbers[n, segment] = count
                count += 1
        order = []
        for n in units:
            unit = self.units[n]
            for part in unit.parts[self.rank]:
                own = numbers[n, part.bucket * len(unit.keys) + unit.keys.index(part.key)]
                order += [source * count + own for source in range(self.world_size)]
        return tuple(order)


def build_layout(
    classes: Sequence[TableClass], placement: Placement, rank: int, world_size: int, host_size: int | None = None
) -> Layout:
    """Builds the layout of a plan.

    Args:
        classes: the classes of the tables.
        placement: where the tables lie.
        rank: this rank.
        world_size: W, the number of ranks.
        host_size: number of ranks of a host; all ranks are on one host when absent.
    """
    units = []
    for each in classes:
        for sharding in dict.fromkeys(placement[t].sharding for t in each.tables):
            tables = {t: keys for t, keys in each.tables.items() if placement[t].sharding == sharding}
            stacks = {k: each.stacks[k] for keys in tables.values() for k in keys}
            units.append(_build_unit(each.name, sharding, replace(each, stacks=stacks, tables=tables), placement))
    # A stable sort: units with weights first, then other units whose rows are lists, then those of single ids.
    units.sort(key=lambda u: (not u.table_class.pooled, not u.table_class.weighted))
    return Layout(
        tuple(u for u in units if u.sharding != REPLICATED),
        tuple(u for u in units if u.sharding == REPLICATED),
        rank,
        world_size,
        host_size or world_size,
    )


def _build_unit(module: str, sharding: str, table_class: TableClass, placement: Placement) -> Unit:
    blocks = {t: _row_blocks(placement[t].shards) for t in table_class.tables}
    parts: dict[int, list[Part]] = {}
    for table, keys in table_class.tables.items():
        for shard in placement[table].shards:
            bucket = blocks[table].index((shard.row, shard.num_rows))
            of_shard = [Part(key, bucket, shard.column, shard.num_columns) for key in keys]
            parts.setdefault(shard.rank, []).extend(of_shard)
    num_buckets = max((len(b) for b in blocks.values()), default=1)
    sizes = tuple(blocks[t][0][1] for t, keys in table_class.tables.items() for _ in keys) if num_buckets > 1 else ()
    return Unit(module, sharding, table_class, sizes, num_buckets, {r: tuple(p) for r, p in parts.items()})


def _row_blocks(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """The blocks of a table's rows, in ascending order: first row and number of rows of each.

    Raises:
        ValueError: the blocks have different sizes, so that the block of an id cannot be found by a division.
    """
    blocks = sorted({(s.row, s.num_rows) for s in shards})
    size = blocks[0][1] if blocks else 0
    if any(row != n * size for n, (row, _) in enumerate(blocks)):
        raise ValueError(f"layout: row blocks {blocks} are not of one size; plan this table again")
    return blocks
