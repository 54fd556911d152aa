"""Where the sizes stand that ranks tell each other, and in which order segments travel.

Each rank is told, in one row of numbers, what comes::

    row for rank q   [width code | unit 0: rows, ids | unit 3: rows, ids | unit 5: ids of each segment | 0 0]
                      -- only units of which q holds shards; all rows are as long as the longest --

All positions follow from the plan. They are arrays, so that a step looks them up in one call, whatever the number of
ranks.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from recd_dist.embedding.exchange.pieces import Integers, Order

Segments = Sequence[Sequence[Sequence[int]]]
"""For each rank and unit the numbers of the segments that the rank receives."""


class SizeIndex:
    """The positions, seen from one rank.

    Args:
        segments: for each rank and unit the segments that the rank receives.
        parts: for each unit the segments that the lookups of this rank take, in the order of its parts.
        num_segments: for each unit the number of its segments.
        num_row_units: number of units whose rows are lists; they come first.
        num_weighted: number of units with weights; they come first among these.
        rank: this rank.
        by_source: True if single ids of a unit stay in the order of the ranks that they came from.

    Attributes:
        first_segment: for each unit the number of its first segment among those of all units.
        width: numbers in the row for a rank.
        sent: order in which segments are sent, rank after rank.
        sent_at: for each sent segment where its number of ids is added in the rows of all ranks, joined.
        sent_at_order: the same, for devices.
        sent_rank, sent_unit: for each sent segment of lists the rank that it goes to, and its unit.
        rows_at, rows_unit: where numbers of rows stand, and of which unit.
        ids_at, ids_cell: where numbers of ids stand, and of which rank and unit, as rank * units + unit.
        rows_column, ids_column: for each local unit of lists the columns of what this rank is told about it.
        segment_column: for each local segment of single ids the column of what this rank is told about it.
        list_unit, id_unit: for each local segment of lists, and of single ids, the number of its unit.
        local_lists, local_ids: numbers of the local units whose rows are lists, and of the others.
        sent_weights: order in which the weights of segments are sent.
        sent_lengths: order of the lengths that are sent. After those of all segments of lists, for which a rank has
            lengths, stands a piece of padding for each rank.
        received: order in which lookups take the received segments, which are numbered source by source, lists first.
        received_lengths: the same for lengths of lists, behind which stands a piece of padding from each source.
        received_weights: the same for weights.
    """

    def __init__(
        self,
        segments: Segments,
        parts: Sequence[Sequence[int]],
        num_segments: Sequence[int],
        num_row_units: int,
        num_weighted: int,
        rank: int,
        *,
        by_source: bool = False,
    ) -> None:
        self.num_row_units, self.num_weighted, self.world_size = num_row_units, num_weighted, len(segments)
        self.num_units, self.first_segment = len(num_segments), tuple(accumulate(num_segments, initial=0))
        self._place_columns(segments)
        self.local_lists = [n for n, own in enumerate(segments[rank]) if own and n < num_row_units]
        self.local_ids = [n for n, own in enumerate(segments[rank]) if own and n >= num_row_units]
        self._place_received(segments[rank], parts, by_source)

    def _place_columns(self, segments: Segments) -> None:
        """Where each number stands in the row for each rank."""
        rows, sent, widths = list[tuple[int, int, int]](), list[tuple[int, int, int, int]](), list[int]()
        for q, of_rank in enumerate(segments):
            column = 1
            for n, own in enumerate(of_rank):
                is_list = n < self.num_row_units
                if own and is_list:
                    rows.append((q, column, n))
                    column += 1
                sent += [(q, n, self.first_segment[n] + s, column + (0 if is_list else k)) for k, s in enumerate(own)]
                column += 1 if own and is_list else len(own)
            widths.append(column)
        self.width = max(widths)
        ranks, units, numbers, columns = _columns(sent, 4)
        self.sent, self.sent_at = Order(numbers, self.first_segment[-1]), ranks * self.width + columns
        self.sent_at_order = Order(self.sent_at)
        self.ids_at, first = np.unique(self.sent_at, return_index=True)
        self.ids_cell = (ranks * self.num_units + units)[first]
        row_ranks, row_columns, self.rows_unit = _columns(rows, 3)
        self.rows_at = row_ranks * self.width + row_columns
        lists = units < self.num_row_units
        self.sent_rank, self.sent_unit = ranks[lists], units[lists]
        ends = np.searchsorted(ranks[lists], np.arange(self.world_size), side="right")
        num_lengths = self.first_segment[self.num_row_units]
        self.sent_lengths = Order(np.insert(numbers[lists], ends, num_lengths + np.arange(self.world_size)))
        self.sent_weights = Order(numbers[units < self.num_weighted], self.first_segment[self.num_weighted])

    def _place_received(self, own: Sequence[Sequence[int]], parts: Sequence[Sequence[int]], by_source: bool) -> None:
        """Where each number stands in the rows that this rank is sent, and the order of what comes."""
        self.rows_column = 1 + 2 * np.arange(len(self.local_lists))
        self.ids_column = self.rows_column + 1
        num_segments = sum(len(own[n]) for n in self.local_ids)
        self.segment_column = 1 + 2 * len(self.local_lists) + np.arange(num_segments)
        self.list_unit = _array([n for n in self.local_lists for _ in own[n]])
        self.id_unit = _array([n for n in self.local_ids for _ in own[n]])
        numbers, count = dict[tuple[int, int], int](), 0
        for n in (*self.local_lists, *self.local_ids):
            for segment in own[n]:
                numbers[n, segment] = count
                count += 1
        lists = [numbers[n, s] for n in self.local_lists for s in parts[n]]
        ids = [[numbers[n, s] for s in parts[n]] for n in self.local_ids]
        weights = [numbers[n, s] for n in self.local_lists if n < self.num_weighted for s in parts[n]]
        self.num_weight_segments = sum(len(own[n]) for n in self.local_lists if n < self.num_weighted)
        of_ids = [self._pieces(of_unit, count) for of_unit in ids]
        joined = [self._pieces(lists, count), *((p.T if by_source else p) for p in of_ids)]
        self.received = Order(np.concatenate([p.reshape(-1) for p in joined]), count * self.world_size)
        num_pieces = len(self.list_unit) + 1
        self.received_lengths = Order(self._pieces(lists, num_pieces), num_pieces * self.world_size)
        num_pieces = self.num_weight_segments
        self.received_weights = Order(self._pieces(weights, num_pieces), num_pieces * self.world_size)

    def _pieces(self, numbers: Sequence[int], count: int) -> Integers:
        """For each number one piece from each source, where a source sends ``count`` pieces, int64 [numbers, W]."""
        pieces: Integers = _array(numbers)[:, None] + (np.arange(self.world_size) * count)[None, :]
        return pieces

    def sent_ids(self, message: Integers) -> Integers:
        """The number of ids of each unit that each rank is sent, int64 [W, units].

        Args:
            message: the rows for all ranks, int64 [W, width].
        """
        cells = self.world_size * self.num_units
        found = np.bincount(self.ids_cell, weights=message.reshape(-1)[self.ids_at], minlength=cells)
        return found.astype(np.int64).reshape(self.world_size, self.num_units)


def _array(numbers: Sequence[int]) -> Integers:
    return np.array(numbers, dtype=np.int64)


def _columns(tuples: Sequence[tuple[int, ...]], num_columns: int) -> tuple[Integers, ...]:
    """The columns of a list of tuples."""
    return tuple(np.array(tuples, dtype=np.int64).reshape(-1, num_columns).T)
