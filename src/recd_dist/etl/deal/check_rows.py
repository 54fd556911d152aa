"""Checks of single rows: missing keys, missing labels, wrong numbers of weights."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import Flags
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


def find_unlabelled(
    table: pa.Table, labels: Iterable[str], first_row: int, policy: str, weight: str | None = None
) -> Flags:
    """Finds samples of which a label is missing, and checks that all others are finite numbers.

    Args:
        table: samples of the normalised query.
        labels: the names of the label columns.
        first_row: the place of the first sample in the query's result, for the message.
        policy: ``error`` refuses samples of which a label is missing.
        weight: the one of the labels that holds weights, none of which may be missing or negative.

    Returns:
        bool [N], True where a label is null or not a number.

    Raises:
        DataError: a label is infinite, or missing where it may not be; a weight is none.
    """
    missing = np.zeros(table.num_rows, bool)
    for name in labels:
        values = np.asarray(table[name].to_numpy(), np.float32)
        absent = np.isnan(values)
        bad = np.isinf(values) | (absent if policy == "error" or name == weight else False)
        cure = "filter such rows in the SQL, or say what a missing label means with coalesce"
        if name == weight:
            bad |= values < 0
            cure = f"weights are numbers of at least 0: say so in the SQL, such as greatest(coalesce({name}, 0), 0)"
        elif policy == "error":
            cure += (
                "; data.policy.unlabelled=keep trains each task on the samples that have its label, drop leaves the "
                "others out"
            )
        if bad.any():
            row = int(np.argmax(bad))
            value = "null" if (value := table[name][row].as_py()) is None else value
            word = "weight" if name == weight else "label"
            raise DataError(
                f"samples query: {word} '{name}' is {value} in row {first_row + row} (and perhaps more); {cure}"
            )
        missing |= absent
    return missing


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
