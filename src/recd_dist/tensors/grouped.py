"""Grouped tensors: rows that are still unique, with the inverse that expands them.

::

    group user, U = 2, B = 4      values [U, width]      inverse [B] = 0 0 0 1
    row 0 | pooled item | pooled shop |
    row 1 | pooled item | pooled shop |          expand() -> [B, width]: row 0, row 0, row 0, row 1

A layer that treats rows one by one gives the same result before and after ``expand``, but before ``expand`` it computes
U rows instead of B. Where nothing is deduplicated ``inverse`` is None: then U = B, ``expand`` is free, and the same
model code runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.host_side import HostArray, host_array
from recd_dist.tensors.jagged import find_last_values, value_index
from recd_dist.tensors.levels import Level


@dataclass(frozen=True, eq=False)
class Grouped:
    """A dense vector per unique row of a group.

    Attributes:
        values: float [U, ...], the unique rows.
        inverse: int32 [B] in [0, U), for each sample its row; None where every sample has its own row.
        keys: the names of the columns' parts along dim 1; empty where the parts have no names.
        dims: the widths of these parts.
        known_inverse: the inverse on the host, where it is known there.
    """

    values: Tensor
    inverse: Tensor | None = None
    keys: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    known_inverse: HostArray | None = None

    @property
    def num_rows(self) -> int:
        """U, the number of unique rows."""
        return self.values.shape[0]

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.values.shape[0] if self.inverse is None else self.inverse.shape[0]

    def __getitem__(self, key: str) -> Tensor:
        """The part of a name, [U, dim], as a view."""
        number = self.keys.index(key)
        return self.values.narrow(1, sum(self.dims[:number]), self.dims[number])

    def expand(self) -> Tensor:
        """Gives every sample its row, [B, ...]; the gradient sums over the samples of a row."""
        return self.values if self.inverse is None else expand_rows(self.values, self.inverse)


@dataclass(frozen=True, eq=False)
class GroupedJagged:
    """A list of vectors per unique row of a group: a sequence that is not pooled.

    Attributes:
        values: float [N, D], the vectors, row after row.
        lengths: int32 [U], the number of vectors of each row; they sum to N.
        inverse: int32 [B] in [0, U), for each sample its row; None where every sample has its own row.
        known_lengths: the lengths on the host, where they are known there.
        known_inverse: the inverse on the host, where it is known there.
        level: the level of the rows among those of the batch, once it is known; None for a row per sample.
        most: while a program is traced a length that no list exceeds, a symbol; lists then are as short as a model
            wants them.
    """

    values: Tensor
    lengths: Tensor
    inverse: Tensor | None = None
    known_lengths: HostArray | None = None
    known_inverse: HostArray | None = None
    level: Level | None = None
    most: int | None = None

    @property
    def num_rows(self) -> int:
        """U, the number of unique rows."""
        return self.lengths.shape[0]

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.lengths.shape[0] if self.inverse is None else self.inverse.shape[0]

    def pool(self) -> Grouped:
        """Adds up each row's vectors, [U, D]; zero for an empty row."""
        rows = torch.repeat_interleave(
            torch.arange(self.num_rows, device=self.values.device),
            self.lengths.long(),
            output_size=self.values.shape[0],
        )
        pooled = self.values.new_zeros(self.num_rows, self.values.shape[1]).index_add(0, rows, self.values)
        return Grouped(pooled, self.inverse)

    def expand(self) -> "GroupedJagged":
        """Gives every sample its list."""
        if self.inverse is None:
            return self
        rows, known, num_values = self.inverse.long(), None, None
        if self.known_lengths is not None and self.known_inverse is not None:
            known = self.known_lengths[self.known_inverse]
            num_values = int(known.sum())
        lengths = self.lengths[rows]
        index = value_index(self.lengths, rows, lengths, num_values)
        return GroupedJagged(self.values.index_select(0, index), lengths, known_lengths=known)

    def with_values(self, values: Tensor) -> "GroupedJagged":
        """Puts other vectors [N, ...] in the place of these, in the same lists."""
        return replace(self, values=values)

    def keep_last(self, max_length: int) -> "GroupedJagged":
        """Keeps each row's last ``max_length`` vectors; of a history in the order of time these are the newest."""
        if self.most is not None:
            return self
        kept = np.minimum(host_array(self.lengths, self.known_lengths), max_length)
        index, lengths = find_last_values(self.lengths, max_length, int(kept.sum()))
        return replace(self, values=self.values.index_select(0, index), lengths=lengths, known_lengths=kept)

    def padded_index(self, longest: int) -> Tensor:
        """The row of each vector in the dense form [U * longest, D], int64 [N]; no list may be longer than that."""
        starts = torch.cumsum(self.lengths, 0, dtype=torch.int64) - self.lengths
        first = torch.arange(self.num_rows, device=starts.device) * longest - starts
        size = self.values.shape[0]
        shift = torch.repeat_interleave(first, self.lengths.long(), output_size=size)
        return shift + torch.arange(size, device=starts.device)

    def longest(self) -> int:
        """The length of the longest list; 0 without rows. The host waits for a device if it has not the lengths."""
        if self.most is not None:
            return self.most
        return int(host_array(self.lengths, self.known_lengths).max(initial=0))

    def pad(self, max_length: int | None = None) -> tuple[Tensor, Tensor]:
        """The dense form: vectors [U, L, D], with zeros behind the end of a list, and their mask, bool [U, L].

        Args:
            max_length: L, which no list exceeds; when absent, the length of the longest list.
        """
        longest = max_length if max_length is not None else self.longest()
        mask = torch.arange(longest, device=self.lengths.device)[None, :] < self.lengths[:, None]
        width = self.values.shape[1]
        flat = self.values.new_zeros(self.num_rows * longest, width)
        flat = flat.index_copy(0, self.padded_index(longest), self.values)
        return flat.view(self.num_rows, longest, width), mask


@dataclass(frozen=True, eq=False)
class Embedded:
    """What the embedding tables give to a model.

    Attributes:
        pooled: for each group its pooled features side by side, values [U, sum of dims]; a part has its feature's name.
        sequences: for each feature that is not pooled its lists of vectors.
        ids: for each feature that is not looked up at all its lists of ids, int32 or int64 [N].
    """

    pooled: Mapping[str, Grouped]
    sequences: Mapping[str, GroupedJagged]
    ids: Mapping[str, GroupedJagged] = field(default_factory=dict)

    def expand(self) -> "Embedded":
        """Gives every sample its rows, for a model that was written for expanded inputs."""
        pooled = {g: replace(x, values=x.expand(), inverse=None, known_inverse=None) for g, x in self.pooled.items()}
        lists, ids = ({f: s.expand() for f, s in x.items()} for x in (self.sequences, self.ids))
        return Embedded(pooled, lists, ids)
