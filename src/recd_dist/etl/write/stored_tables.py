"""The tables that a part stores: rows of each group, streams of its windows, samples."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write.history_windows import Streams, build_streams
from recd_dist.etl.write.part_files import required_table
from recd_dist.etl.write.row_groups import Samples
from recd_dist.etl.write.stored_rows import StoredRows, keep_all_rows, look_up_rows, merge_equal_neighbours
from recd_dist.etl.write.stored_types import WEIGHTS
from recd_dist.etl.write.table_form import TableForm
from recd_dist.table.column import Column
from recd_dist.table.flat_columns import Order, to_arrow
from recd_dist.table.manifest import ROW, STREAM, length_of, start_of, stream_directory
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN


def find_rows(samples: Samples, form: TableForm, group: str) -> StoredRows:
    """Finds the rows to store of a group; of the group ``sample`` that is a row for every sample."""
    features = form.schema.of_group(group)
    if group == SAMPLE:
        return keep_all_rows(samples, features, form.types)
    if group in form.lookups:
        return look_up_rows(samples, group, features, form.types, form.lookups[group])
    return merge_equal_neighbours(samples, features, form.types)


def find_streams(rows: StoredRows, form: TableForm, group: str) -> Streams | None:
    """Lays the windows of a group over streams; None for a group without windows."""
    windowed = {f.name: rows.columns[f.name] for f in form.schema.of_group(group) if f.window}
    return build_streams(windowed, rows.bounds) if windowed else None


def group_tables(
    rows: StoredRows, streams: Streams | None, form: TableForm, group: str, first_row: int = 0, first_stream: int = 0
) -> dict[str, tuple[pa.Table, Order]]:
    """The tables that a part stores of a group.

    Args:
        rows: the group's rows.
        streams: the streams of its windows, if it has windows.
        form: what every part of the table has in common.
        group: name of the group.
        first_row: the number of the first row in the whole table.
        first_stream: the number of the first stream in the whole table.

    Returns:
        Per directory a table, and the bounds of its row groups, int64 [row groups + 1].
    """
    columns = {ROW: pa.array(np.arange(len(rows.repeats)) + first_row)}
    lists = {}
    if streams is not None:
        columns[STREAM] = pa.array(streams.stream + first_stream)
        lists[STREAM] = pa.array(np.arange(int(streams.bounds[-1])) + first_stream)
    for f in form.schema.of_group(group):
        if streams is not None and f.window:
            lists |= _feature_arrays(f, streams.lists[f.name], form)
            columns[start_of(f.name)] = pa.array(streams.starts[f.name])
            columns[length_of(f.name)] = pa.array(rows.columns[f.name].lengths.astype(np.int32))
        else:
            columns |= _feature_arrays(f, rows.columns[f.name], form)
    tables = {group: (required_table(columns, columns.values()), rows.bounds)}
    if streams is not None:
        tables[stream_directory(group)] = (required_table(lists, lists.values()), streams.bounds)
    return tables


def sample_table(
    samples: Samples, rows: StoredRows, form: TableForm, row_numbers: Mapping[str, Order], first_sample: int
) -> pa.Table:
    """The table that a part stores of its samples.

    Args:
        samples: the samples [N].
        rows: the rows of the group ``sample``, one for each sample.
        form: what every part of the table has in common.
        row_numbers: for each deduplicated group the row of each sample, int64 [N], numbered in the whole table.
        first_sample: ``sample_id`` of the first sample.

    Returns:
        Keys, labels, the features of the group ``sample``, and one row number per group.
    """
    columns = {SAMPLE_ID: pa.array(np.arange(first_sample, first_sample + len(samples)))}
    keys = {SESSION_ID: SESSION, REQUEST_ID: REQUEST, TIMESTAMP_COLUMN: TIMESTAMP}
    columns |= {name: pa.array(samples.key(key)) for name, key in keys.items()}
    columns |= {label: pa.array(samples.key(label), pa.float32()) for label in form.schema.labels}
    for f in form.schema.of_group(SAMPLE):
        columns |= _feature_arrays(f, rows.columns[f.name], form)
    columns |= {f"{group}_{ROW}": pa.array(row) for group, row in row_numbers.items()}
    return required_table(columns, columns.values())


def _feature_arrays(feature: Feature, column: Column, form: TableForm) -> dict[str, pa.Array]:
    """The array that a feature is stored as, by name; two arrays where it has weights."""
    names = [feature.name] if feature.weights is None else [feature.name, feature.weights]
    return dict(zip(names, to_arrow(column, form.types[feature.name], WEIGHTS), strict=True))
