"""The label that is trained on must be 0 or 1, and both must occur: training of anything else means nothing."""

import math

import numpy as np
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.table.binary_label import binary_label_cure
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import arrow_input, report_store_errors

_NUM_PARTS = 64  # of a table of an older release, whose manifest says nothing of labels


def check_label(table: ClusteredTable, label: str) -> None:
    """Refuses a label that is not binary: by the manifest, or by the label's column in a table of an older release.

    Args:
        table: the split to train on.
        label: the name of the label.

    Raises:
        DataError: a label is neither 0 nor 1, or all labels are the same; the message has the SQL that mends it.
    """
    stats = table.manifest.labels.get(label)
    if stats is not None:
        variance = stats.mean * (1 - stats.mean)  # of zeros and ones, and of nothing else between 0 and 1
        binary = stats.min >= 0 and stats.max <= 1 and math.isclose(stats.std**2, variance, abs_tol=1e-9)
        low, high = stats.min, stats.max
    else:
        low, high, binary = _read_label(table, label)
    again = "and make the table again with `recd etl ... overwrite=true`"
    if not binary:
        raise DataError(
            f"{table.path}: label '{label}' goes from {low:g} to {high:g}, training takes 0 and 1 only; "
            f"{binary_label_cure(label, low, high)}, {again}"
        )
    if low == high:
        raise DataError(
            f"{table.path}: label '{label}' is {low:g} in every sample, so there is nothing to learn; "
            f"{binary_label_cure(label, low, high)}, {again}"
        )


def _read_label(table: ClusteredTable, label: str) -> tuple[float, float, bool]:
    """The smallest and the largest label, and whether all are 0 or 1; what was not read is taken to be right."""
    parts = table.manifest.parts
    low, high, binary = math.inf, -math.inf, True
    for part in parts[:_NUM_PARTS]:
        path = table.path / part.samples.path
        with report_store_errors(path):
            values = np.asarray(pq.read_table(arrow_input(path), columns=[label])[label].to_numpy())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        binary = binary and bool(np.isin(values, (0, 1)).all())
    return (low, high, binary) if len(parts) <= _NUM_PARTS or not binary else (0.0, 1.0, True)
