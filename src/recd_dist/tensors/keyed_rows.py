"""Rows of groups, keyed by feature: what an IKJT stores, and views of it."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.host_side import HostArray, host_array, is_on_host
from recd_dist.tensors.row_windows import Stored, lay_out


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
class KeyedRows:
    """Id features, deduplicated per group: the tensors and the layout of an IKJT (``ikjt.py``), which checks them.

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
        return self._list_sizes[key] if key in self._list_sizes else self.num_values(key)

    @cached_property
    def _list_sizes(self) -> dict[str, int]:
        """For each key with windows the number of ids in its unique rows."""
        lengths = {k: host_array(self.lengths_of(k), self.known_lengths_of(k)) for k in self.windows}
        return {k: int(of_key.sum()) for k, of_key in lengths.items()}

    def windows_among(self, keys: Collection[str]) -> tuple[str, ...]:
        """Those of some keys whose rows are windows, in storage order."""
        return tuple(k for k in self.windows if k in keys)

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

    def row_bounds_of(self, key: str) -> tuple[int, int, int]:
        """Where a key's lengths begin in ``lengths``, its number of rows, and its number of stored ids."""
        group, _, start = self._find_key(key)
        return start, group.num_rows, self.num_values(key)

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
        return lay_out([self.column(key, stored)])

    def column(self, key: str, stored: Tensor) -> Stored:
        """A number for each stored id of a key, with the key's rows, for ``lay_out``."""
        return Stored(stored, self.starts_of(key), self.lengths_of(key), self.num_list_values(key))

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
