"""What the first samples decide for a whole table: which histories are stored as windows, and each column's encoding.

A function of the rows given: the same rows decide the same. Every later part follows without a look of its own.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError
from recd_dist.etl.write.column_encodings import encodings
from recd_dist.etl.write.flat_columns import Order
from recd_dist.etl.write.history_windows import num_streamed
from recd_dist.etl.write.stored_rows import GroupRows, Samples
from recd_dist.etl.write.write_one_part import Form, clustered, group_rows, group_streams, group_tables, sample_table
from recd_dist.table.manifest import ROW, STREAM, length_of, start_of
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema

WORTH_WINDOWS = 0.8
"""Windows pay where the stream, with a start and a length for each row, is at most this share of the unique values."""

_ROW_GROUPS = 8


def settled(form: Form, shard: pa.Table, order: Order, wanted: Mapping[str, bool] | None = None) -> Form:
    """The form with windows and encodings chosen on some samples.

    Args:
        form: schema, types and options of the table.
        shard: normalised samples, usually the first shard.
        order: int64 [N], rows of the shard in clustered order; at most the first 8 row groups are looked at.
        wanted: per feature whether it has windows (``features.NAME.window``), where that is not left to the data.

    Returns:
        The form with ``Feature.window`` set in its schema, and with encodings.

    Raises:
        ConfigError: windows wanted for a feature that cannot have them.
    """
    wanted = dict(wanted or {})
    _check_wanted(form.schema, wanted)
    samples, _ = clustered(shard, order, form.row_group_samples)
    bounds = samples.bounds[: _ROW_GROUPS + 1]
    samples = Samples(shard, order[: int(bounds[-1])], bounds)
    chosen: dict[str, Mapping[str, str]] = {}
    for group in form.schema.dedup_groups:
        rows = group_rows(samples, form, group)
        found = {f.name: wanted.get(f.name, _pays(f, rows, form.schema)) for f in form.schema.of_group(group)}
        features = tuple(replace(f, window=found.get(f.name, f.window)) for f in form.schema.features)
        form = replace(form, schema=Schema(features, form.schema.labels))
        stored = group_tables(rows, group_streams(rows, form, group), form, group)
        chosen |= {directory: _encodings(table, bounds, form) for directory, (table, bounds) in stored.items()}
    rows = group_rows(samples, form, SAMPLE)
    numbers = {group: np.zeros(len(samples), np.int64) for group in form.schema.dedup_groups}
    chosen["samples"] = _encodings(sample_table(samples, rows, form, numbers, 0), bounds, form)
    return replace(form, encodings=chosen)


def _encodings(table: pa.Table, bounds: Order, form: Form) -> dict[str, str]:
    return encodings(table, int(np.median(np.diff(bounds))), form.compression)


def _pays(feature: Feature, rows: GroupRows, schema: Schema) -> bool:
    """Whether windows make a feature smaller, judged by the numbers to store."""
    if feature.kind is not Kind.ids or _clash(feature, schema):
        return False
    column = rows.columns[feature.name]
    num_values = int(column.lengths.sum())
    if not num_values:
        return False
    return num_streamed(column, rows.bounds) + 2 * len(column) <= WORTH_WINDOWS * num_values


def _clash(feature: Feature, schema: Schema) -> str | None:
    """Another column of the group's file that a column of its windows would be named like."""
    group = schema.of_group(feature.group)
    there = {ROW, *(f.name for f in group), *(f.weights for f in group if f.weights)}
    return next((n for n in (STREAM, start_of(feature.name), length_of(feature.name)) if n in there), None)


def _check_wanted(schema: Schema, wanted: dict[str, bool]) -> None:
    for name in (name for name, window in wanted.items() if window):
        feature = schema[name]
        if feature.kind is not Kind.ids:
            raise ConfigError(f"features.{name}.window: only lists of ids have windows, '{name}' is {feature.kind}")
        if feature.group == SAMPLE:
            raise ConfigError(f"features.{name}.window: '{name}' is in no group; windows are stored per group")
        if clash := _clash(feature, schema):
            raise ConfigError(f"features.{name}.window: the group has a column '{clash}'; rename it in the SQL")
