"""Gives transforms the numbers of the training table that a config leaves out: mean, deviation, least and most."""

from collections.abc import Sequence

import numpy as np

from recd_dist.reader.open_files import AnyTable, open_files
from recd_dist.reader.order import RowGroup
from recd_dist.reader.transform_registry import REGISTRY
from recd_dist.reader.transform_steps import Step, compute, waits
from recd_dist.table.schema import SAMPLE, Schema

_MAX_FITTED_ROW_GROUPS = 16


def evenly_spaced(table: AnyTable, most: int) -> list[RowGroup]:
    """Row groups of a table that lie evenly spaced in it.

    Args:
        table: one split.
        most: how many at most.
    """
    row_groups = [
        RowGroup(part, index, size)
        for part, entry in enumerate(table.manifest.parts)
        for index, size in enumerate(entry.samples.row_groups)
    ]
    return row_groups[:: -(-len(row_groups) // most) or 1]


def fit_steps(feature: str, steps: tuple[Step, ...], table: AnyTable) -> tuple[Step, ...]:
    """Fills the numbers into the transforms of one feature that wait for them.

    Args:
        feature: its name.
        steps: its transforms.
        table: the training split, whole.
    """
    fitted: list[Step] = []
    for step in steps:
        wanted = REGISTRY[step.name].fit
        if not waits(step):
            fitted.append(step)
        elif not fitted:
            stats = table.manifest.features[feature]
            fitted.append(Step(step.name, {name: getattr(stats, name) for name in wanted}))
        else:
            found = _measure(feature, fitted, table)
            fitted.append(Step(step.name, {name: found[name] for name in wanted}))
    return tuple(fitted)


def _measure(feature: str, steps: Sequence[Step], table: AnyTable) -> dict[str, float]:
    """Measures numbers over samples, after some transforms, in evenly spaced row groups."""
    stored = table.manifest.schema
    names = tuple(dict.fromkeys(one.feature for one in steps[0].inputs)) or (feature,)
    read = Schema(tuple(stored[name] for name in names), stored.labels)
    groups = {f.group for f in read.features}
    group = groups.pop() if len(groups) == 1 else SAMPLE
    files = open_files(table, read)
    count, total, squares, least, most = 0, 0.0, 0.0, np.inf, -np.inf
    for row_group in evenly_spaced(table, _MAX_FITTED_ROW_GROUPS):
        decoded = files.read(row_group)
        values = compute(feature, steps, decoded, stored).values.astype(np.float64)
        values = values if group == SAMPLE else values[decoded.row_of_sample[group]]
        values = values[np.isfinite(values)]
        count, total, squares = count + len(values), total + values.sum(), squares + np.square(values).sum()
        least, most = min(least, values.min(initial=np.inf)), max(most, values.max(initial=-np.inf))
    if not count:
        return {"mean": 0.0, "std": 1.0, "min": 0.0, "max": 1.0}
    mean = total / count
    std = float(np.sqrt(max(squares / count - mean**2, 0.0)))
    return {"mean": float(mean), "std": std, "min": float(least), "max": float(most)}
