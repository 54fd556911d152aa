"""Applies the transforms of a config to each stored row once (RecD's O4).

In a data config they are ``position: {transforms: [log, standardize]}``, or ``history: {transforms: [{last_x: 50}]}``.
A transform is a name, or a name with its argument. Transforms run in the order in which they are listed, before ids are
checked against their table. The first one may make the feature from others of the table, whose rows it takes as they
are stored, or after transforms of their own::

    country_x_age: {transforms: [{cross: {of: [country, {age: [{bucketize: [18, 30]}]}], n: 1000}}]}
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recd_dist.errors import ConfigError, nearest
from recd_dist.reader.fitted_transforms import fit_steps
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.row_group_columns import DecodedRowGroup
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.reader.transform_spec import Spec, parse_steps
from recd_dist.reader.transform_steps import Step, compute, waits
from recd_dist.table.column import Rows
from recd_dist.table.schema import Feature, Schema


@dataclass(frozen=True)
class Transforms:
    """The transforms of every feature that has some; ``Transforms.parse`` reads them from a config.

    Attributes:
        steps: for each such feature its transforms in the order in which they run.
    """

    steps: Mapping[str, tuple[Step, ...]]

    @staticmethod
    def parse(schema: Schema, specs: Mapping[str, Sequence[Spec]], stored: Schema | None = None) -> "Transforms":
        """Reads transforms as a config or ``to_json`` writes them.

        Args:
            schema: the features that there are.
            specs: for each feature a list of names or of {name: argument}.
            stored: the features of the table, from which others are made; those of ``schema`` where it is absent.

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
            try:
                steps[name] = parse_steps(schema[name], feature_specs, stored or schema)
            except ValueError as error:
                mistakes.append(f"feature '{name}': {error}")
        if mistakes:
            raise ConfigError("\n  ".join(mistakes))
        return Transforms({name: chosen for name, chosen in steps.items() if chosen})

    @property
    def is_fitted(self) -> bool:
        """True when no transform waits for numbers of the training table."""
        return not any(waits(step) for steps in self.steps.values() for step in steps)

    def rows(
        self, feature: Feature, row_group: DecodedRowGroup, stored: Schema, counts: Counter[str] | None = None
    ) -> Rows:
        """The rows of a feature after its transforms, one for each stored row of its group in the table.

        Args:
            feature: one that the table has, or one that is made.
            row_group: the stored rows of every feature that it needs.
            stored: the features of ``row_group``, in the groups of the table.
            counts: receives how many values a vocabulary did not have.
        """
        rows = compute(feature.name, self.steps.get(feature.name, ()), row_group, stored, counts)
        if feature.is_sparse and np.issubdtype(rows.values.dtype, np.floating):  # buckets of numbers
            return replace(rows, values=rows.values.astype(np.int64))
        return rows

    def fills(self, feature: str) -> bool:
        """Whether the first transform of a feature puts a number where there is none."""
        steps = self.steps.get(feature, ())
        return bool(steps) and steps[0].name == "fill"

    def id_limits(self) -> dict[str, int]:
        """For each feature whose ids lie in [0, limit) after its transforms, whatever they were before, the limit."""
        limits = {}
        for name, steps in self.steps.items():
            limit: int | None = None
            for step in steps:
                limit = REGISTRY[step.name].bound(step.arguments, limit)
            if limit is not None:
                limits[name] = limit
        return limits

    def fit(self, table: AnyTable) -> "Transforms":
        """Gives every transform that waits for them its numbers over the samples of a table.

        One that comes first takes them from the manifest. For one that comes after another transform they are computed
        from at most 16 evenly spaced row groups, so that every rank computes the same numbers. Both are those of all
        partitions, whichever are trained on. Store the result (``to_json``) with the model: evaluation must use the
        numbers of the training table.

        Args:
            table: the training split.

        Returns:
            Transforms of which ``is_fitted`` is true.
        """
        if self.is_fitted:
            return self
        return Transforms({name: fit_steps(name, steps, table.whole) for name, steps in self.steps.items()})

    def to_json(self) -> dict[str, list[dict[str, dict[str, Any]]]]:
        """A JSON-ready dict; ``Transforms.parse`` is its inverse."""
        return {name: [step.to_json() for step in steps] for name, steps in self.steps.items()}
