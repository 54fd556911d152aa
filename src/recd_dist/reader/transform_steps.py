"""The transforms of one feature, and how they run on its stored rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd_dist.reader.list_transforms import take_rows
from recd_dist.reader.row_group_columns import DecodedRowGroup
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.reader.vocabulary_file import UNKNOWN
from recd_dist.table.column import Rows
from recd_dist.table.schema import SAMPLE, Schema


@dataclass(frozen=True)
class Input:
    """A feature of the table from which another one is made.

    Attributes:
        feature: its name.
        steps: what is done to its stored rows before.
    """

    feature: str
    steps: "tuple[Step, ...]" = ()

    def to_json(self) -> Any:
        """As a config writes it."""
        return {self.feature: [step.to_json() for step in self.steps]} if self.steps else self.feature


@dataclass(frozen=True)
class Step:
    """One transform of a feature, whose arguments were checked.

    Attributes:
        name: the name of the transform, a key of ``transform_registry.REGISTRY``.
        arguments: the arguments, by name, that the transform takes beside the column.
        inputs: where it makes the feature, what it makes it from.
    """

    name: str
    arguments: Mapping[str, Any]
    inputs: tuple[Input, ...] = ()

    def to_json(self) -> dict[str, dict[str, Any]]:
        """As a config writes it, with every argument by name."""
        of = {"of": [one.to_json() for one in self.inputs]} if self.inputs else {}
        return {self.name: {**of, **self.arguments}}


def waits(step: Step) -> bool:
    """Whether a transform has no numbers of the training table yet."""
    return bool(REGISTRY[step.name].fit) and not step.arguments


def compute(
    feature: str,
    steps: Sequence[Step],
    row_group: DecodedRowGroup,
    stored: Schema,
    counts: Counter[str] | None = None,
) -> Rows:
    """Transforms the rows of a feature, or makes them; those of a feature without transforms stay as they are.

    Args:
        feature: its name.
        steps: its transforms.
        row_group: the stored rows of every feature that it needs.
        stored: the features of ``row_group``, in the groups of the table.
        counts: receives how many values a vocabulary did not have.

    Returns:
        A row for each stored row of its group; for each sample where it is made from several groups.
    """
    if not steps or not steps[0].inputs:
        return apply_steps(steps, row_group.columns[feature], feature, counts)
    first, groups = steps[0], {stored[one.feature].group for one in steps[0].inputs}
    inputs = []
    for one in first.inputs:
        rows = apply_steps(one.steps, row_group.columns[one.feature], feature, counts)
        group = stored[one.feature].group
        is_foreign = len(groups) > 1 and group != SAMPLE
        inputs.append(take_rows(rows, row_group.row_of_sample[group]) if is_foreign else rows)
    made = REGISTRY[first.name].apply(inputs, **first.arguments)
    return apply_steps(steps[1:], made, feature, counts)


def apply_steps(steps: Iterable[Step], rows: Rows, feature: str = "", counts: Counter[str] | None = None) -> Rows:
    """Runs some transforms of rows, one after the other.

    Args:
        steps: none of them makes a feature.
        rows: any.
        feature: the name under which values are counted that a vocabulary does not have.
        counts: receives their number.
    """
    for step in steps:
        rows = REGISTRY[step.name].apply(rows, **step.arguments)
        if step.name == "vocabulary" and counts is not None:
            num_unknown = int(np.count_nonzero(rows.values == UNKNOWN))
            if num_unknown:
                counts[f"{feature}: not in its vocabulary"] += num_unknown
    return rows
