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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from recd_dist.embedding.exchange.classes import TableClass
from recd_dist.embedding.exchange.return_index import Columns, ReturnIndex
from recd_dist.embedding.exchange.size_index import SizeIndex
from recd_dist.embedding.vocabulary.placement import Placement, Shard

REPLICATED = "DP"
SPLIT_IN_HOST = ("TWRW", "GRID")
"""Sharding types whose row shards are all on one host, where their partial sums can be added up."""


@dataclass(frozen=True)
class Part:
    """Columns of one key that a rank computes, for the ids of one segment.

    Attributes:
        key: the key.
        segment: number of the segment.
        column: first column of the table.
        num_columns: number of columns.
    """

    key: str
    segment: int
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
        num_segments: how many segments a rank makes of a batch; one more for what fills up distinct ids, which is never
            sent. A segment's number is that of its bucket times the number of keys, plus that of its key.
        parts: for each rank the parts that it computes, in the order of its columns.
        columns: for each rank the columns of the matrix that it sends back.
    """

    module: str
    sharding: str
    table_class: TableClass
    block_rows: tuple[int, ...]
    num_buckets: int
    num_segments: int
    parts: Mapping[int, tuple[Part, ...]]
    columns: Mapping[int, Columns]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the unit, in their order."""
        return tuple(self.table_class.stacks)

    def segments(self, rank: int) -> tuple[int, ...]:
        """Numbers of the segments that a rank receives: each once, whatever columns the rank holds.

        Args:
            rank: the rank.
        """
        return tuple(sorted({p.segment for p in self.parts.get(rank, ())}))

    def widths(self, rank: int) -> tuple[int, ...]:
        """For each table in the matrix that a rank sends back the number of its columns.

        Args:
            rank: the rank.
        """
        return tuple(n for _, _, n in self.columns.get(rank, ()))


@dataclass(frozen=True)
class Layout:
    """All units of a plan, seen from one rank.

    Attributes:
        units: the units that are exchanged.
        replicated: the units of which every rank holds a copy.
        rank: this rank.
        world_size: W, the number of ranks.
        host_size: number of ranks of a host.
        is_relayed: True if what comes is sent on: then single ids stay in the order of the ranks that they came from.
    """

    units: tuple[Unit, ...]
    replicated: tuple[Unit, ...]
    rank: int
    world_size: int
    host_size: int
    is_relayed: bool = False

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

    @cached_property
    def times_looked_up(self) -> dict[int, int | None]:
        """For each local unit how often this rank looks up each id that it receives: once a column shard of its table.

        None if tables of the unit differ in that. Then only the device knows how many ids the lookup takes.
        """
        times = {}
        for n in self.local_units:
            counts = set(Counter(p.segment for p in self.units[n].parts[self.rank]).values())
            times[n] = counts.pop() if len(counts) == 1 else None
        return times

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
    def sizes(self) -> SizeIndex:
        """Where the numbers of rows and ids stand in what ranks tell each other, and in which order ids travel."""
        segments = [[unit.segments(q) for unit in self.units] for q in range(self.world_size)]
        parts = [[p.segment for p in unit.parts.get(self.rank, ())] for unit in self.units]
        num_segments = [unit.num_segments for unit in self.units]
        num_units = len(self.row_units), len(self.weighted_units)
        return SizeIndex(segments, parts, num_segments, *num_units, self.rank, by_source=self.is_relayed)

    @cached_property
    def returns(self) -> ReturnIndex:
        """Which matrices come back from which rank."""
        coming = [
            [(n, unit.columns[q]) for n, unit in enumerate(self.units) if self.sends_back(unit, q)]
            for q in range(self.world_size)
        ]
        return ReturnIndex(coming)


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
    numbers = {t: {block: n for n, block in enumerate(of_table)} for t, of_table in blocks.items()}
    keys = {key: n for n, key in enumerate(table_class.stacks)}
    parts: dict[int, list[Part]] = {}
    for table, own in table_class.tables.items():
        for shard in placement[table].shards:
            first = numbers[table][shard.row, shard.num_rows] * len(keys)
            of_shard = [Part(key, first + keys[key], shard.column, shard.num_columns) for key in own]
            parts.setdefault(shard.rank, []).extend(of_shard)
    num_buckets = max((len(b) for b in blocks.values()), default=1)
    sizes = tuple(blocks[t][0][1] for t, own in table_class.tables.items() for _ in own) if num_buckets > 1 else ()
    num_segments = num_buckets * len(keys) + (table_class.send == "ids")
    columns = {r: tuple((p.key, p.column, p.num_columns) for p in of_rank) for r, of_rank in parts.items()}
    whole = {r: tuple(of_rank) for r, of_rank in parts.items()}
    return Unit(module, sharding, table_class, sizes, num_buckets, num_segments, whole, columns)


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
