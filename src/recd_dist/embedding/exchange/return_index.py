"""Which matrices come back from which rank, and which of them belong together.

Matrices with the same columns belong to different rows of the tables. They are put one below the other when they
arrive, so that there are as many tensors as there are different columns, whatever the number of ranks::

    from rank 0  [item]  [user, rows 0-4]      bundles  item  [R]
    from rank 1  [user, rows 5-9]                       user  [2 R], rows 0-4, then rows 5-9
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recd_dist.embedding.exchange.codec import Codec
from recd_dist.embedding.exchange.pieces import Integers, Order

Columns = tuple[tuple[str, int, int], ...]
"""Columns that stand side by side in a matrix, as (key, first column of the table, number of columns)."""


@dataclass(frozen=True)
class Bundle:
    """The matrices of a unit that have the same columns, one below the other in the order of their ranks.

    Attributes:
        unit: number of the unit.
        columns: the columns.
        num_matrices: number of the matrices.
    """

    unit: int
    columns: Columns
    num_matrices: int

    @property
    def widths(self) -> tuple[int, ...]:
        """For each table the number of its columns."""
        return tuple(n for _, _, n in self.columns)


class ReturnIndex:
    """The matrices that one rank receives.

    Args:
        coming: for each rank the unit and the columns of each matrix that comes from it, in the order of the wire.

    Attributes:
        bundles: the bundles, unit after unit.
        rank, unit: for each matrix, in the order of the wire, the rank that it comes from, and its unit.
        order: order of the matrices, bundle after bundle.
        back: the order that puts them back.
    """

    def __init__(self, coming: Sequence[Sequence[tuple[int, Columns]]]) -> None:
        flat = [(q, unit, columns) for q, of_rank in enumerate(coming) for unit, columns in of_rank]
        members: dict[tuple[int, Columns], list[int]] = {}
        for number, (_, unit, columns) in enumerate(flat):
            members.setdefault((unit, columns), []).append(number)
        chosen = sorted(members, key=lambda bundle: bundle[0])
        self.bundles = [Bundle(unit, columns, len(members[unit, columns])) for unit, columns in chosen]
        self.rank: Integers = np.array([q for q, _, _ in flat], dtype=np.int64)
        self.unit: Integers = np.array([unit for _, unit, _ in flat], dtype=np.int64)
        self.order = Order([number for key in chosen for number in members[key]])
        self.back = self.order.inverse()
        self._world_size, self._columns = len(coming), [columns for _, _, columns in flat]
        self._row_sizes: dict[str, Integers] = {}
        self.ends = np.cumsum([b.num_matrices for b in self.bundles])

    def sizes(self, num_rows: Integers, codec: Codec) -> Integers:
        """Elements of each matrix, in the order of the wire.

        Args:
            num_rows: for each rank and unit the number of rows that come back, int64 [W, units].
            codec: the codec of the direction.
        """
        if codec.name not in self._row_sizes:
            widths = [codec.row_size(tuple(n for _, _, n in columns)) for columns in self._columns]
            self._row_sizes[codec.name] = np.array(widths, dtype=np.int64)
        return num_rows[self.rank, self.unit] * self._row_sizes[codec.name]

    def by_rank(self, sizes: Integers) -> list[int]:
        """Elements from each rank.

        Args:
            sizes: elements of each matrix, in the order of the wire.
        """
        return np.bincount(self.rank, weights=sizes, minlength=self._world_size).astype(np.int64).tolist()

    def by_bundle(self, sizes: Integers) -> list[Integers]:
        """For each bundle the elements of its matrices.

        Args:
            sizes: elements of each matrix, in the order of the wire.
        """
        return np.split(sizes[self.order.numbers], self.ends[:-1]) if len(self.bundles) else []
