"""IKJTs made of an IKJT: a row per sample, some keys only, lists in place of windows; and its picture in words."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.jagged import gather_rows
from recd_dist.tensors.keyed_rows import GroupLayout, KeyedRows
from recd_dist.tensors.row_windows import Stored, lay_out

R = TypeVar("R", bound=KeyedRows)


def with_lists(batch: R, keys: Collection[str] | None = None) -> R:
    """As ``IKJT.lists``."""
    chosen = batch.windows if keys is None else batch.windows_among(keys)
    if not chosen:
        return batch
    rest = tuple(k for k in batch.windows if k not in chosen)
    sizes = {k: batch.num_list_values(k) if k in chosen else batch.num_values(k) for k in batch.keys}

    def lay_out_keys(stored: dict[str, Tensor]) -> Tensor:
        starts = {k: batch.starts_of(k) if k in chosen else None for k in stored}
        return lay_out([Stored(t, starts[k], batch.lengths_of(k), sizes[k]) for k, t in stored.items()])

    weights = {k: w for k in batch.keys if (w := batch.weights_of(k)) is not None}
    return replace(
        batch,
        values=lay_out_keys({k: batch.values_of(k) for k in batch.keys}),
        value_offsets=tuple(accumulate(sizes.values(), initial=0)),
        weights=lay_out_keys(weights) if weights else None,
        windows=rest,
        starts=join_starts(batch, rest),
    )


def join_starts(batch: KeyedRows, keys: Sequence[str]) -> Tensor | None:
    """Where the rows of some keys begin, one key after the other; None where none of them has windows.

    Args:
        batch: the batch.
        keys: names of keys, with windows or without.
    """
    parts = [starts for k in keys if (starts := batch.starts_of(k)) is not None]
    return torch.cat(parts) if parts else None


def expand_groups(batch: R, kept: Sequence[GroupLayout], sample: GroupLayout) -> R:
    """As ``IKJT.expand``.

    Args:
        batch: the batch.
        kept: the groups that are not moved.
        sample: the layout of the group ``sample`` with the keys of those that are.
    """
    batch = with_lists(batch, sample.keys)
    moved = [g for g in batch.groups if g not in kept]
    parts = [_copy_group(batch, g, expanded=g in moved) for g in (*kept, *moved) if g.keys]
    inverses = [i for g in kept if (i := batch.inverse_of(g.name)) is not None]
    weights = [p[2] for p in parts if p[2] is not None]
    return replace(
        batch,
        groups=(*kept, sample),
        values=torch.cat([p[0] for p in parts]) if parts else batch.values,
        lengths=torch.cat([p[1] for p in parts]) if parts else batch.lengths[:0],
        inverse=torch.cat(inverses) if inverses else batch.inverse[:0],
        value_offsets=tuple(accumulate((c for p in parts for c in p[3]), initial=0)),
        weights=torch.cat(weights) if weights else None,
        on_host=None,
    )


def _copy_group(
    batch: KeyedRows, group: GroupLayout, expanded: bool
) -> tuple[Tensor, Tensor, Tensor | None, list[int]]:
    """One group's values, lengths, weights and number of values per key: of its rows, or of a row per sample."""
    start, end, row = batch.bounds_of(group.name)
    values = batch.values[start:end]
    weights = None if batch.weights is None else batch.weights[start:end]
    lengths = batch.lengths[row : row + len(group.keys) * group.num_rows]
    inverse = batch.inverse_of(group.name) if expanded else None
    if inverse is None:
        return values, lengths, weights, [batch.num_values(k) for k in group.keys]
    shift = torch.arange(len(group.keys), device=inverse.device)[:, None] * group.num_rows
    rows = (inverse.long()[None, :] + shift).reshape(-1)
    values, out_lengths, weights = gather_rows(values, lengths, rows, weights)
    counts = out_lengths.view(len(group.keys), batch.batch_size).sum(1, dtype=torch.int64).tolist()
    return values, out_lengths, weights, counts


def select_keys(batch: R, groups: Sequence[GroupLayout]) -> R:
    """As ``IKJT.select``.

    Args:
        batch: the batch.
        groups: all groups of the batch, with the keys to keep.
    """
    keys = [k for g in groups for k in g.keys]
    weights = [w for k in keys if (w := batch.weights_of(k)) is not None]
    return replace(
        batch,
        groups=tuple(groups),
        values=torch.cat([batch.values_of(k) for k in keys]) if keys else batch.values[:0],
        lengths=torch.cat([batch.lengths_of(k) for k in keys]) if keys else batch.lengths[:0],
        value_offsets=tuple(accumulate((batch.num_values(k) for k in keys), initial=0)),
        weights=torch.cat(weights) if weights else None if batch.weights is None else batch.weights[:0],
        windows=tuple(k for k in keys if k in batch.windows),
        starts=join_starts(batch, keys),
        on_host=None,
    )


def picture(batch: KeyedRows) -> str:
    """As ``repr`` of an IKJT: its groups, the first rows of each key and the first samples of each inverse."""
    lines = [f"IKJT({batch.batch_size} samples, {len(batch.values)} {str(batch.values.dtype)[6:]} ids)"]
    for g in batch.groups:
        factor = f", {batch.batch_size / g.num_rows:.2f} samples a row" if g.num_rows and g.name != SAMPLE else ""
        lines.append(f"  {g.name}: {g.num_rows} rows{factor}")
        for key in g.keys:
            heads = torch.split(batch.as_lists(key, batch.values_of(key)), batch.lengths_of(key).tolist())[:3]
            shown = " ".join(str(h[:4].tolist())[:-1] + (", ..]" if len(h) > 4 else "]") for h in heads)
            more = " .." if g.num_rows > len(heads) else ""
            shared = f", windows of {batch.num_values(key)} ids" if key in batch.windows else ""
            lines.append(f"    {key}: {shown}{more}{shared}")
        inverse = batch.inverse_of(g.name)
        if inverse is not None:
            lines.append(f"    inverse: {inverse[:16].tolist()}{' ..' if batch.batch_size > 16 else ''}")
    return "\n".join(lines)
