"""The transforms that a config may name, each with the parser of its argument."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from recd_dist.table.column import Array, Column, gather_slices
from recd_dist.table.schema import Kind


def hash_ids(column: Column, n: int) -> Column:
    """Maps ids, negative ones too, into [0, n): splitmix64, then modulo. Distinct ids may share a row."""
    from recd_dist.reader import kernels  # loads numba, which the check before a job does without

    ids = column.values.astype(np.int64)
    kernels.hash_ids(ids, n, ids)
    return replace(column, values=ids)


def first_x(column: Column, x: int) -> Column:
    """Keeps the first x ids of each list. Lists stand as the SQL made them; histories by custom oldest first."""
    return _cut_lists(column, lambda starts, lengths: (starts, np.minimum(lengths, x)))


def last_x(column: Column, x: int) -> Column:
    """Keeps the last x ids of each list: the most recent ones of a history that is stored oldest first."""
    return _cut_lists(column, lambda starts, lengths: (starts + np.maximum(lengths - x, 0), np.minimum(lengths, x)))


def _cut_lists(column: Column, cut: Callable[[Array, Array], tuple[Array, Array]]) -> Column:
    """Keeps a piece of every list, each id with its weight.

    Args:
        column: lists; single ids stay as they are.
        cut: computes the starts and lengths of the pieces from those of the lists, int64 [rows].
    """
    if column.offsets is None:
        return column
    starts, lengths = cut(column.offsets[:-1], np.diff(column.offsets))
    if lengths.sum() == len(column.values):
        return column
    return gather_slices(column, starts, lengths)


def clamp(column: Column, min: float | None = None, max: float | None = None) -> Column:
    """Raises numbers or ids below min to min, and lowers those above max to max."""
    return replace(column, values=np.clip(column.values, min, max).astype(column.values.dtype))


def log(column: Column) -> Column:
    """The natural logarithm of 1 + |x| with the sign of x: counts and prices on a readable scale."""
    return replace(column, values=np.sign(column.values) * np.log1p(np.abs(column.values)))


def bucketize(column: Column, boundaries: Sequence[float]) -> Column:
    """The number of boundaries that are at most the value. Ids stay ids, dense numbers stay float32."""
    buckets = np.searchsorted(np.asarray(boundaries), column.values, side="right")
    return replace(column, values=buckets.astype(column.values.dtype))


def standardize(column: Column, mean: float, std: float) -> Column:
    """(x - mean) / std. Where a config leaves them out, ``Transforms.fit`` takes both from the training table."""
    return replace(column, values=((column.values - np.float32(mean)) / np.float32(std or 1.0)).astype(np.float32))


def _parse_count(name: str, argument: Any) -> dict[str, Any]:
    """Reads a whole number above 0, given alone or by name."""
    value = argument[name] if isinstance(argument, Mapping) and set(argument) == {name} else argument
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"wanted a whole number above 0, found {argument}")
    return {name: value}


def _parse_nothing(argument: Any) -> dict[str, Any]:
    """Refuses any argument."""
    if argument not in (None, {}):
        raise ValueError(f"takes no argument, found {argument}")
    return {}


def _parse_numbers(argument: Any, names: Sequence[str], needed: int) -> dict[str, Any]:
    """Reads numbers, given by name or as a list, of which ``needed`` must be there."""
    if isinstance(argument, Sequence) and not isinstance(argument, str) and len(argument) <= len(names):
        argument = dict(zip(names, argument, strict=False))
    if not isinstance(argument, Mapping) or set(argument) - set(names):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {argument}")
    numbers = {name: value for name, value in argument.items() if value is not None}
    if len(numbers) < needed or any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers.values()):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {dict(argument)}")
    return numbers


def _parse_boundaries(argument: Any) -> dict[str, Any]:
    """Reads a rising list of numbers, given alone or by name."""
    value = argument["boundaries"] if isinstance(argument, Mapping) and set(argument) == {"boundaries"} else argument
    if not isinstance(value, Sequence) or isinstance(value, str) or not value or list(value) != sorted(set(value)):
        raise ValueError(f"wanted a rising list of numbers, found {argument}")
    return {"boundaries": list(value)}


def _parse_moments(argument: Any) -> dict[str, Any]:
    """Reads mean and deviation: both, or neither where they are to be fitted."""
    return {} if argument in (None, {}) else _parse_numbers(argument, ("mean", "std"), 2)


@dataclass(frozen=True)
class Transform:
    """A transform that a config may name.

    Attributes:
        apply: computes the transformed column from a column and the arguments by name.
        parse: turns the argument in the config into arguments by name; raises ValueError for a wrong one.
        kinds: kinds of feature that it takes.
    """

    apply: Callable[..., Column]
    parse: Callable[[Any], dict[str, Any]]
    kinds: frozenset[Kind]


_IDS, _DENSE = frozenset({Kind.id, Kind.ids}), frozenset({Kind.dense})
REGISTRY: dict[str, Transform] = {
    "hash": Transform(hash_ids, partial(_parse_count, "n"), _IDS),
    "first_x": Transform(first_x, partial(_parse_count, "x"), frozenset({Kind.ids})),
    "last_x": Transform(last_x, partial(_parse_count, "x"), frozenset({Kind.ids})),
    "clamp": Transform(clamp, partial(_parse_numbers, names=("min", "max"), needed=1), _IDS | _DENSE),
    "log": Transform(log, _parse_nothing, _DENSE),
    "bucketize": Transform(bucketize, _parse_boundaries, _IDS | _DENSE),
    "standardize": Transform(standardize, _parse_moments, _DENSE),
}
