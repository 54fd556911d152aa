"""The zones of a mapped table: which rows an id may have, and which rank hands them out.

::

    row      0          1 ...... 1024   1025 ..... 2048   ...            num_embeddings rows
             unknown    zone 0          zone 1            zone 2  ...
    rank                '------ rank 0 ------'            '-- rank 1 --

An id belongs to the zone that its hash names, on any number of ranks. So a job of other ranks takes over whole zones,
and comes to the same rows.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recd_dist.table.column import Array

UNKNOWN = 0
"""The row of ids that have none of their own."""

ROWS_PER_ZONE, MAX_ZONES = 1024, 1024
"""Fewer rows a zone would fill unevenly: of 1,024 rows the fullest zones are some 10% ahead. Both numbers are part of
what defines a mapping: other ones would give the ids of a checkpoint other zones."""


def count_zones(num_embeddings: int) -> int:
    """The number of zones of a table: a power of two, so that each has at least ``ROWS_PER_ZONE`` rows if it can."""
    wanted = max(1, min(MAX_ZONES, (num_embeddings - 1) // ROWS_PER_ZONE))
    return 1 << (wanted.bit_length() - 1)


@dataclass(frozen=True)
class Zones:
    """The zones of one table, dealt to ranks.

    Attributes:
        num_embeddings: rows of the table, the unknown row included; at least 2.
        num_zones: number of zones, from ``count_zones``.
        rank: this rank.
        world_size: number of ranks.
    """

    num_embeddings: int
    num_zones: int
    rank: int = 0
    world_size: int = 1

    @cached_property
    def of_ranks(self) -> Array:
        """int64 [ranks + 1]: rank r hands out the rows of the zones from ``of_ranks[r]`` to ``of_ranks[r + 1]``."""
        return np.arange(self.world_size + 1, dtype=np.int64) * self.num_zones // self.world_size

    @property
    def mine(self) -> range:
        """The zones of this rank; there are none if there are more ranks than zones."""
        return range(int(self.of_ranks[self.rank]), int(self.of_ranks[self.rank + 1]))

    @cached_property
    def firsts(self) -> Array:
        """int64 [zones + 1]: the first row of each zone, and ``num_embeddings`` at the end."""
        return 1 + np.arange(self.num_zones + 1, dtype=np.int64) * (self.num_embeddings - 1) // self.num_zones

    def rows_of(self, rank: int) -> range:
        """The rows that a rank keeps the ids of: those of its zones, and the unknown row beside those of zone 0."""
        first, last = (int(self.firsts[zone]) for zone in self.of_ranks[rank : rank + 2])
        return range(UNKNOWN if first == 1 and last > 1 else first, last)
