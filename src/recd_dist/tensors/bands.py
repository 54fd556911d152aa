"""Bands: the rows of a jagged tensor in order of their lengths, cut where padding would begin to cost.

::

    lengths   188 3 180 4 190        sorted  190 188 180 | 4 3       two bands, padded to 190 and to 4

Attention inside rows multiplies matrices, which wants rows of one length. Rows of a band are nearly as long as its
longest, so that what is padded is a few percent, and a band is small enough that its scores stay in the cache. A
device gets one band with rows as they stand: there, one large kernel beats many small ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.host_side import host_array, is_on_host
from recd_dist.tensors.jagged import value_index
from recd_dist.tensors.slots import take_distinct

MAX_PADDED = 1.25
"""How many times more scores than those of the rows' own a band may hold."""
MAX_SCORES = 1 << 20
"""The most scores of a band with more than one row; 4 MB in float32."""


@dataclass(frozen=True, eq=False)
class Band:
    """Rows of similar length.

    Attributes:
        first: the number of the first of its vectors among the sorted ones.
        lengths: int64 [rows], the rows' lengths.
        num_values: n, their sum.
        longest: the length of the longest.
        is_even: whether all are as long.
    """

    first: int
    lengths: Tensor
    num_values: int
    longest: int
    is_even: bool

    def pad(self, values: Tensor) -> Tensor:
        """The band's vectors [n, D] in dense form, [rows, longest, D], with zeros behind the end of a row."""
        if self.is_even:
            return values.view(self.lengths.shape[0], self.longest, values.shape[1])
        flat = values.new_zeros(self.lengths.shape[0] * self.longest, values.shape[1])
        return flat.index_copy(0, self.cells, values).view(self.lengths.shape[0], self.longest, values.shape[1])

    def take(self, padded: Tensor) -> Tensor:
        """The vectors [n, D] out of their dense form."""
        flat = padded.reshape(self.lengths.shape[0] * self.longest, padded.shape[2])
        return flat if self.is_even else take_distinct(flat, self.cells)

    @property
    def cells(self) -> Tensor:
        """The place of each vector in the dense form, int64 [n]."""
        empty = torch.empty(self.num_values, 0, device=self.lengths.device)
        return GroupedJagged(empty, self.lengths).padded_index(self.longest)

    @property
    def mask(self) -> Tensor:
        """Where there is a vector, bool [rows, longest]."""
        return torch.arange(self.longest, device=self.lengths.device)[None, :] < self.lengths[:, None]


@dataclass(frozen=True, eq=False)
class Bands:
    """The bands of a jagged tensor.

    Attributes:
        bands: the bands, that of the longest rows first; empty rows are in none.
        index: int64 [N], for each sorted vector its number among the unsorted ones; None where they are in order.
        inverse: int64 [N], for each unsorted vector its number among the sorted ones; None where they are in order.
        rows: the rows in order of their lengths, int64 [U].
    """

    bands: tuple[Band, ...]
    index: Tensor | None
    inverse: Tensor | None
    rows: Tensor

    @staticmethod
    def of(lists: GroupedJagged, max_scores: int = MAX_SCORES) -> "Bands":
        """The bands of some lists.

        Args:
            lists: the lists.
            max_scores: the most scores (rows times longest times longest) of a band of several rows.
        """
        if lists.most is not None:
            whole = Band(0, lists.lengths, lists.values.shape[0], lists.most, is_even=False)
            return Bands((whole,), None, None, torch.arange(lists.num_rows))
        lengths = host_array(lists.lengths, lists.known_lengths).astype(np.int64)
        device, size = lists.lengths.device, lists.values.shape[0]
        if not is_on_host(lists.lengths):
            longest = int(lengths.max(initial=0))
            whole = Band(0, lists.lengths, size, longest, is_even=False)
            rows = torch.arange(len(lengths), device=device)
            return Bands((whole,) if longest else (), None, None, rows)
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        bands, first = [], 0
        for start, end in _cut(ordered, max_scores):
            own = ordered[start:end]
            is_even = own[0] == own[-1]
            bands.append(Band(first, torch.from_numpy(own), int(own.sum()), int(own[0]), is_even))
            first += int(own.sum())
        if (order[1:] > order[:-1]).all():
            return Bands(tuple(bands), None, None, torch.from_numpy(order))
        rows = torch.from_numpy(order)
        index = value_index(lists.lengths, rows, torch.from_numpy(ordered), size)
        inverse = torch.empty_like(index)
        inverse[index] = torch.arange(size)
        return Bands(tuple(bands), index, inverse, rows)

    def sort(self, values: Tensor) -> Tensor:
        """The vectors [N, D] in the order of the bands."""
        return values if self.index is None else take_distinct(values, self.index)

    def unsort(self, values: Tensor) -> Tensor:
        """Undoes ``sort``."""
        return values if self.inverse is None else take_distinct(values, self.inverse)

    def map(self, function: Callable[[Band, Tensor], Tensor], values: Tensor, width: int) -> Tensor:
        """Puts what a function makes of each band's vectors in their place, [N, width].

        Args:
            function: gets a band and its vectors [n, D], and returns [n, width].
            values: the sorted vectors, [N, D].
            width: the number of columns of the result, at most D.
        """
        if not self.bands:
            return values[:, :width]  # no vectors, and still a function of them
        if len(self.bands) == 1:
            return function(self.bands[0], values)
        parts = values.split([b.num_values for b in self.bands])
        made = [function(b, p) for b, p in zip(self.bands, parts, strict=True)]
        return torch.cat(made)


def _cut(lengths: np.ndarray, max_scores: int) -> Iterator[tuple[int, int]]:
    """Cuts rows in falling order of length into bands, [start, end); empty rows are left out."""
    start, own = 0, 0
    num_filled = int(np.count_nonzero(lengths))
    for row in range(num_filled):
        longest, size = int(lengths[start]), row - start + 1
        own += int(lengths[row]) ** 2
        padded = size * longest * longest
        if size > 1 and (padded > MAX_PADDED * own + 4096 or padded > max_scores):
            yield start, row
            start, own = row, int(lengths[row]) ** 2
    if num_filled:
        yield start, num_filled
