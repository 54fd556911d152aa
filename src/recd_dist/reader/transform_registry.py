"""The transforms that a config may name, each with the parser of its argument."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from recd_dist.reader import list_transforms as of_lists
from recd_dist.reader import made_columns as making
from recd_dist.reader import transform_arguments as arguments
from recd_dist.reader import user_transform
from recd_dist.reader import value_transforms as of_values
from recd_dist.table.column import Rows
from recd_dist.table.schema import Kind

Bound = Callable[[Mapping[str, Any], int | None], int | None]
"""From the arguments, and the limit before, to the limit after: ids then lie in [0, limit); None: nothing is known."""


def _keep(_: Mapping[str, Any], before: int | None) -> int | None:
    return before


@dataclass(frozen=True)
class Transform:
    """A transform that a config may name.

    Attributes:
        apply: computes the transformed rows from rows and the arguments by name; one that makes a feature gets a list
            of rows.
        parse: turns the argument in the config into arguments by name; raises ValueError for a wrong one.
        kinds: kinds of feature that it takes.
        bound: the limit of ids after it.
        fit: the numbers of the training table that it takes where a config leaves its arguments out.
        makes: it makes a feature from others.
    """

    apply: Callable[..., Rows]
    parse: Callable[[Any], dict[str, Any]]
    kinds: frozenset[Kind]
    bound: Bound = _keep
    fit: tuple[str, ...] = ()
    makes: bool = False


def _bound_of_clamp(given: Mapping[str, Any], before: int | None) -> int | None:
    least, most = given.get("min"), given.get("max")
    if before is None:
        return int(most) + 1 if most is not None and least is not None and least >= 0 else None
    bound = before if most is None else min(before, int(most) + 1)
    return bound if least is None else max(bound, int(least) + 1)


_N: Bound = lambda given, _: int(given["n"])  # noqa: E731
_IDS, _LISTS, _DENSE = frozenset({Kind.id, Kind.ids}), frozenset({Kind.ids}), frozenset({Kind.dense})
REGISTRY: dict[str, Transform] = {
    "hash": Transform(of_values.hash_ids, partial(arguments.parse_count, "n"), _IDS, _N),
    "modulus": Transform(of_values.modulus, partial(arguments.parse_count, "n"), _IDS, _N),
    "vocabulary": Transform(
        of_values.look_up, arguments.parse_vocabulary, _IDS, lambda given, _: int(given["size"]) + 1
    ),
    "first_x": Transform(of_lists.first_x, partial(arguments.parse_count, "x"), _LISTS),
    "last_x": Transform(of_lists.last_x, partial(arguments.parse_count, "x"), _LISTS),
    "fill": Transform(
        of_lists.fill,
        arguments.parse_fill,
        _LISTS | _DENSE,
        lambda given, before: None if before is None else max(before, int(given["value"]) + 1),
    ),
    "normalize_weights": Transform(of_lists.normalize_weights, arguments.parse_way, _LISTS),
    "clamp": Transform(
        of_values.clamp,
        partial(arguments.parse_numbers, names=("min", "max"), needed=1),
        _IDS | _DENSE,
        _bound_of_clamp,
    ),
    "bucketize": Transform(
        of_values.bucketize,
        arguments.parse_boundaries,
        _IDS | _DENSE,
        lambda given, _: len(given["boundaries"]) + 1,
    ),
    "log": Transform(of_values.log, arguments.parse_nothing, _DENSE),
    "standardize": Transform(
        of_values.standardize, partial(arguments.parse_fitted, names=("mean", "std")), _DENSE, fit=("mean", "std")
    ),
    "min_max": Transform(
        of_values.min_max, partial(arguments.parse_fitted, names=("min", "max")), _DENSE, fit=("min", "max")
    ),
    "apply": Transform(
        user_transform.apply, user_transform.parse_apply, _IDS | _DENSE, lambda given, _: given["limit"]
    ),
    "copy": Transform(making.copy, arguments.parse_copy, _IDS | _DENSE, makes=True),
    "cross": Transform(making.cross, arguments.parse_cross, _IDS, _N, makes=True),
    "one_hot": Transform(making.one_hot, arguments.parse_one_hot, _DENSE, makes=True),
}
