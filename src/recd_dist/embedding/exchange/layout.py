"""What travels where, as far as the plan decides it: computed once, the same on every rank.

A *unit* is the tables of one class and one sharding type: what one lookup of a rank computes. A *segment* is one key's
ids of one bucket (a block of a table's rows; the whole table where its rows are not split). Each rank is sent the
segments of the rows it holds, and sends back a matrix a unit, its columns side by side::

    unit 0: item (TW on rank 1), shop (CW on 0 and 1)    rank 0 is sent  shop        sends back  [R, shop's left half]
                                                         rank 1 is sent  item, shop              [R, item | right half]
    unit 1: user (RW on 0 and 1)                         rank 0 is sent  user below 5            [R, partial sum]
                                                         rank 1 is sent  user from 5             [R, partial sum]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from recd_dist.embedding.exchange.classes import TableClass
from recd_dist.embedding.placement import Placement, Shard

REPLICATED = "DP"
SPLIT_IN_HOST = ("TWRW", "GRID")
"""Sharding types whose row shards are all on one host, so that their partial sums are added up there."""


@dataclass(frozen=True)
class Part:
    """Columns of one key that a rank computes, for the ids of one bucket."""

    key: str
    bucket: int
    column: int
    num_columns: int


@dataclass(frozen=True)
class Unit:
    """Tables of one class and one sharding type.

    Attributes:
        module: name of the class, and of the module that holds its tables.
        sharding: short name of the type.
        rows: the class, less the tables of other types.
        block_rows: for each key the rows of a block; empty where rows are not split.
        num_buckets: blocks of a table; 1 where rows are not split.
        parts: by rank what it computes, in the order of its columns.
    """

    module: str
    sharding: str
    rows: TableClass
    block_rows: tuple[int, ...]
    num_buckets: int
    parts: Mapping[int, tuple[Part, ...]]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys, in order."""
        return tuple(self.rows.stacks)

    @cached_property
    def num_segments(self) -> int:
        """Segments that a rank makes of a batch; one more, never sent, for what fills up a list of distinct ids."""
        return self.num_buckets * len(self.keys) + (self.rows.send == "ids")

    def segments(self, rank: int) -> tuple[int, ...]:
        """The segments that a rank is sent, by number: bucket * keys + key; each once, whatever columns it holds."""
        numbers = (p.bucket * len(self.keys) + self.keys.index(p.key) for p in self.parts.get(rank, ()))
        return tuple(sorted(set(numbers)))

    def columns(self, rank: int) -> tuple[int, ...]:
        """Widths of the parts of the matrix that a rank sends back."""
        return tuple(p.num_columns for p in self.parts.get(rank, ()))

    def width(self, rank: int) -> int:
        """Columns of that matrix."""
        return sum(self.columns(rank))


@dataclass(frozen=True)
class Layout:
    """All units of a plan, seen from one rank.

    Attributes:
        units: those that are exchanged.
        replicated: those of which every rank holds a copy.
        rank, world_size: this rank's place.
        host_size: ranks of a host.
    """

    units: tuple[Unit, ...]
    replicated: tuple[Unit, ...]
    rank: int
    world_size: int
    host_size: int

    @cached_property
    def by_rows(self) -> tuple[int, ...]:
        """Numbers of the units whose rows are lists. They come first."""
        return tuple(n for n, unit in enumerate(self.units) if unit.rows.pooled)

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Numbers of the units whose ids have weights. They come first among those by rows."""
        return tuple(n for n in self.by_rows if self.units[n].rows.weighted)

    @cached_property
    def by_ids(self) -> tuple[int, ...]:
        """Numbers of the units of which every row is one id."""
        return tuple(n for n, unit in enumerate(self.units) if not unit.rows.pooled)

    @cached_property
    def local(self) -> tuple[int, ...]:
        """Numbers of the units of which this rank holds something."""
        return tuple(n for n, unit in enumerate(self.units) if unit.parts.get(self.rank))

    def is_summed_in_host(self, unit: Unit) -> bool:
        """Whether partial sums are added up inside a host before they leave it."""
        return unit.sharding in SPLIT_IN_HOST and unit.rows.pooled and 1 < self.host_size < self.world_size

    def sends_back(self, unit: Unit, rank: int) -> bool:
        """Whether a rank sends vectors of a unit to this one."""
        same_place = rank % self.host_size == self.rank % self.host_size
        return bool(unit.parts.get(rank)) and (same_place or not self.is_summed_in_host(unit))

    @cached_property
    def first_segment(self) -> tuple[int, ...]:
        """Where each unit's segments begin among all that a rank makes of a batch."""
        return tuple(accumulate((unit.num_segments for unit in self.units), initial=0))[:-1]

    @cached_property
    def sent_segments(self) -> tuple[int, ...]:
        """Segments in the order in which they are sent: rank after rank, unit after unit."""
        firsts = list(zip(self.units, self.first_segment, strict=True))
        return tuple(first + s for q in range(self.world_size) for unit, first in firsts for s in unit.segments(q))

    @cached_property
    def size_places(self) -> tuple[int, ...]:
        """For each of these its place in the sizes, [W, 1 + 2 * units]: of the ids of its unit."""
        width = 1 + 2 * len(self.units)
        return tuple(
            q * width + 2 + 2 * n
            for q in range(self.world_size)
            for n, unit in enumerate(self.units)
            for _ in unit.segments(q)
        )

    @cached_property
    def received_rows(self) -> tuple[int, ...]:
        """Order of the received segments of local units by rows (numbered source by source) for the lookups."""
        return self._received([n for n in self.local if n in self.by_rows])

    @cached_property
    def received_weights(self) -> tuple[int, ...]:
        """The same of those with weights, numbered source by source among themselves."""
        return self._received([n for n in self.local if n in self.weighted])

    @cached_property
    def received_ids(self) -> tuple[int, ...]:
        """The same of local units by ids."""
        return self._received([n for n in self.local if n in self.by_ids])

    def _received(self, units: Sequence[int]) -> tuple[int, ...]:
        """For each unit and each of its parts here, that part's segment of every source, one after the other."""
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


def layout_of(
    classes: Sequence[TableClass], placement: Placement, rank: int, world_size: int, host_size: int | None = None
) -> Layout:
    """The layout of a plan.

    Args:
        classes: of the tables.
        placement: where they lie.
        rank: this rank.
        world_size: W.
        host_size: ranks of a host; all when absent.
    """
    units = []
    for each in classes:
        for sharding in dict.fromkeys(placement[t].sharding for t in each.tables):
            tables = {t: keys for t, keys in each.tables.items() if placement[t].sharding == sharding}
            stacks = {k: each.stacks[k] for keys in tables.values() for k in keys}
            units.append(_unit(each.name, sharding, replace(each, stacks=stacks, tables=tables), placement))
    units.sort(key=lambda u: (not u.rows.pooled, not u.rows.weighted))
    return Layout(
        tuple(u for u in units if u.sharding != REPLICATED),
        tuple(u for u in units if u.sharding == REPLICATED),
        rank,
        world_size,
        host_size or world_size,
    )


def _unit(module: str, sharding: str, rows: TableClass, placement: Placement) -> Unit:
    blocks = {t: _blocks(placement[t].shards) for t in rows.tables}
    parts: dict[int, list[Part]] = {}
    for table, keys in rows.tables.items():
        for shard in placement[table].shards:
            bucket = blocks[table].index((shard.row, shard.num_rows))
            found = [Part(key, bucket, shard.column, shard.num_columns) for key in keys]
            parts.setdefault(shard.rank, []).extend(found)
    num_buckets = max((len(b) for b in blocks.values()), default=1)
    sizes = tuple(blocks[t][0][1] for t, keys in rows.tables.items() for _ in keys) if num_buckets > 1 else ()
    return Unit(module, sharding, rows, sizes, num_buckets, {r: tuple(p) for r, p in parts.items()})


def _blocks(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Row ranges of a table, ascending.

    Raises:
        ValueError: blocks of different sizes, of which an id's block cannot be told by a division.
    """
    blocks = sorted({(s.row, s.num_rows) for s in shards})
    size = blocks[0][1] if blocks else 0
    if any(row != n * size for n, (row, _) in enumerate(blocks)):
        raise ValueError(f"layout: row blocks {blocks} are not of one size; plan this table again")
    return blocks
