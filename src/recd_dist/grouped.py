"""Grouped tensors: what a model computes on while values are still unique.

::

    group user, U = 2, B = 4      values [U, width]      inverse [B] = 0 0 0 1
    row 0 | pooled item | pooled shop |
    row 1 | pooled item | pooled shop |          expand() -> [B, width]: row 0, row 0, row 0, row 1

A layer that treats rows one by one gives the same result before and after ``expand``; before, it costs U rows instead
of B. ``inverse`` is None where nothing is deduplicated: then U = B and ``expand`` is free. The same model code runs
either way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recd_dist.jagged import value_index


@dataclass(frozen=True, eq=False)
class Grouped:
    """One dense row per unique row of a group.

    Attributes:
        values: float [U, ...].
        inverse: int32 [B] in [0, U), or None for a row per sample.
        keys: names of the parts along dim 1, may be empty when the parts have no names.
        dims: their widths.
    """

    values: Tensor
    inverse: Tensor | None = None
    keys: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        """U."""
        return self.values.shape[0]

    @property
    def batch_size(self) -> int:
        """B."""
        return self.values.shape[0] if self.inverse is None else self.inverse.shape[0]

    def __getitem__(self, key: str) -> Tensor:
        """A named part, [U, dim], a view."""
        number = self.keys.index(key)
        return self.values.narrow(1, sum(self.dims[:number]), self.dims[number])

    def expand(self) -> Tensor:
        """A row per sample, [B, ...]; its gradient sums over the samples of a row."""
        return self.values if self.inverse is None else self.values.index_select(0, self.inverse)

    def map(self, layer: Callable[[Tensor], Tensor]) -> "Grouped":
        """A layer applied once per unique row; the parts lose their names."""
        return Grouped(layer(self.values), self.inverse)

    def with_values(self, values: Tensor) -> "Grouped":
        """Other values [U, ...] for the same rows; the parts lose their names."""
        return Grouped(values, self.inverse)

    @staticmethod
    def concat(parts: "Sequence[Grouped]") -> "Grouped":
        """Side by side along dim 1; all parts must be rows of the same group."""
        if len(parts) == 1:
            return parts[0]
        keys = tuple(k for p in parts for k in p.keys)
        dims = tuple(d for p in parts for d in p.dims)
        return Grouped(torch.cat([p.values for p in parts], dim=1), parts[0].inverse, keys, dims)


@dataclass(frozen=True, eq=False)
class GroupedJagged:
    """One list of vectors per unique row of a group: an un-pooled sequence.

    Attributes:
        values: float [N, D], vectors row after row.
        lengths: int32 [U], vectors of each row; they sum to N.
        inverse: int32 [B] in [0, U), or None for a row per sample.
    """

    values: Tensor
    lengths: Tensor
    inverse: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """U."""
        return self.lengths.shape[0]

    @property
    def batch_size(self) -> int:
        """B."""
        return self.lengths.shape[0] if self.inverse is None else self.inverse.shape[0]

    def pool(self, mean: bool = False) -> Grouped:
        """The sum (or mean) of each row's vectors, [U, D]; zero for an empty row."""
        rows = torch.repeat_interleave(
            torch.arange(self.num_rows, device=self.values.device),
            self.lengths.long(),
            output_size=self.values.shape[0],
        )
        pooled = self.values.new_zeros(self.num_rows, self.values.shape[1]).index_add(0, rows, self.values)
        if mean:
            pooled = pooled / self.lengths.clamp(min=1)[:, None]
        return Grouped(pooled, self.inverse)

    def expand(self) -> "GroupedJagged":
        """A list per sample."""
        if self.inverse is None:
            return self
        rows = self.inverse.long()
        lengths = self.lengths[rows]
        return GroupedJagged(self.values.index_select(0, value_index(self.lengths, rows, lengths)), lengths)

    def padded(self, max_length: int | None = None) -> tuple[Tensor, Tensor]:
        """Dense form: vectors [U, L, D] (zeros behind a row's end) and mask bool [U, L].

        Args:
            max_length: L; the longest row's length when absent (a host synchronisation on CUDA).
        """
        longest = max_length if max_length is not None else (int(self.lengths.max()) if self.num_rows else 0)
        mask = torch.arange(longest, device=self.lengths.device)[None, :] < self.lengths[:, None]
        starts = torch.cumsum(self.lengths, 0, dtype=torch.int64) - self.lengths
        index = starts[:, None] + torch.arange(longest, device=self.lengths.device)[None, :]
        if self.values.shape[0] == 0:
            return self.values.new_zeros(self.num_rows, longest, self.values.shape[1]), mask
        index = torch.where(mask, index, 0)
        vectors = self.values.index_select(0, index.reshape(-1)).view(self.num_rows, longest, -1)
        return vectors * mask[:, :, None].to(vectors.dtype), mask


@dataclass(frozen=True, eq=False)
class Embedded:
    """What the embedding room hands to a model.

    Attributes:
        pooled: per group its pooled features side by side, values [U, sum of dims], parts named by feature.
        sequences: per un-pooled feature its vectors.
    """

    pooled: Mapping[str, Grouped]
    sequences: Mapping[str, GroupedJagged]

    def expanded(self) -> "Embedded":
        """The same with a row per sample everywhere: for a model written for expanded inputs."""
        pooled = {g: replace(x, values=x.expand(), inverse=None) for g, x in self.pooled.items()}
        return Embedded(pooled, {f: s.expand() for f, s in self.sequences.items()})
