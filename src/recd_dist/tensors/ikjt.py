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

The storage is flat: to move a batch is to move at most four tensors, and a group's slice is a KeyedJaggedTensor without
a copy. "Unique" means deduplicated, not proven distinct: a row that is stored twice is wasteful and never wrong.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.host_side import HostArray, is_on_host
from recd_dist.tensors.jagged import gather_rows

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
        values: int32 or int64 [V], the ids of all keys, key after key, row after row.
        lengths: int32 [sum of len(keys) * U over the groups], the rows' list lengths, key after key.
        inverse: int32 [number of deduplicated groups * B], group after group, each element in [0, U).
        value_offsets: host integers [number of keys + 1], where each key's values begin, and V at the end.
        weights: float32 [V], a weight per id, 1 for the ids of keys without weights; None where no key has weights.
        on_host: lengths and inverse in the host's memory, from where the batch was moved; None if it was not moved.

    Raises:
        ValueError: a shape or dtype does not fit the layout; the message names the tensor or group, what was found and
            what is needed.
    """

    groups: tuple[GroupLayout, ...]
    batch_size: int
    values: Tensor
    lengths: Tensor
    inverse: Tensor
    value_offsets: tuple[int, ...]
    weights: Tensor | None = None
    on_host: tuple[HostArray, HostArray] | None = None

    def __post_init__(self) -> None:
        keys = self.keys
        if len(set(keys)) != len(keys):
            raise ValueError(f"IKJT: keys must differ, found {keys}")
        shapes = {
            "value_offsets": (len(self.value_offsets), len(keys) + 1),
            "values": (tuple(self.values.shape), (self.value_offsets[-1] if self.value_offsets else 0,)),
            "lengths": (tuple(self.lengths.shape), (sum(len(g.keys) * g.num_rows for g in self.groups),)),
            "inverse": (tuple(self.inverse.shape), (len(self.dedup_groups) * self.batch_size,)),
        }
        if self.weights is not None:
            shapes["weights"] = (tuple(self.weights.shape), tuple(self.values.shape))
        for name, (shape, needed) in shapes.items():
            if shape != needed:
                raise ValueError(f"IKJT: {name} has shape {shape}, the layout {self.groups} wants {needed}")
        if self.values.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"IKJT: values are {self.values.dtype}, wanted int32 or int64")
        for name in ("lengths", "inverse"):
            if getattr(self, name).dtype != torch.int32:
                raise ValueError(f"IKJT: {name} are {getattr(self, name).dtype}, wanted int32")
        for g in self.groups:
            if g.name == SAMPLE and g.num_rows != self.batch_size:
                raise ValueError(
                    f"IKJT: group 'sample' has {g.num_rows} rows, wanted one per sample: {self.batch_size}"
                )
            if g.num_rows == 0 and self.batch_size > 0:
                raise ValueError(f"IKJT: group '{g.name}' has no rows for {self.batch_size} samples, wanted at least 1")

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

    def _find_key(self, key: str) -> tuple[GroupLayout, int, int]:
        """A key's entry in ``_key_starts``."""
        if key not in self._key_starts:
            raise KeyError(f"IKJT: no key '{key}', there are {self.keys}")
        return self._key_starts[key]

    # --- views -------------------------------------------------------------------------------------------------------

    def values_of(self, key: str) -> Tensor:
        """A key's ids, [sum of its lengths], as a view."""
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
        moved = [g for g in self.groups if g not in kept]
        parts = [self._copy_group(g, expand=g in moved) for g in (*kept, *moved) if g.keys]
        inverses = [i for g in kept if (i := self.inverse_of(g.name)) is not None]
        return IKJT(
            groups=(*kept, GroupLayout(SAMPLE, tuple(k for g in moved for k in g.keys), self.batch_size)),
            batch_size=self.batch_size,
            values=torch.cat([p[0] for p in parts]) if parts else self.values,
            lengths=torch.cat([p[1] for p in parts]) if parts else self.lengths[:0],
            inverse=torch.cat(inverses) if inverses else self.inverse[:0],
            value_offsets=tuple(accumulate((c for p in parts for c in p[3]), initial=0)),
            weights=None if self.weights is None or not parts else torch.cat([p[2] for p in parts if p[2] is not None]),
        )

    def _copy_group(self, group: GroupLayout, expand: bool) -> tuple[Tensor, Tensor, Tensor | None, list[int]]:
        """One group's values, lengths, weights and number of values per key: of its rows, or of a row per sample."""
        _, first, row = self._find_key(group.keys[0])
        start, end = self.value_offsets[first], self.value_offsets[first + len(group.keys)]
        values = self.values[start:end]
        weights = None if self.weights is None else self.weights[start:end]
        lengths = self.lengths[row : row + len(group.keys) * group.num_rows]
        inverse = self.inverse_of(group.name) if expand else None
        if inverse is None:
            return values, lengths, weights, [self.num_values(k) for k in group.keys]
        shift = torch.arange(len(group.keys), device=inverse.device)[:, None] * group.num_rows
        rows = (inverse.long()[None, :] + shift).reshape(-1)
        values, out_lengths, weights = gather_rows(values, lengths, rows, weights)
        counts = out_lengths.view(len(group.keys), self.batch_size).sum(1, dtype=torch.int64).tolist()
        return values, out_lengths, weights, counts

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
        """A group's unique rows as a KeyedJaggedTensor of stride U, made of views: nothing is copied or expanded."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        layout = self.group(group)
        if not layout.keys:
            raise ValueError(f"IKJT: group '{group}' has no id features")
        _, first, row = self._find_key(layout.keys[0])
        offsets = self.value_offsets[first : first + len(layout.keys) + 1]
        return KeyedJaggedTensor(
            keys=list(layout.keys),
            values=self.values[offsets[0] : offsets[-1]],
            lengths=self.lengths[row : row + len(layout.keys) * layout.num_rows],
            weights=None if self.weights is None else self.weights[offsets[0] : offsets[-1]],
            stride=layout.num_rows,
            length_per_key=[b - a for a, b in pairwise(offsets)],
        )

    def select(self, keys: Sequence[str]) -> "IKJT":
        """The same batch with some keys only.

        All groups stay, because dense features may use their inverse.

        Args:
            keys: the keys to keep; each stays in its group, and keys of one group stand in the order given.
        """
        groups = tuple(replace(g, keys=tuple(k for k in keys if self.group_of(k) == g.name)) for g in self.groups)
        ordered = [k for g in groups for k in g.keys]
        return IKJT(
            groups=groups,
            batch_size=self.batch_size,
            values=torch.cat([self.values_of(k) for k in ordered]) if ordered else self.values[:0],
            lengths=torch.cat([self.lengths_of(k) for k in ordered]) if ordered else self.lengths[:0],
            inverse=self.inverse,
            value_offsets=tuple(accumulate((self.num_values(k) for k in ordered), initial=0)),
            weights=self._join_weights(ordered),
        )

    def _join_weights(self, keys: Sequence[str]) -> Tensor | None:
        """The weights of some keys, one key after the other; None when the batch has no weights."""
        if self.weights is None:
            return None
        parts = [w for k in keys if (w := self.weights_of(k)) is not None]
        return torch.cat(parts) if parts else self.weights[:0]

    # --- Pipelineable ------------------------------------------------------------------------------------------------

    def _map(self, move: Callable[[Tensor], Tensor]) -> "IKJT":
        return replace(
            self,
            values=move(self.values),
            lengths=move(self.lengths),
            inverse=move(self.inverse),
            weights=None if self.weights is None else move(self.weights),
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
        for tensor in (self.values, self.lengths, self.inverse, self.weights):
            if tensor is not None and tensor.is_cuda:
                tensor.record_stream(stream)

    def __repr__(self) -> str:
        lines = [f"IKJT({self.batch_size} samples, {len(self.values)} {str(self.values.dtype)[6:]} ids)"]
        for g in self.groups:
            factor = f", {self.batch_size / g.num_rows:.2f} samples a row" if g.num_rows and g.name != SAMPLE else ""
            lines.append(f"  {g.name}: {g.num_rows} rows{factor}")
            for key in g.keys:
                heads = torch.split(self.values_of(key), self.lengths_of(key).tolist())[:3]
                shown = " ".join(str(h[:4].tolist())[:-1] + (", ..]" if len(h) > 4 else "]") for h in heads)
                lines.append(f"    {key}: {shown}{' ..' if g.num_rows > len(heads) else ''}")
            inverse = self.inverse_of(g.name)
            if inverse is not None:
                lines.append(f"    inverse: {inverse[:16].tolist()}{' ..' if self.batch_size > 16 else ''}")
        return "\n".join(lines)
