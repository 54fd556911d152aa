"""Reads units of flat Parquet files as row groups of unique rows, as ``TableFiles`` does of a clustered table."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.reader.direct_table import HASH, DirectTable
from recd_dist.reader.equal_rows import find_equal_rows
from recd_dist.reader.normalised_columns import Normaliser
from recd_dist.reader.order import RowGroup
from recd_dist.reader.raw_rows import RawRows
from recd_dist.reader.row_group_columns import DecodedRowGroup, Origin
from recd_dist.table.column import Array, Column
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import in_one_chunk, take_rows
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SESSION_ID, Feature, Schema


class DirectFiles:
    """The files of a direct table, open for reading.

    Args:
        table: one split.
        schema: the features to read: all of the manifest's, or fewer.
        columns: the columns to read in place of those of the schema, for ``read_normalised`` alone.

    Raises:
        ConfigError: a feature, label or weights that the files do not have.
    """

    def __init__(self, table: DirectTable, schema: Schema | None = None, columns: Sequence[str] | None = None) -> None:
        self.table = table
        self.schema = schema or table.manifest.schema
        features = self.schema.features
        names = [SESSION_ID, REQUEST_ID, *self.schema.labels]
        names += [name for f in features for name in (f.name, f.weights) if name is not None]
        known = table.conversions
        for name in names[2:]:
            if name not in known and columns is None:
                raise ConfigError(f"column '{name}': {table.path} has none that is read{nearest(name, known)}")
        names = names if columns is None else list(columns)
        self._normaliser = Normaliser({name: known[name] for name in names if name in known})
        self._rows = RawRows(table.raw_files, self._normaliser.raw_columns, self._normaliser.texts)

    def check_sizes(self) -> None:
        """Refuses files that are gone or were changed since the table was opened; reads none.

        Raises:
            DataError: the message names the first such file.
        """
        self.table.check_sizes()

    def read_normalised(self, row_group: RowGroup) -> tuple[pa.Table, Origin]:
        """Reads the columns of a unit as the ETL's query would return them: nulls are there, nothing is merged.

        Raises:
            DataError: damaged, changed or missing files; keys that are missing, values that do not fit.
        """
        raw, origin = self._rows.read(self.table.units[row_group.part][row_group.index])
        rows = self._normaliser.normalise(raw, origin)
        _check_keys(rows, origin)
        return rows, origin

    def read(self, row_group: RowGroup) -> DecodedRowGroup:
        """Reads a unit and finds the equal rows of each group in it.

        Raises:
            DataError: damaged, changed or missing files; keys or labels that are missing, values that do not fit.
        """
        rows, origin = self.read_normalised(row_group)
        columns, row_of_sample, num_rows = dict[str, Column](), dict[str, Array](), dict[str, int]()
        for group in self.schema.groups:
            features = self.schema.of_group(group)
            filled = {f.name: _fill(rows, f, origin) for f in features}
            if group == SAMPLE:
                columns |= {name: from_zero(column) for name, column in filled.items()}
                continue
            by_hash = self.table.ways.get(group) == HASH
            row_of_sample[group], first = find_equal_rows(list(filled.values()), by_hash)
            num_rows[group] = len(first)
            columns |= {name: take_rows(c, first, c.values.dtype, name) for name, c in filled.items()}
        ids = self.sample_ids(row_group)
        sessions = _read_key(rows, SESSION_ID, ids)
        origins = dict.fromkeys(self.schema.groups, origin)
        return DecodedRowGroup(
            sample_ids=ids,
            session_ids=sessions,
            request_ids=_read_key(rows, REQUEST_ID, sessions),
            labels=self._read_labels(rows, origin),
            row_of_sample=row_of_sample,
            num_rows=num_rows,
            columns=columns,
            origins=origins,
        )

    def sample_ids(self, row_group: RowGroup) -> Array:
        """The numbers of a unit's samples in the whole table, int64 [N]."""
        part = self.table.manifest.parts[row_group.part]
        sizes = part.samples.row_groups
        first = part.first_sample + sum(sizes[: row_group.index])
        return np.arange(first, first + sizes[row_group.index])

    def _read_labels(self, rows: pa.Table, origin: Origin) -> Array:
        """The labels, float32 [N, number of labels]; nan where one is missing, if that is allowed."""
        stats = self.table.manifest.labels
        labels = np.empty((len(rows), len(self.schema.labels)), np.float32)
        for number, name in enumerate(self.schema.labels):
            values = in_one_chunk(rows[name]).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            may_miss = name in stats and stats[name].num_null > 0
            bad = np.isinf(values) if may_miss else ~np.isfinite(values)
            if bad.any():
                row = int(bad.argmax())
                found = "missing" if np.isnan(values[row]) else str(values[row])
                raise DataError(
                    f"{origin}, row {row}: label '{name}' is {found}; data.policy.unlabelled=keep trains each task on "
                    "the samples that have its label; `recd etl` can leave such samples out"
                )
            labels[:, number] = values
        return labels


def _fill(rows: pa.Table, feature: Feature, origin: Origin) -> Column:
    """A feature without nulls, as the ETL stores it."""
    return fill_nulls(rows, feature, lambda row: f"{origin}, row {row}").column


def from_zero(column: Column) -> Column:
    """The column with offsets that begin at 0, and no values before or behind."""
    if column.offsets is None or not len(column.offsets):
        return column
    start, end = int(column.offsets[0]), int(column.offsets[-1])
    if start == 0 and end == len(column.values):
        return column
    weights = column.weights
    return replace(
        column,
        values=column.values[start:end],
        offsets=column.offsets - start,
        weights=weights if weights is None or len(weights) == end - start else weights[start:end],
    )


def _read_key(rows: pa.Table, name: str, absent: Array) -> Array:
    """A key, int64 [N]; where the source names none, what stands for it."""
    return in_one_chunk(rows[name]).to_numpy() if name in rows.column_names else absent


def _check_keys(rows: pa.Table, origin: Origin) -> None:
    """Refuses a row without a session or request, where the source names them."""
    for name in (SESSION_ID, REQUEST_ID):
        if name in rows.column_names and rows[name].null_count:
            row = int(np.argmax(rows[name].is_null().to_numpy()))
            raise DataError(
                f"{origin}, row {row}: no {name.removesuffix('_id')} id (null or empty); leave such rows out when the "
                "files are written, or make a table of them with `recd etl` and a query"
            )
