"""Applies the transforms of a config to each stored row once (RecD's O4).

In a data config they are ``position: {transforms: [log, standardize]}``, or ``history: {transforms: [{last_x: 50}]}``.
A transform is a name, or a name with its argument. Transforms run in the order in which they are listed, before ids are
checked against their table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.open_files import AnyTable, open_files
from recd_dist.reader.order import RowGroup
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.table.column import Column
from recd_dist.table.schema import SAMPLE, Feature, Schema

Spec = str | Mapping[str, Any]
"""A transform as a config writes it: a name, or {name: argument}."""
_MAX_FITTED_ROW_GROUPS = 16


@dataclass(frozen=True)
class Step:
    """One transform of a feature, whose arguments were checked.

    Attributes:
        name: the name of the transform, a key of ``transform_registry.REGISTRY``.
        arguments: the arguments, by name, that the transform takes beside the column.
    """

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Transforms:
    """The transforms of every feature that has some; ``Transforms.parse`` reads them from a config.

    Attributes:
        steps: for each such feature its transforms in the order in which they run.
    """

    steps: Mapping[str, tuple[Step, ...]]

    @staticmethod
    def parse(schema: Schema, specs: Mapping[str, Sequence[Spec]]) -> "Transforms":
        """Reads transforms as a config or ``to_json`` writes them.

        Args:
            schema: the features that there are.
            specs: for each feature a list of names or of {name: argument}.

        Raises:
            ConfigError: every unknown feature, unknown transform, wrong kind and wrong argument, in one message.
        """
        steps, mistakes = {}, []
        for name, feature_specs in specs.items():
            if name not in schema:
                mistakes.append(
                    f"transforms of '{name}': no such feature{nearest(name, (f.name for f in schema.features))}"
                )
                continue
            chosen = []
            for spec in feature_specs:
                try:
                    chosen.append(_parse_step(schema[name], spec))
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
        """Transforms the rows of a feature; those of a feature without transforms stay as they are."""
        return _apply(self.steps.get(feature, ()), column)

    def id_limits(self) -> dict[str, int]:
        """For each feature whose ids lie in [0, limit) after its transforms, whatever they were before, the limit."""
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

    def fit(self, table: AnyTable) -> "Transforms":
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
        return Transforms({name: _fit_steps(name, steps, table.whole) for name, steps in self.steps.items()})

    def to_json(self) -> dict[str, list[dict[str, dict[str, Any]]]]:
        """A JSON-ready dict; ``Transforms.parse`` is its inverse."""
        return {name: [{step.name: dict(step.arguments)} for step in steps] for name, steps in self.steps.items()}


def _parse_step(feature: Feature, spec: Spec) -> Step:
    """Reads one transform of a feature."""
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
        return Step(name, REGISTRY[name].parse(argument))
    except ValueError as error:
        raise ValueError(f"transform '{name}': {error}") from error


def _apply(steps: Iterable[Step], column: Column) -> Column:
    """Runs some transforms, one after the other."""
    for step in steps:
        column = REGISTRY[step.name].apply(column, **step.arguments)
    return column


def _fit_steps(feature: str, steps: tuple[Step, ...], table: AnyTable) -> tuple[Step, ...]:
    """Fills mean and deviation into the transforms of one feature."""
    fitted: list[Step] = []
    for step in steps:
        if step.name != "standardize" or step.arguments:
            fitted.append(step)
        elif not fitted:
            stats = table.manifest.features[feature]
            fitted.append(Step("standardize", {"mean": stats.mean, "std": stats.std}))
        else:
            mean, std = _measure_moments(feature, fitted, table)
            fitted.append(Step("standardize", {"mean": mean, "std": std}))
    return tuple(fitted)


def _measure_moments(feature: str, steps: Sequence[Step], table: AnyTable) -> tuple[float, float]:
    """Measures mean and deviation over samples, after some transforms, in evenly spaced row groups."""
    stored = table.manifest.schema
    schema = Schema((stored[feature],), stored.labels)
    files = open_files(table, schema)
    row_groups = [
        RowGroup(part, index, size)
        for part, entry in enumerate(table.manifest.parts)
        for index, size in enumerate(entry.samples.row_groups)
    ]
    count, total, squares = 0, 0.0, 0.0
    for row_group in row_groups[:: -(-len(row_groups) // _MAX_FITTED_ROW_GROUPS) or 1]:
        decoded = files.read(row_group)
        values = _apply(steps, cast(Column, decoded.columns[feature])).values.astype(np.float64)
        group = schema[feature].group
        values = values if group == SAMPLE else values[decoded.row_of_sample[group]]
        values = values[np.isfinite(values)]
        count, total, squares = count + len(values), total + values.sum(), squares + np.square(values).sum()
    mean = total / count if count else 0.0
    return float(mean), float(np.sqrt(max(squares / count - mean**2, 0.0))) if count else 1.0
