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
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.host_side import HostArray, host_array, is_on_host
from recd_dist.tensors.ikjt_checks import check_layout, check_windows
from recd_dist.tensors.ikjt_conversions import expand_groups, picture, select_keys, with_lists
from recd_dist.tensors.row_windows import Stored, lay_out

if TYPE_CHECKING:
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


@dataclass(frozen=True)
class GroupLayout:
    """What an IKJT stores of one group.

    Attributes:
        name: the group's name; ``sample`` has no inverse.
        keys: its id features in storage order; empty for a group of dense features alone, which still has an inverse.
        num_rows: U, the number of its unique rows; B for ``sample``.
    """

    name: str
    keys: tuple[str, ...]
    num_rows: int


@dataclass(frozen=True, eq=False)
class IKJT:
    """An immutable batch of id features, deduplicated per group.

    Attributes:
        groups: the groups' layouts in storage order.
        batch_size: B, the number of samples.
        values: int32 or int64 [V], the ids of all keys, key after key, row after row; of keys with windows the ids that
            rows share.
        lengths: int32 [sum of len(keys) * U over the groups], the rows' list lengths, key after key.
        inverse: int32 [number of deduplicated groups * B], group after group, each element in [0, U).
        value_offsets: host integers [number of keys + 1], where each key's values begin, and V at the end.
        weights: float32 [V], a weight per id, 1 for the ids of keys without weights; None where no key has weights.
        on_host: lengths and inverse in the host's memory, from where the batch was moved; None if it was not moved.
        windows: the keys whose rows are windows, in storage order.
        starts: int32 [sum of U over these keys], where each row begins in ``values_of`` its key; None without windows.

    Raises:
        ValueError: a tensor does not fit the layout, a window leaves the ids of its key, or an id lies in no row; the
            message names the tensor, group or key, what was found and what is needed.
    """

    groups: tuple[GroupLayout, ...]
    batch_size: int
    values: Tensor
    lengths: Tensor
    inverse: Tensor
    value_offsets: tuple[int, ...]
    weights: Tensor | None = None
    on_host: tuple[HostArray, HostArray] | None = None
    windows: tuple[str, ...] = ()
    starts: Tensor | None = None

    def __post_init__(self) -> None:
        check_layout(self)
        check_windows(self)

    # --- layout, on the host -----------------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All id features in storage order."""
        return tuple(k for g in self.groups for k in g.keys)

    @cached_property
    def dedup_groups(self) -> tuple[str, ...]:
        """The names of the groups that have an inverse, in storage order."""
        return tuple(g.name for g in self.groups if g.name != SAMPLE)

    @cached_property
    def _layouts(self) -> dict[str, GroupLayout]:
        return {g.name: g for g in self.groups}

    @cached_property
    def _key_starts(self) -> dict[str, tuple[GroupLayout, int, int]]:
        """For each key: its group, its number in storage order, and where its lengths begin."""
        sizes = [(k, g) for g in self.groups for k in g.keys]
        starts = accumulate((g.num_rows for _, g in sizes), initial=0)
        return {k: (g, n, start) for n, ((k, g), start) in enumerate(zip(sizes, starts, strict=False))}

    def group(self, name: str) -> GroupLayout:
        """A group's layout.

        Raises:
            KeyError: there is no such group.
        """
        if name not in self._layouts:
            raise KeyError(f"IKJT: no group '{name}', there are {tuple(self._layouts)}")
        return self._layouts[name]

    def group_of(self, key: str) -> str:
        """The group that a key belongs to."""
        return self._find_key(key)[0].name

    def num_rows(self, group: str) -> int:
        """U, the number of a group's unique rows (B for ``sample``)."""
        return self.group(group).num_rows

    def num_values(self, key: str) -> int:
        """The number of ids stored for a key, over its unique rows."""
        number = self._find_key(key)[1]
        return self.value_offsets[number + 1] - self.value_offsets[number]

    def num_list_values(self, key: str) -> int:
        """The number of ids in a key's unique rows; windows store fewer."""
        if key not in self._window_starts:
            return self.num_values(key)
        return int(host_array(self.lengths_of(key), self.known_lengths_of(key)).sum())

    @cached_property
    def _window_starts(self) -> dict[str, int]:
        """For each key with windows where its ``starts`` begin."""
        sizes = [self._find_key(k)[0].num_rows for k in self.windows]
        return dict(zip(self.windows, accumulate(sizes, initial=0), strict=False))

    def bounds_of(self, group: str) -> tuple[int, int, int]:
        """Where the stored ids of a group that has keys begin and end in ``values``, and its lengths in ``lengths``."""
        layout = self.group(group)
        _, first, row = self._find_key(layout.keys[0])
        return self.value_offsets[first], self.value_offsets[first + len(layout.keys)], row

    def _find_key(self, key: str) -> tuple[GroupLayout, int, int]:
        """A key's entry in ``_key_starts``."""
        if key not in self._key_starts:
            raise KeyError(f"IKJT: no key '{key}', there are {self.keys}")
        return self._key_starts[key]

    # --- views -------------------------------------------------------------------------------------------------------

    def values_of(self, key: str) -> Tensor:
        """A key's stored ids, [sum of its lengths] or, where its rows are windows, fewer; as a view."""
        number = self._find_key(key)[1]
        return self.values[self.value_offsets[number] : self.value_offsets[number + 1]]

    def weights_of(self, key: str) -> Tensor | None:
        """A key's weights, float32, one per element of ``values_of``, as a view; None when the batch has none."""
        number = self._find_key(key)[1]
        start, end = self.value_offsets[number], self.value_offsets[number + 1]
        return None if self.weights is None else self.weights[start:end]

    def lengths_of(self, key: str) -> Tensor:
        """A key's list lengths, int32 [U], as a view."""
        group, _, start = self._find_key(key)
        return self.lengths[start : start + group.num_rows]

    def starts_of(self, key: str) -> Tensor | None:
        """Where each row of a key begins in ``values_of``, int32 [U], as a view; None if its rows are no windows."""
        num_rows, start = self._find_key(key)[0].num_rows, self._window_starts.get(key)
        return None if start is None or self.starts is None else self.starts[start : start + num_rows]

    def as_lists(self, key: str, stored: Tensor) -> Tensor:
        """What belongs to the ids of a key's rows, one row after the other; what was given if the rows are no windows.

        Args:
            key: the key.
            stored: a number for each of its stored ids, such as ``values_of(key)`` or ``weights_of(key)``.

        Returns:
            [sum of the key's lengths].
        """
        return lay_out([Stored(stored, self.starts_of(key), self.lengths_of(key), self.num_list_values(key))])

    def inverse_of(self, group: str) -> Tensor | None:
        """For each sample its row in the group, int32 [B], as a view; None for ``sample``."""
        self.group(group)
        if group == SAMPLE:
            return None
        start = self.dedup_groups.index(group) * self.batch_size
        return self.inverse[start : start + self.batch_size]

    def known_lengths_of(self, key: str) -> HostArray | None:
        """``lengths_of`` on the host; None if the host would have to wait for them."""
        if self._known is None:
            return None
        group, _, start = self._find_key(key)
        return self._known[0][start : start + group.num_rows]

    def known_inverse_of(self, group: str) -> HostArray | None:
        """``inverse_of`` on the host; None for ``sample``, or if the host would have to wait for it."""
        if self._known is None or group == SAMPLE:
            return None
        start = self.dedup_groups.index(group) * self.batch_size
        return self._known[1][start : start + self.batch_size]

    @cached_property
    def _known(self) -> tuple[HostArray, HostArray] | None:
        return (self.lengths.numpy(), self.inverse.numpy()) if is_on_host(self.lengths) else self.on_host

    def count_expanded_values(self) -> dict[str, int]:
        """For each key the number of ids if every sample had its own copy. The sums are copied to the host."""
        counts = {}
        for key in self.keys:
            inverse = self.inverse_of(self.group_of(key))
            lengths = self.lengths_of(key)
            counts[key] = int((lengths if inverse is None else lengths[inverse.long()]).sum())
        return counts

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
        if any(k in self.windows for k in layout.keys):
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
