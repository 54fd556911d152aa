"""Transforms by name, applied to the stored rows of a window: each distinct row once (RecD's O4).

In a data config ``position: {transforms: [log, standardize]}``, ``history: {transforms: [{last_x: 50}]}``. A transform
is a name, or a name with its argument. They run in the order given, before ids are checked against their table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Array, Column, gather_slices
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

Spec = str | Mapping[str, Any]
_MAX_FITTED_ROW_GROUPS = 16


@dataclass(frozen=True)
class Step:
    """One transform with its arguments checked."""

    name: str
    arguments: Mapping[str, Any]


def hash_ids(column: Column, n: int) -> Column:
    """Ids, negative ones too, to [0, n): splitmix64, then modulo. Distinct ids may share a row."""
    from recd_dist.reader import kernels  # loads numba, which the check before a job does without

    ids = column.values.astype(np.int64)
    kernels.hash_ids(ids, n, ids)
    return replace(column, values=ids)


def first_x(column: Column, x: int) -> Column:
    """The first x ids of each list. Lists stand as the SQL made them; histories by custom oldest first."""
    return _slices(column, lambda starts, lengths: (starts, np.minimum(lengths, x)))


def last_x(column: Column, x: int) -> Column:
    """The last x ids of each list: the most recent ones of a history that is stored oldest first."""
    return _slices(column, lambda starts, lengths: (starts + np.maximum(lengths - x, 0), np.minimum(lengths, x)))


def _slices(column: Column, cut: Callable[[Array, Array], tuple[Array, Array]]) -> Column:
    """A piece of every list, each id with its weight."""
    if column.offsets is None:
        return column
    starts, lengths = cut(column.offsets[:-1], np.diff(column.offsets))
    if lengths.sum() == len(column.values):
        return column
    return gather_slices(column, starts, lengths)


def clamp(column: Column, min: float | None = None, max: float | None = None) -> Column:
    """Numbers or ids below min become min, above max become max."""
    return replace(column, values=np.clip(column.values, min, max).astype(column.values.dtype))


def log(column: Column) -> Column:
    """The natural logarithm of 1 + |x| with the sign of x: counts and prices on a readable scale."""
    return replace(column, values=np.sign(column.values) * np.log1p(np.abs(column.values)))


def bucketize(column: Column, boundaries: Sequence[float]) -> Column:
    """The number of boundaries that are at most the value. Ids stay ids, dense numbers stay float32."""
    found = np.searchsorted(np.asarray(boundaries), column.values, side="right")
    return replace(column, values=found.astype(column.values.dtype))


def standardize(column: Column, mean: float, std: float) -> Column:
    """(x - mean) / std. Without arguments both are fitted on the training table."""
    return replace(column, values=((column.values - np.float32(mean)) / np.float32(std or 1.0)).astype(np.float32))


def _whole(name: str, argument: Any) -> dict[str, Any]:
    value = argument[name] if isinstance(argument, Mapping) and set(argument) == {name} else argument
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"wanted a whole number above 0, found {argument}")
    return {name: value}


def _nothing(argument: Any) -> dict[str, Any]:
    if argument not in (None, {}):
        raise ValueError(f"takes no argument, found {argument}")
    return {}


def _numbers(argument: Any, names: Sequence[str], needed: int) -> dict[str, Any]:
    """Named or listed numbers, at least so many of them."""
    if isinstance(argument, Sequence) and not isinstance(argument, str) and len(argument) <= len(names):
        argument = dict(zip(names, argument, strict=False))
    if not isinstance(argument, Mapping) or set(argument) - set(names):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {argument}")
    given = {name: value for name, value in argument.items() if value is not None}
    if len(given) < needed or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in given.values()):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {dict(argument)}")
    return given


def _boundaries(argument: Any) -> dict[str, Any]:
    value = argument["boundaries"] if isinstance(argument, Mapping) and set(argument) == {"boundaries"} else argument
    if not isinstance(value, Sequence) or isinstance(value, str) or not value or list(value) != sorted(set(value)):
        raise ValueError(f"wanted a rising list of numbers, found {argument}")
    return {"boundaries": list(value)}


def _fitted(argument: Any) -> dict[str, Any]:
    return {} if argument in (None, {}) else _numbers(argument, ("mean", "std"), 2)


@dataclass(frozen=True)
class Transform:
    """A registered transform: what it does, how its argument is read, the kinds of feature that it takes."""

    apply: Callable[..., Column]
    arguments: Callable[[Any], dict[str, Any]]
    kinds: frozenset[Kind]


_IDS, _DENSE = frozenset({Kind.id, Kind.ids}), frozenset({Kind.dense})
REGISTRY: dict[str, Transform] = {
    "hash": Transform(hash_ids, partial(_whole, "n"), _IDS),
    "first_x": Transform(first_x, partial(_whole, "x"), frozenset({Kind.ids})),
    "last_x": Transform(last_x, partial(_whole, "x"), frozenset({Kind.ids})),
    "clamp": Transform(clamp, partial(_numbers, names=("min", "max"), needed=1), _IDS | _DENSE),
    "log": Transform(log, _nothing, _DENSE),
    "bucketize": Transform(bucketize, _boundaries, _IDS | _DENSE),
    "standardize": Transform(standardize, _fitted, _DENSE),
}


@dataclass(frozen=True)
class Transforms:
    """The transforms of every feature that has some, in order; ``Transforms.parse`` checks what a config says."""

    steps: Mapping[str, tuple[Step, ...]]

    @staticmethod
    def parse(schema: Schema, specs: Mapping[str, Sequence[Spec]]) -> "Transforms":
        """Transforms as a config or ``to_json`` writes them.

        Args:
            schema: the features.
            specs: per feature a list of names or of {name: argument}.

        Raises:
            ConfigError: every unknown feature, unknown transform, wrong kind and wrong argument, in one message.
        """
        steps, mistakes = {}, []
        for name, wanted in specs.items():
            if name not in schema:
                mistakes.append(
                    f"transforms of '{name}': no such feature{nearest(name, (f.name for f in schema.features))}"
                )
                continue
            chosen = []
            for spec in wanted:
                try:
                    chosen.append(_step(schema[name], spec))
                except ValueError as error:
                    mistakes.append(f"feature '{name}': {error}")
            steps[name] = tuple(chosen)
        if mistakes:
            raise ConfigError("\n  ".join(mistakes))
        return Transforms({name: chosen for name, chosen in steps.items() if chosen})

    @property
    def is_fitted(self) -> bool:
        """True when no ``standardize`` waits for its mean and deviation."""
        return not any(s.name == "standardize" and not s.arguments for steps in self.steps.values() for s in steps)

    def apply(self, feature: str, column: Column) -> Column:
        """A feature's rows, transformed."""
        return _applied(self.steps.get(feature, ()), column)

    def id_limits(self) -> dict[str, int]:
        """Features whose ids lie in [0, limit) after their transforms, whatever they were; for ``infer_tables``."""
        limits: dict[str, int] = {}
        for name, steps in self.steps.items():
            for step in steps:
                if step.name == "hash":
                    limits[name] = step.arguments["n"]
                elif step.name == "bucketize":
                    limits[name] = len(step.arguments["boundaries"]) + 1
                elif step.name == "clamp" and step.arguments.get("min", -1) >= 0 and "max" in step.arguments:
                    limits[name] = int(step.arguments["max"]) + 1
        return limits

    def fit(self, table: ClusteredTable) -> "Transforms":
        """Gives every ``standardize`` its mean and deviation over the samples of a table.

        A ``standardize`` that comes first takes them from the manifest. For one that comes after another transform
        they are computed from at most 16 evenly spaced row groups, so that every rank computes the same numbers.
        Both are those of all partitions, whichever are trained on. Store the result (``to_json``) with the model:
        evaluation must use the numbers of the training table.

        Args:
            table: the training split.

        Returns:
            Transforms of which ``is_fitted`` is true.
        """
        if self.is_fitted:
            return self
        return Transforms({name: _fit(name, steps, table.whole) for name, steps in self.steps.items()})

    def to_json(self) -> dict[str, list[dict[str, dict[str, Any]]]]:
        """A JSON-ready dict; ``Transforms.parse`` is its inverse."""
        return {name: [{step.name: dict(step.arguments)} for step in steps] for name, steps in self.steps.items()}


def _step(feature: Feature, spec: Spec) -> Step:
    """One transform of a feature, checked."""
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, argument = next(iter(spec.items()))
    elif isinstance(spec, str):
        name, argument = spec, None
    else:
        raise ValueError(f"transform {spec}: wanted a name or {{name: argument}}")
    if name not in REGISTRY:
        raise ValueError(f"unknown transform '{name}'{nearest(name, REGISTRY)}")
    kinds = REGISTRY[name].kinds
    if feature.kind not in kinds:
        raise ValueError(f"transform '{name}' works on {' and '.join(sorted(kinds))}, the feature is {feature.kind}")
    try:
        return Step(name, REGISTRY[name].arguments(argument))
    except ValueError as error:
        raise ValueError(f"transform '{name}': {error}") from error


def _applied(steps: Iterable[Step], column: Column) -> Column:
    for step in steps:
        column = REGISTRY[step.name].apply(column, **step.arguments)
    return column


def _fit(feature: str, steps: tuple[Step, ...], table: ClusteredTable) -> tuple[Step, ...]:
    """The steps of one feature with mean and deviation filled in."""
    fitted: list[Step] = []
    for step in steps:
        if step.name != "standardize" or step.arguments:
            fitted.append(step)
        elif not fitted:
            stats = table.manifest.features[feature]
            fitted.append(Step("standardize", {"mean": stats.mean, "std": stats.std}))
        else:
            mean, std = _moments(feature, fitted, table)
            fitted.append(Step("standardize", {"mean": mean, "std": std}))
    return tuple(fitted)


def _moments(feature: str, steps: Sequence[Step], table: ClusteredTable) -> tuple[float, float]:
    """Mean and deviation over samples, after some transforms, from evenly spaced row groups."""
    stored = table.manifest.schema
    schema = Schema((stored[feature],), stored.labels)
    files = TableFiles(table, schema)
    groups = [
        RowGroup(part, index, size)
        for part, entry in enumerate(table.manifest.parts)
        for index, size in enumerate(entry.samples.row_groups)
    ]
    count, total, squares = 0, 0.0, 0.0
    for row_group in groups[:: -(-len(groups) // _MAX_FITTED_ROW_GROUPS) or 1]:
        rows = files.read(row_group)
        values = _applied(steps, rows.columns[feature]).values.astype(np.float64)
        group = schema[feature].group
        values = values if group == SAMPLE else values[rows.rows[group]]
        values = values[np.isfinite(values)]
        count, total, squares = count + len(values), total + values.sum(), squares + np.square(values).sum()
    mean = total / count if count else 0.0
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0))) if count else 1.0
