"""Checks of single rows: missing keys, missing labels, wrong numbers of weights."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TIMESTAMP
from recd_dist.table.schema import Feature

_KEY_WORDS = {
    SESSION: "session id",
    REQUEST: "request id",
    TIMESTAMP: "timestamp",
    SAMPLE_KEY: "sample key",
    ORDER_KEY: "order key",
}


def check_keys(table: pa.Table, first_row: int) -> None:
    """Checks that every sample has every key that the source names.

    Args:
        table: samples of the normalised query.
        first_row: the place of the first sample in the query's result, for the message.

    Raises:
        DataError: a key is missing.
    """
    for name, words in _KEY_WORDS.items():
        if name in table.column_names and table[name].null_count:
            row = first_row + int(np.argmax(table[name].is_null().to_numpy()))
            raise DataError(
                f"samples query: row {row} (and perhaps more) has no {words} (null or empty); "
                "filter such rows in the SQL"
            )


def check_labels(table: pa.Table, labels: Iterable[str], first_row: int) -> None:
    """Checks that every label of every sample is a finite number.

    Args:
        table: samples of the normalised query.
        labels: the names of the label columns.
        first_row: the place of the first sample in the query's result, for the message.

    Raises:
        DataError: a label is null, infinite or not a number.
    """
    for name in labels:
        is_bad = pc.invert(pc.fill_null(pc.is_finite(table[name]), False))
        if pc.any(is_bad).as_py():
            row = pc.index(is_bad, True).as_py()
            value = "null" if (value := table[name][row].as_py()) is None else value
            raise DataError(
                f"samples query: label '{name}' is {value} in row {first_row + row} (and perhaps more); "
                "filter such rows in the SQL, or say what a missing label means with coalesce"
            )


def check_weights(table: pa.Table, feature: Feature, first_row: int) -> None:
    """Checks that a feature has one weight for each id.

    Args:
        table: samples of the normalised query.
        feature: a feature with weights.
        first_row: the place of the first sample in the query's result, for the message.

    Raises:
        DataError: the lists of ids and of weights differ in length.
    """
    weights = str(feature.weights)
    lengths = (pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy() for name in (feature.name, weights))
    num_ids, num_weights = lengths
    if (num_ids != num_weights).any():
        row = int(np.argmax(num_ids != num_weights))
        raise DataError(
            f"samples query: row {first_row + row}: feature '{feature.name}' has {num_ids[row]} ids and "
            f"{num_weights[row]} weights in '{weights}'; give one weight for each id"
        )
