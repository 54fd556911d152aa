"""What each transform of a config changes on a table, seen in a few of its row groups."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from recd_dist.reader.fitted_transforms import evenly_spaced
from recd_dist.reader.made_features import MadeFeatures
from recd_dist.reader.table_files import TableFiles
from recd_dist.reader.transform import Transforms
from recd_dist.reader.transform_steps import Step, apply_steps, compute
from recd_dist.reader.vocabulary_file import UNKNOWN
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Array, Rows
from recd_dist.table.schema import Schema

ROW_GROUPS = 8
"""Evenly spaced row groups of a table that are looked at."""

_SHOWN = 40  # letters of an argument that are shown


@dataclass
class Looks:
    """What values look like, over the row groups so far.

    Attributes:
        num_rows, num_values: how many there are.
        min, max: the least and the most; nan where there are none.
        distinct: the values that there are.
    """

    num_rows: int = 0
    num_values: int = 0
    min: float = np.nan
    max: float = np.nan
    distinct: set[Any] = field(default_factory=set)

    def add(self, rows: Rows) -> None:
        """Looks at more rows."""
        self.num_rows += len(rows)
        self.num_values += int(rows.lengths.sum())
        if len(rows.values):
            self.min = float(np.nanmin([self.min, rows.values.min()]))
            self.max = float(np.nanmax([self.max, rows.values.max()]))
            self.distinct.update(np.unique(rows.values).tolist())

    def to_json(self) -> dict[str, float]:
        """A JSON-ready dict, with mean lengths and the number of distinct values."""
        length = self.num_values / self.num_rows if self.num_rows else 0.0
        return {"length": length, "distinct": len(self.distinct), "min": self.min, "max": self.max}


@dataclass
class Effect:
    """What one transform of a feature changes.

    Attributes:
        feature: the feature.
        transform: the transform as a config writes it, shortened.
        before, after: what the values look like; nothing is before a transform that makes the feature.
        num_changed, num_compared: values that became another one, among those that can be compared.
        num_unknown: values that a vocabulary does not have.
    """

    feature: str
    transform: str
    before: Looks | None
    after: Looks
    num_changed: int = 0
    num_compared: int = 0
    num_unknown: int = 0

    def add(self, before: Rows | None, after: Rows) -> None:
        """Looks at the rows of one more row group."""
        self.after.add(after)
        if before is None or self.before is None:
            return
        self.before.add(before)
        is_cut = len(before.values) != len(after.values) or not np.array_equal(before.lengths, after.lengths)
        same = before.lengths == after.lengths if is_cut else _same(before, after)
        self.num_changed += int(np.count_nonzero(~same))
        self.num_compared += len(same)
        if self.transform.startswith("vocabulary"):
            self.num_unknown += int(np.count_nonzero(after.values == UNKNOWN))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        plain = asdict(self) | {"before": self.before.to_json() if self.before else None}
        return plain | {"after": self.after.to_json()}


def _same(before: Rows, after: Rows) -> Array:
    """Which values, or weights where there are some, stayed what they were, bool [V]."""
    same: Array = before.values == after.values
    if before.weights is not None and after.weights is not None:
        same &= before.weights == after.weights
    return same


def measure_effects(table: ClusteredTable, features: Mapping[str, Any]) -> list[Effect]:
    """Runs the transforms of a config on some row groups of a table, one after the other.

    Args:
        table: the training split.
        features: ``data.features`` of a data config, plain.

    Returns:
        An effect for each transform of each feature that has some, in the order of the config.

    Raises:
        ConfigError: a transform or a feature that there is not.
        DataError: damaged files.
    """
    stored = table.manifest.schema
    made = MadeFeatures.of(features, stored)
    given = {n: list((f or {}).get("transforms") or []) for n, f in features.items() if n in stored}
    schema = Schema((*stored.features, *made.features), stored.labels)
    transforms = Transforms.parse(schema, {**given, **made.specs}, stored).fit(table)
    if not transforms.steps:
        return []
    names = {n for f in schema.features if f.name in transforms.steps for n in f.made_from or (f.name,)}
    files = TableFiles(table, Schema(tuple(f for f in stored.features if f.name in names), stored.labels))
    effects = {
        name: [Effect(name, _text(step), None if step.inputs else Looks(), Looks()) for step in steps]
        for name, steps in transforms.steps.items()
    }
    for row_group in evenly_spaced(table, ROW_GROUPS):
        decoded = files.read(row_group)
        for name, steps in transforms.steps.items():
            rows: Rows | None = None if steps[0].inputs else decoded.columns[name]
            for step, effect in zip(steps, effects[name], strict=True):
                after = compute(name, [step], decoded, stored) if rows is None else apply_steps([step], rows)
                effect.add(rows, after)
                rows = after
    return [effect for of_feature in effects.values() for effect in of_feature]


def _text(step: Step) -> str:
    """A transform as people read it."""
    arguments = {k: v for k, v in next(iter(step.to_json().values())).items() if k not in ("sha256", "column_name")}
    text = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in arguments.items())
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return f"{step.name} {text}".strip()
