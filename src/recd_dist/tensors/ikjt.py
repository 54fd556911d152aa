"""The InverseKeyedJaggedTensor (IKJT): unique rows per group, and each sample's row.

After RecD (MLSys 2023), section 4. Four samples, the group ``history`` with the keys ``item`` and ``shop``, and a
candidate that is never deduplicated::

    sample      0        1        2        3
    item     [7, 8]   [7, 8]   [9]      [7, 8]      group history: unique rows 0 = ([7, 8], [1]), 1 = ([9], [])
    shop     [1]      [1]      []       [1]
    cand     [5]      [6]      [5]      [5]         group sample: a row per sample

    values   7 8 9 | 1 | 5 6 5 5          key after key, row after row
    lengths  2 1 | 1 0 | 1 1 1 1          key after key: U_history, U_history, B
    inverse  0 0 1 0                      one int32 [B] per deduplicated group

The storage is flat: to move a batch is to move at most five tensors, and a group's slice is a KeyedJaggedTensor without
a copy. "Unique" means deduplicated, not proven distinct: a row that is stored twice is wasteful and never wrong.

Rows of a key may be windows (RecD's partial IKJT): a history that shifts shares its ids with the row before. Then the
key's values are the ids that its rows share, and ``starts`` says where each row begins in them::

    rows     [1, 2, 3]  [2, 3, 4]         values 1 2 3 4    lengths 3 3    starts 0 1

Every stored id lies in a row, so that what is done to the values is done to the ids of the rows, and to no others.
``lists`` makes lists of them, one row after the other.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.host_side import is_on_host
from recd_dist.tensors.ikjt_checks import check_layout, check_windows
from recd_dist.tensors.ikjt_conversions import expand_groups, picture, select_keys, with_lists
from recd_dist.tensors.keyed_rows import GroupLayout, KeyedRows

if TYPE_CHECKING:
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

__all__ = ["IKJT", "GroupLayout"]


@dataclass(frozen=True, eq=False)
class IKJT(KeyedRows):
    """An immutable batch of id features, deduplicated per group; ``KeyedRows`` says what its attributes are.

    Raises:
        ValueError: a tensor does not fit the layout, a window leaves the ids of its key, or an id lies in no row; the
            message names the tensor, group or key, what was found and what is needed.
    """

    def __post_init__(self) -> None:
        check_layout(self)
        check_windows(self)

    # --- conversions -------------------------------------------------------------------------------------------------

    def expand(self, groups: Collection[str] | None = None) -> "IKJT":
        """The same samples with groups moved into ``sample``, where every sample has a row; keys keep their order.

        Args:
            groups: the deduplicated groups to move; all of them when absent.
        """
        kept = [g for g in self.groups if groups is not None and g.name not in (SAMPLE, *groups)]
        keys = tuple(k for g in self.groups if g not in kept for k in g.keys)
        return expand_groups(self, kept, GroupLayout(SAMPLE, keys, self.batch_size))

    def lists(self, keys: Collection[str] | None = None) -> "IKJT":
        """The same batch with the rows of keys as lists, one after the other, where they are windows.

        Args:
            keys: the keys, with windows or without; all of them when absent.
        """
        return with_lists(self, keys)

    def to_kjt(self, keys: Sequence[str] | None = None) -> "KeyedJaggedTensor":
        """The expanded KeyedJaggedTensor of stride B, in which every sample has its own copy.

        Args:
            keys: the keys in the order wanted; all keys in storage order when absent.
        """
        full = self.expand()
        if keys is not None and tuple(keys) != full.keys:
            full = full.select(keys)
        return full.rows_as_kjt(SAMPLE)

    def rows_as_kjt(self, group: str) -> "KeyedJaggedTensor":
        """A group's unique rows as a KeyedJaggedTensor of stride U: views, but for windows, of which it makes lists."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        layout = self.group(group)
        if not layout.keys:
            raise ValueError(f"IKJT: group '{group}' has no id features")
        if self.windows_among(layout.keys):
            return self.lists(layout.keys).rows_as_kjt(group)
        start, end, row = self.bounds_of(group)
        return KeyedJaggedTensor(
            keys=list(layout.keys),
            values=self.values[start:end],
            lengths=self.lengths[row : row + len(layout.keys) * layout.num_rows],
            weights=None if self.weights is None else self.weights[start:end],
            stride=layout.num_rows,
            length_per_key=[self.num_values(k) for k in layout.keys],
        )

    def select(self, keys: Sequence[str]) -> "IKJT":
        """The same batch with some keys only.

        All groups stay, because dense features may use their inverse.

        Args:
            keys: the keys to keep; each stays in its group, and keys of one group stand in the order given.
        """
        return select_keys(
            self, [replace(g, keys=tuple(k for k in keys if self.group_of(k) == g.name)) for g in self.groups]
        )

    # --- Pipelineable ------------------------------------------------------------------------------------------------

    def _map(self, move: Callable[[Tensor], Tensor]) -> "IKJT":
        return replace(
            self,
            values=move(self.values),
            lengths=move(self.lengths),
            inverse=move(self.inverse),
            weights=None if self.weights is None else move(self.weights),
            starts=None if self.starts is None else move(self.starts),
        )

    def to(self, device: torch.device, non_blocking: bool = False) -> "IKJT":
        """The same batch on another device; the host still knows lengths and inverse."""
        moved = self._map(lambda t: t.to(device=device, non_blocking=non_blocking))
        return moved if is_on_host(moved.lengths) else replace(moved, on_host=self._known)

    def pin_memory(self) -> "IKJT":
        """The same batch in page-locked memory."""
        return self._map(lambda t: t.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells CUDA's allocator that a stream uses these tensors."""
        for tensor in (self.values, self.lengths, self.inverse, self.weights, self.starts):
            if tensor is not None and tensor.is_cuda:
                tensor.record_stream(stream)

    def __repr__(self) -> str:
        return picture(self)
