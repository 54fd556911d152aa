"""Measures some units of flat files: what repeats, how it is found, ranges and means of numbers, distinct ids.

::

    units of the table   | | | | | | | | | | | | | | | |       at most 8 of them are read, at even distances
    measured             |         |         |       |         all of a small table, so that nothing is estimated
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.source.inspection import SESSION
from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.etl.write.row_groups import Samples
from recd_dist.reader.direct_files import DirectFiles, from_zero
from recd_dist.reader.equal_rows import find_equal_rows, flag_changed_rows
from recd_dist.reader.order import RowGroup
from recd_dist.table.column import Column
from recd_dist.table.fill_nulls import fill_nulls
from recd_dist.table.flat_columns import take_rows
from recd_dist.table.schema import SESSION_ID, Kind, Schema

_NUM_UNITS, _MOST_BYTES = 8, 256 << 20
MIN_GAIN = 1.1
"""How many times more samples a row hashing must find than neighbours do, to be worth its time."""


@dataclass(frozen=True)
class MeasuredGroup:
    """Samples per distinct row of a group, in the units that were measured.

    Attributes:
        by_neighbours: where each row is compared with the one before it.
        by_hash: where equal rows are found anywhere in a unit.
        by_session: where the samples of a unit are sorted by session, as the ETL does with all of them.
        value_bytes: bytes of the group's values of one sample.
    """

    by_neighbours: float
    by_hash: float
    by_session: float
    value_bytes: float


@dataclass
class MeasuredUnits:
    """Some units of a table in memory, as the ETL's query would return them.

    Attributes:
        rows: the samples of each unit.
        num_all: samples of the table.
    """

    rows: list[pa.Table]
    num_all: int
    _filled: dict[tuple[int, str], Column] = field(default_factory=dict)

    @staticmethod
    def read(files: DirectFiles) -> "MeasuredUnits":
        """Reads some units at even distances, until they fill 256 MiB.

        Args:
            files: the table.

        Raises:
            DataError: damaged files, missing keys, values that do not fit.
        """
        manifest = files.table.manifest
        units = [
            RowGroup(part, index, size)
            for part, entry in enumerate(manifest.parts)
            for index, size in enumerate(entry.samples.row_groups)
        ]
        chosen = np.linspace(0, len(units) - 1, min(_NUM_UNITS, len(units))).round().astype(int)
        rows, num_bytes = list[pa.Table](), 0
        for number in chosen.tolist():
            if num_bytes > _MOST_BYTES:
                break
            rows.append(files.read_normalised(units[number])[0])
            num_bytes += rows[-1].nbytes
        return MeasuredUnits(rows, manifest.num_samples)

    @property
    def num_samples(self) -> int:
        """Samples that were read."""
        return sum(map(len, self.rows))

    @property
    def is_all(self) -> bool:
        """Whether these are all units of the table."""
        return self.num_samples == self.num_all

    def samples(self) -> Samples:
        """The samples, those of each unit sorted by session, as the ETL's measuring takes them."""
        shard, orders, bounds = (
            pa.concat_tables(self.rows, promote_options="permissive"),
            list[npt.NDArray[np.int64]](),
            [0],
        )
        for rows in self.rows:
            orders.append(bounds[-1] + _session_order(rows))
            bounds.append(bounds[-1] + len(rows))
        has_session = SESSION_ID in shard.column_names
        session = shard[SESSION_ID] if has_session else pa.array(np.arange(len(shard)))
        return Samples(shard.append_column(SESSION, session), np.concatenate(orders), np.array(bounds))

    def measure_group(self, schema: Schema, group: str) -> MeasuredGroup:
        """How often the rows of a group repeat, in each of the ways in which that can be found."""
        features = schema.of_group(group)
        found = np.zeros(3)
        num_bytes = 0
        for number, rows in enumerate(self.rows):
            columns = [self._column(number, rows, schema, f.name) for f in features]
            num_bytes += sum(_value_bytes(column) for column in columns)
            order = _session_order(rows)
            sorted_columns = [take_rows(c, order, c.values.dtype, "") for c in columns]
            by_hash = len(find_equal_rows(columns, by_hash=True)[1])
            found += (int(flag_changed_rows(columns).sum()), by_hash, int(flag_changed_rows(sorted_columns).sum()))
        neighbours, hashed, sessions = (self.num_samples / np.maximum(found, 1)).tolist()
        return MeasuredGroup(neighbours, hashed, sessions, num_bytes / max(self.num_samples, 1))

    def sums_of(self, schema: Schema, name: str) -> FeatureSums:
        """Statistics of a feature over the samples that were read."""
        sums = FeatureSums()
        for number, rows in enumerate(self.rows):
            column = self._column(number, rows, schema, name)
            sums.add(column, np.ones(len(column), np.int64), 0, 0)
            sums.num_null += int(rows[name].null_count)
        return sums

    def label_sums(self, name: str) -> FeatureSums:
        """Statistics of a label over the samples that were read; ``num_null`` counts those without it."""
        sums = FeatureSums()
        for rows in self.rows:
            values = rows[name].to_numpy().astype(np.float64)
            known = values[np.isfinite(values)]
            sums.num_null += len(values) - len(known)
            if len(known):
                sums.add_numbers(known, np.ones(len(known), np.int64))
        return sums

    def count_ids(self, schema: Schema, table: str) -> tuple[DistinctIds, int]:
        """The distinct ids of an embedding table, in all features that look it up.

        Returns:
            Those of the samples that were read; and how many there are likely to be in the whole table. Distinct ids
            grow as a power of the samples (Heaps' law), which half of the samples and all of them tell.
        """
        ids, half = DistinctIds(), 0
        features = [f.name for f in schema.sparse if f.table == table]
        for number, rows in enumerate(self.rows):
            for name in features:
                ids.add(self._column(number, rows, schema, name).values)
            if number == len(self.rows) // 2 - 1:
                half = ids.stats().num_distinct
        num = ids.stats().num_distinct
        if self.is_all or not half:
            return ids, num if self.is_all else round(num * self.num_all / max(self.num_samples, 1))
        power = min(max(math.log(num / half) / math.log(len(self.rows) / (len(self.rows) // 2)), 0.0), 1.0)
        return ids, round(num * (self.num_all / self.num_samples) ** power)

    def _column(self, number: int, rows: pa.Table, schema: Schema, name: str) -> Column:
        """A feature of a unit without nulls."""
        key = (number, name)
        if key not in self._filled:
            column = fill_nulls(rows, schema[name], lambda row: f"unit {number}, row {row}").column
            self._filled[key] = from_zero(column)
        return self._filled[key]


def stored_types(rows: pa.Table, schema: Schema) -> Mapping[str, pa.DataType]:
    """The type that each feature has in memory, of which the costs of groups are counted."""
    types = {}
    for f in schema.features:
        kind = rows.schema.field(f.name).type
        types[f.name] = kind if f.kind is not Kind.ids or pa.types.is_list(kind) else pa.list_(kind)
    return types


def _session_order(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The rows sorted by session, those of one session as they stand."""
    if SESSION_ID not in rows.column_names:
        return np.arange(len(rows))
    return np.argsort(rows[SESSION_ID].to_numpy(), kind="stable")


def _value_bytes(column: Column) -> int:
    if column.offsets is None:
        return int(column.values.nbytes)
    return int(column.offsets[-1] - column.offsets[0]) * (
        column.values.itemsize + (4 if column.weights is not None else 0)
    )
