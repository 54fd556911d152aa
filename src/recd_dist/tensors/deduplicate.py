"""KeyedJaggedTensor -> IKJT: finds each group's unique rows by their values.

This is for batches from elsewhere. The reader knows from a clustered table which samples share a row, and compares no
values.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recd_dist.table.hash import GOLDEN, MIX_1, MIX_2, as_signed
from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.ikjt import IKJT, GroupLayout
from recd_dist.tensors.jagged import Jagged, gather_rows, value_index

if TYPE_CHECKING:
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

_GOLDEN, _MIX_1, _MIX_2 = map(as_signed, (GOLDEN, MIX_1, MIX_2))


def deduplicate(kjt: "KeyedJaggedTensor", groups: Mapping[str, Sequence[str]]) -> IKJT:
    """Stores equal rows of a group once; rows are equal only if all keys of the group are equal.

    Args:
        kjt: B samples with ids int32 or int64 and, where there are any, weights.
        groups: the keys of each deduplicated group; keys that are not named stay in ``sample``.

    Returns:
        An IKJT whose ``to_kjt(kjt.keys())`` equals ``kjt`` exactly.

    Raises:
        ValueError: a group names an unknown key, or two groups name the same key.
    """
    named = [k for keys in groups.values() for k in keys]
    if unknown := sorted(set(named) - set(kjt.keys())):
        raise ValueError(f"deduplicate: groups name keys {unknown}, the KJT has {kjt.keys()}")
    if len(set(named)) != len(named):
        raise ValueError(f"deduplicate: a key may be in one group only, found {dict(groups)}")
    size = kjt.stride()
    per_key = dict(zip(kjt.keys(), kjt.length_per_key(), strict=True))
    rest = tuple(k for k in per_key if k not in named)
    expanded = IKJT(
        groups=(GroupLayout(SAMPLE, tuple(kjt.keys()), size),),
        batch_size=size,
        values=kjt.values(),
        lengths=kjt.lengths().to(torch.int32),
        inverse=torch.empty(0, dtype=torch.int32, device=kjt.device()),
        value_offsets=tuple(accumulate(per_key.values(), initial=0)),
        weights=kjt.weights_or_none(),
    )
    return _reduce_groups(expanded, {**{g: tuple(k) for g, k in groups.items() if g != SAMPLE}, SAMPLE: rest})


def _reduce_groups(expanded: IKJT, groups: Mapping[str, tuple[str, ...]]) -> IKJT:
    """Reduces each group of a batch that has a row per sample to its unique rows."""
    layouts, values, lengths, inverses, weights, counts = [], [], [], [], [], [0]
    for name, keys in groups.items():
        columns = [(expanded.values_of(k), expanded.lengths_of(k), expanded.weights_of(k)) for k in keys]
        if name != SAMPLE and expanded.batch_size:
            first, inverse = find_unique_rows(columns, expanded.batch_size, expanded.lengths.device)
            columns = [gather_rows(v, n, first, w) for v, n, w in columns]
            inverses.append(inverse)
            layouts.append(GroupLayout(name, keys, len(first)))
        else:
            layouts.append(GroupLayout(name, keys, expanded.batch_size))
        for v, n, w in columns:
            values.append(v)
            lengths.append(n)
            counts.append(len(v))
            if w is not None:
                weights.append(w)
    return IKJT(
        groups=tuple(layouts),
        batch_size=expanded.batch_size,
        values=torch.cat(values) if values else expanded.values[:0],
        lengths=torch.cat(lengths) if lengths else expanded.lengths[:0],
        inverse=torch.cat(inverses) if inverses else expanded.inverse[:0],
        value_offsets=tuple(accumulate(counts)),
        weights=None if expanded.weights is None else torch.cat(weights),
    )


def find_unique_rows(columns: Sequence[Jagged], num_rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Finds the rows that are equal in every column: a hash finds candidates, values and lengths decide.

    Where the hashes of two different rows collide, one of them stays by itself. At worst a row is left twice; no row is
    ever taken for another.

    Args:
        columns: jagged columns of num_rows rows each.
        num_rows: R, the number of rows.
        device: where the result lies when there are no columns.

    Returns:
        first: int64 [U], the number of the first row that is equal to each unique row, in increasing order.
        inverse: int32 [R], for each row its unique row.
    """
    signature = torch.zeros(num_rows, dtype=torch.int64, device=device)
    for values, lengths, weights in columns:
        signature = _mix(signature * 31 + _hash_rows(values, lengths))
        if weights is not None:
            signature = _mix(signature * 31 + _hash_rows(weights.view(torch.int32), lengths))
    _, candidate = torch.unique(signature, return_inverse=True)
    order = torch.arange(num_rows, device=device)
    leader = torch.full((num_rows,), num_rows, device=device).scatter_reduce(0, candidate, order, "amin")[candidate]
    equal = torch.ones(num_rows, dtype=torch.bool, device=device)
    for column in columns:
        equal &= _compare_rows(column, leader)
    leader = torch.where(equal, leader, order)
    first, inverse = torch.unique(leader, return_inverse=True)
    return first, inverse.to(torch.int32)


def _mix(x: Tensor) -> Tensor:
    """Computes ``table.hash.scramble`` in torch, whose shift of a negative number brings in ones, which are masked."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _hash_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """A 64-bit hash of each row's values and length, int64 [R]."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths.long())
    starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
    position = torch.arange(len(values), device=values.device) - starts[rows]
    mixed = _mix(_mix(values.long() + 0x632BE5AB) + position * _GOLDEN)
    return _mix(lengths.long() + 1).index_add(0, rows, mixed)


def _compare_rows(column: Jagged, leader: Tensor) -> Tensor:
    """Whether each row equals its leader bit for bit, bool [R]; a leader is the number of a row, int64 [R]."""
    values, lengths, weights = column
    equal = lengths == lengths[leader]
    # Only rows of equal length are compared, so that their values stand side by side.
    rows = torch.nonzero(equal).squeeze(1)
    size = lengths[rows]
    own, other = value_index(lengths, rows, size), value_index(lengths, leader[rows], size)
    differs = values[own] != values[other]
    if weights is not None:
        bits = weights.view(torch.int32)
        differs |= bits[own] != bits[other]
    owner = torch.repeat_interleave(rows, size.long())
    num_differing = torch.zeros_like(leader).index_add(0, owner, differs.long())
    return equal & (num_differing == 0)
