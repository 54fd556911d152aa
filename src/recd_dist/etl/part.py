"""One shard of one split becomes one part: sorted, compared with the neighbour, written row group by row group."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl import cluster
from recd_dist.etl.columns import REQUEST, SESSION, TIMESTAMP, link
from recd_dist.etl.convert import converted
from recd_dist.etl.lookup import Lookup
from recd_dist.etl.measure import Distinct, Measured
from recd_dist.etl.write import PART_SHIFT, ROW, PartWriter, required
from recd_dist.manifest import Part
from recd_dist.schema import REQUEST_ID, SAMPLE_ID, SESSION_ID, Feature, Schema
from recd_dist.schema import TIMESTAMP as TIMESTAMP_COLUMN


@dataclass(frozen=True)
class Form:
    """What every part of a table has in common.

    Attributes:
        schema: final: single ids that can be missing are lists, automatic groups are named.
        types: stored type per feature.
        lookups: of the groups with their own query.
        row_group_samples: the aim for a row group.
        compression: ``zstd`` or ``lz4``.
    """

    schema: Schema
    types: dict[str, pa.DataType]
    lookups: dict[str, Lookup]
    row_group_samples: int
    compression: str


@dataclass
class Result:
    """A written part and what was measured on the way."""

    num_samples: int = 0
    num_sessions: int = 0
    num_requests: int = 0
    group_rows: dict[str, int] = field(default_factory=dict)
    features: dict[str, Measured] = field(default_factory=dict)
    ids: dict[str, Distinct] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    def merge(self, other: "Result") -> None:
        """Adds another part."""
        self.num_samples += other.num_samples
        self.num_sessions += other.num_sessions
        self.num_requests += other.num_requests
        self.parts += other.parts
        for group, num_rows in other.group_rows.items():
            self.group_rows[group] = self.group_rows.get(group, 0) + num_rows
        for name, measured in other.features.items():
            self.features.setdefault(name, Measured()).merge(measured)
        for table, distinct in other.ids.items():
            self.ids.setdefault(table, Distinct()).merge(distinct)


def written(
    shard: pa.Table,
    order: npt.NDArray[np.int64],
    form: Form,
    table: Path,
    number: int,
    first_sample: int,
    done: Callable[[int], None],
) -> Result:
    """Writes part ``number`` of a table.

    Args:
        shard: samples.
        order: int64 [N], rows of the shard in clustered order.
        form: what the table's parts have in common.
        table: directory of the table.
        number: of the part.
        first_sample: ``sample_id`` of its first sample.
        done: called with the number of samples of each row group written.
    """
    result = Result(
        group_rows=dict.fromkeys(form.schema.dedup_groups, 0),
        features={f.name: Measured() for f in form.schema.features},
        ids={name: Distinct() for name in form.schema.tables},
    )
    writer = PartWriter(table, number, form.compression)
    bounds = cluster.row_group_bounds(shard[SESSION].to_numpy()[order], form.row_group_samples)
    for start, end in pairwise(bounds.tolist()):
        samples = shard.take(pa.array(order[start:end]))
        row_group = _RowGroup(samples, form, result)
        groups = {name: row_group.group(name, number << PART_SHIFT) for name in form.schema.dedup_groups}
        writer.write(row_group.samples(first_sample + int(start)), groups)
        done(samples.num_rows)
    result.parts.append(writer.close())
    return result


class _RowGroup:
    """Samples of one row group; builds the rows of each group, then the samples that refer to them."""

    def __init__(self, samples: pa.Table, form: Form, result: Result) -> None:
        self.taken = samples
        self.form = form
        self.result = result
        session = samples[SESSION].to_numpy()
        new_session = cluster.changed_numbers(session)
        self.same_session = ~new_session  # the neighbour before is of the same session
        self.row_numbers: dict[str, npt.NDArray[np.int64]] = {}
        result.num_samples += samples.num_rows
        result.num_sessions += int(new_session.sum())
        new_request = new_session | cluster.changed_numbers(samples[REQUEST].to_numpy())
        result.num_requests += int(new_request.sum())

    def group(self, name: str, part: int) -> pa.Table:
        """Unique rows of a group: ``row`` and its features."""
        features = self.form.schema.of_group(name)
        if name in self.form.lookups:
            rows, columns = self._linked(name, features)
        else:
            rows, columns = self._compared(features)
        inverse = np.cumsum(rows) - 1
        numbers = part + self.result.group_rows[name] + np.arange(int(inverse[-1]) + 1)
        self.row_numbers[name] = numbers[inverse]
        self.result.group_rows[name] += len(numbers)
        repeats = np.bincount(inverse)
        for feature, (column, changes) in zip(features, columns, strict=True):
            self._measure(feature, column, repeats, changes)
        return required([ROW, *(f.name for f in features)], [pa.array(numbers), *(column for column, _ in columns)])

    def samples(self, first_sample: int) -> pa.Table:
        """The samples: keys, labels, features of the group ``sample``, and a row number per group."""
        num_samples = self.taken.num_rows
        columns = {
            SAMPLE_ID: pa.array(np.arange(first_sample, first_sample + num_samples)),
            SESSION_ID: self._plain(SESSION),
            REQUEST_ID: self._plain(REQUEST),
            TIMESTAMP_COLUMN: self._plain(TIMESTAMP),
        }
        columns |= {label: self._plain(label) for label in self.form.schema.labels}
        ones = np.ones(num_samples, np.int64)
        for feature in self.form.schema.of_group("sample"):
            column = self._converted(self.taken[feature.name], feature, ones)
            self._measure(feature, column, ones, int((cluster.changed(column) & self.same_session).sum()))
            columns[feature.name] = column
        columns |= {f"{name}_{ROW}": pa.array(numbers) for name, numbers in self.row_numbers.items()}
        return required(columns, columns.values())

    def _compared(self, features: tuple[Feature, ...]) -> tuple[cluster.Flags, list[tuple[pa.Array, int]]]:
        """Rows of a group of the samples' columns, found by comparing neighbours."""
        ones = np.ones(self.taken.num_rows, np.int64)
        columns = [self._converted(self.taken[f.name], f, ones) for f in features]
        flags = [cluster.changed(column) for column in columns]
        rows = np.logical_or.reduce(flags)
        kept = pa.array(np.flatnonzero(rows))
        return rows, [
            (column.take(kept), int((flag & self.same_session).sum()))
            for column, flag in zip(columns, flags, strict=True)
        ]

    def _linked(self, name: str, features: tuple[Feature, ...]) -> tuple[cluster.Flags, list[tuple[pa.Array, int]]]:
        """Rows of a group with its own query: one where the key changes; only those are read."""
        place = self.taken[link(name)].to_numpy()
        rows = cluster.changed_numbers(place)
        table = self.form.lookups[name].take(place[rows])
        inside = self.same_session[rows]  # the change lies inside a session
        repeats = np.bincount(np.cumsum(rows) - 1)
        columns = []
        for feature in features:
            column = self._converted(table[feature.name], feature, repeats)
            columns.append((column, int((cluster.changed(column) & inside).sum())))
        return rows, columns

    def _converted(self, column: pa.ChunkedArray, feature: Feature, repeats: npt.NDArray[np.int64]) -> pa.Array:
        """A column as stored, its missing values counted once per sample that carries them."""
        array, num_missing = converted(column, feature.kind, self.form.types[feature.name])
        if num_missing:
            null = column.is_null().to_numpy().astype(bool)
            of_lists = num_missing - int(null.sum())
            self.result.features[feature.name].num_null += int(repeats[null].sum()) + of_lists
        return array

    def _measure(self, feature: Feature, column: pa.Array, repeats: npt.NDArray[np.int64], changes: int) -> None:
        self.result.features[feature.name].add(column, repeats, changes, int(self.same_session.sum()))
        if feature.table is not None:
            ids = column.values if pa.types.is_list(column.type) else column
            self.result.ids[feature.table].add(ids.to_numpy(zero_copy_only=False))

    def _plain(self, name: str) -> pa.Array:
        column = self.taken[name].combine_chunks()
        return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
