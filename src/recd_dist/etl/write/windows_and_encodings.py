"""Windows of histories and encodings of columns, chosen by the first samples.

The choice is a function of the samples: the same samples lead to the same choice. Every part of the table follows it,
and chooses nothing itself.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError
from recd_dist.etl.source.source_groups import misfit_of_window
from recd_dist.etl.write.column_encodings import choose_encodings
from recd_dist.etl.write.history_windows import num_stream_values
from recd_dist.etl.write.row_groups import Samples
from recd_dist.etl.write.stored_rows import StoredRows
from recd_dist.etl.write.stored_tables import find_rows, find_streams, group_tables, sample_table
from recd_dist.etl.write.table_form import TableForm
from recd_dist.table.flat_columns import Order
from recd_dist.table.manifest import ROW, STREAM, length_of, start_of
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

WORTH_WINDOWS = 0.8
"""Windows are worth it where the stream, plus a start and a length per row, has at most this share of the rows' ids."""

_ROW_GROUPS = 8


def choose_windows_and_encodings(
    form: TableForm, shard: pa.Table, order: Order, configured: Mapping[str, bool] | None = None
) -> TableForm:
    """Chooses windows and encodings by looking at the first row groups of some samples.

    Args:
        form: schema, types and options of the table.
        shard: normalised samples, usually those of the first part.
        order: int64 [N], rows of the shard in clustered order; only the first 8 row groups are looked at.
        configured: whether each feature has windows (``features.NAME.window``); the data decide about the others.

    Returns:
        The form with ``Feature.window`` set in its schema, and with encodings.

    Raises:
        ConfigError: the config asks for windows of a feature that cannot have them.
    """
    configured = dict(configured or {})
    _check_configured(form.schema, configured)
    samples = Samples.of(shard, order, form.row_group_samples).first(_ROW_GROUPS)
    chosen: dict[str, Mapping[str, str]] = {}
    for group in form.schema.dedup_groups:
        rows = find_rows(samples, form, group)
        features = form.schema.of_group(group)
        windows = {f.name: configured.get(f.name, _is_worth_windows(f, rows, form.schema)) for f in features}
        form = replace(form, schema=_set_windows(form.schema, windows))
        stored = group_tables(rows, find_streams(rows, form, group), form, group)
        chosen |= {directory: _encodings(table, bounds, form) for directory, (table, bounds) in stored.items()}
    rows = find_rows(samples, form, SAMPLE)
    row_numbers = {group: np.zeros(len(samples), np.int64) for group in form.schema.dedup_groups}
    chosen["samples"] = _encodings(sample_table(samples, rows, form, row_numbers, 0), samples.bounds, form)
    return replace(form, encodings=chosen)


def _set_windows(schema: Schema, windows: Mapping[str, bool]) -> Schema:
    """The schema with ``Feature.window`` set for some features."""
    features = tuple(replace(f, window=windows.get(f.name, f.window)) for f in schema.features)
    return Schema(features, schema.labels)


def _encodings(table: pa.Table, bounds: Order, form: TableForm) -> dict[str, str]:
    """The encodings of a table's columns, tried in row groups of the usual size."""
    return choose_encodings(table, int(np.median(np.diff(bounds))), form.compression, form.readable_by)


def _is_worth_windows(feature: Feature, rows: StoredRows, schema: Schema) -> bool:
    """Whether windows make a feature smaller, judged by how many numbers are stored."""
    if feature.kind is not Kind.ids or _clashing_column(feature, schema):
        return False
    column = rows.columns[feature.name]
    num_values = int(column.lengths.sum())
    if not num_values:
        return False
    return num_stream_values(column, rows.bounds) + 2 * len(column) <= WORTH_WINDOWS * num_values


def _clashing_column(feature: Feature, schema: Schema) -> str | None:
    """A column of the group that has the name of a column that the feature's windows need; None if there is none."""
    group = schema.of_group(feature.group)
    there = {ROW, *(f.name for f in group), *(f.weights for f in group if f.weights)}
    return next((n for n in (STREAM, start_of(feature.name), length_of(feature.name)) if n in there), None)


def _check_configured(schema: Schema, configured: Mapping[str, bool]) -> None:
    """Refuses windows of a feature that cannot have them."""
    for name in (name for name, window in configured.items() if window):
        feature = schema[name]
        for misfit in misfit_of_window(name, feature.kind, is_single=feature.group == SAMPLE):
            raise ConfigError(misfit)
        if clash := _clashing_column(feature, schema):
            raise ConfigError(f"features.{name}.window: the group has a column '{clash}'; rename it in the SQL")
