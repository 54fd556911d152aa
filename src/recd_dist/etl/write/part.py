"""One shard of one split becomes one part: sorted, compared with the neighbour, written group by group.

One group at a time is in memory: its unique rows over the whole part (or, with its own query, over one row group), then
its file, row group by row group. The samples come last, as they refer to the rows of every group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.deal.lookup import Lookup
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write import cluster
from recd_dist.etl.write.flat_columns import to_arrow, whole
from recd_dist.etl.write.group_rows import GroupRows, Samples, compared, every, linked
from recd_dist.etl.write.history_windows import Streams, streamed
from recd_dist.etl.write.measure import Distinct, Measured
from recd_dist.etl.write.parquet import PART_SHIFT, PartWriter, required
from recd_dist.etl.write.stored_types import WEIGHTS
from recd_dist.table.column import Column
from recd_dist.table.manifest import ROW, STREAM, Part, length_of, start_of, stream_directory
from recd_dist.table.schema import REQUEST_ID, SAMPLE, SAMPLE_ID, SESSION_ID, Feature, Schema
from recd_dist.table.schema import TIMESTAMP as TIMESTAMP_COLUMN

Order = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """What every part of a table has in common.

    Attributes:
        schema: final: single ids that can be missing are lists, automatic groups are named, windows are chosen.
        types: stored type per feature.
        lookups: of the groups with their own query.
        row_group_samples: the aim for a row group.
        compression: ``zstd``, ``lz4``, or one level of these, ``zstd:6``.
        encodings: per directory the encoding of each column's leaf; what is absent is tried on each part's first rows.
    """

    schema: Schema
    types: dict[str, pa.DataType]
    lookups: dict[str, Lookup]
    row_group_samples: int
    compression: str
    encodings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass
class Result:
    """A written part and what was measured on the way.

    Attributes:
        num_samples, num_sessions, num_requests: counts.
        group_rows: unique rows per group.
        features: per feature.
        ids: per embedding table.
        parts: the files.
        num_cut: sessions that were too long for a row group and were cut.
    """

    num_samples: int = 0
    num_sessions: int = 0
    num_requests: int = 0
    group_rows: dict[str, int] = field(default_factory=dict)
    features: dict[str, Measured] = field(default_factory=dict)
    ids: dict[str, Distinct] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    num_cut: int = 0

    def described(self, partition: str, first_sample: int) -> "Result":
        """The same, its one part told what it is."""
        part = replace(self.parts[0], partition=partition, first_sample=first_sample)
        self.parts = [replace(part, num_sessions=self.num_sessions, num_requests=self.num_requests)]
        return self

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Result.from_json`` is its inverse."""
        return {
            "num_samples": self.num_samples,
            "num_sessions": self.num_sessions,
            "num_requests": self.num_requests,
            "num_cut": self.num_cut,
            "group_rows": self.group_rows,
            "features": {name: measured.to_json() for name, measured in self.features.items()},
            "ids": {table: distinct.to_json() for table, distinct in self.ids.items()},
            "parts": [part.to_json() for part in self.parts],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Result":
        """What ``to_json`` wrote."""
        return Result(
            num_samples=value["num_samples"],
            num_sessions=value["num_sessions"],
            num_requests=value["num_requests"],
            num_cut=value["num_cut"],
            group_rows=dict(value["group_rows"]),
            features={name: Measured.from_json(measured) for name, measured in value["features"].items()},
            ids={table: Distinct.from_json(distinct) for table, distinct in value["ids"].items()},
            parts=[Part.from_json(part) for part in value["parts"]],
        )


def written(
    shard: pa.Table,
    order: Order,
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

    Raises:
        DataError: ids that are missing where none may be, weights of another length than their ids.
    """
    samples, num_cut = clustered(shard, order, form.row_group_samples)
    result = Result(
        num_samples=len(samples),
        num_sessions=int(samples.new_session.sum()),
        num_requests=int(samples.new_request.sum()),
        group_rows=dict.fromkeys(form.schema.dedup_groups, 0),
        features={f.name: Measured() for f in form.schema.features},
        ids={name: Distinct() for name in form.schema.tables},
        num_cut=num_cut,
    )
    writer = PartWriter(table, number, form.compression, form.encodings)
    numbers = {group: _write_group(writer, samples, form, group, result) for group in form.schema.dedup_groups}
    rows = group_rows(samples, form, SAMPLE)
    _measure(rows, None, samples, form.schema.of_group(SAMPLE), result)
    writer.write("samples", sample_table(samples, rows, form, numbers, first_sample), samples.bounds, done)
    result.parts.append(replace(writer.close(), number=number))
    return result


def _write_group(writer: PartWriter, samples: Samples, form: Form, group: str, result: Result) -> Order:
    """Writes the rows of a group; returns the row of each sample, int64 [N].

    A group with its own query is written row group by row group: its rows are no part of the shard, whose bytes are
    bounded, and may be much longer than the samples that refer to them.
    """
    numbers, num_streams = [], 0
    for some in samples.row_groups() if group in form.lookups else [samples]:
        rows = group_rows(some, form, group)
        first = (writer.number << PART_SHIFT) + result.group_rows[group]
        numbers.append(rows.inverse + first)
        result.group_rows[group] += len(rows.repeats)
        streams = group_streams(rows, form, group)
        _measure(rows, streams, some, form.schema.of_group(group), result)
        tables = group_tables(rows, streams, form, group, first, (writer.number << PART_SHIFT) + num_streams)
        for directory, (stored, bounds) in tables.items():
            writer.write(directory, stored, bounds)
        num_streams += 0 if streams is None else int(streams.bounds[-1])
    return np.concatenate([np.empty(0, np.int64), *numbers])


def clustered(shard: pa.Table, order: Order, row_group_samples: int) -> tuple[Samples, int]:
    """The samples of a part dealt into row groups, and the number of sessions that had to be cut."""
    bounds, num_cut = cluster.row_group_bounds(whole(shard[SESSION]).to_numpy()[order], row_group_samples)
    return Samples(shard, order, bounds), num_cut


def group_rows(samples: Samples, form: Form, group: str) -> GroupRows:
    """Unique rows of a group, or every row of the group ``sample``."""
    features = form.schema.of_group(group)
    if group == SAMPLE:
        return every(samples, features, form.types)
    if group in form.lookups:
        return linked(samples, group, features, form.types, form.lookups[group])
    return compared(samples, features, form.types)


def group_streams(rows: GroupRows, form: Form, group: str) -> Streams | None:
    """Streams of a group's windowed features, if it has some."""
    windowed = {f.name: rows.columns[f.name] for f in form.schema.of_group(group) if f.window}
    return streamed(windowed, rows.bounds) if windowed else None


def group_tables(
    rows: GroupRows, streams: Streams | None, form: Form, group: str, first_row: int = 0, first_stream: int = 0
) -> dict[str, tuple[pa.Table, Order]]:
    """What a part stores of a group: per directory a table and the bounds of its row groups."""
    columns = {ROW: pa.array(np.arange(len(rows.repeats)) + first_row)}
    lists = {}
    if streams is not None:
        columns[STREAM] = pa.array(streams.stream + first_stream)
        lists[STREAM] = pa.array(np.arange(int(streams.bounds[-1])) + first_stream)
    for f in form.schema.of_group(group):
        if streams is not None and f.window:
            lists |= _named(f, streams.lists[f.name], form)
            columns[start_of(f.name)] = pa.array(streams.starts[f.name])
            columns[length_of(f.name)] = pa.array(rows.columns[f.name].lengths.astype(np.int32))
        else:
            columns |= _named(f, rows.columns[f.name], form)
    found = {group: (required(columns, columns.values()), rows.bounds)}
    if streams is not None:
        found[stream_directory(group)] = (required(lists, lists.values()), streams.bounds)
    return found


def sample_table(
    samples: Samples, rows: GroupRows, form: Form, numbers: dict[str, Order], first_sample: int
) -> pa.Table:
    """The samples: keys, labels, features of the group ``sample``, and a row number per group."""
    columns = {SAMPLE_ID: pa.array(np.arange(first_sample, first_sample + len(samples)))}
    keys = {SESSION_ID: SESSION, REQUEST_ID: REQUEST, TIMESTAMP_COLUMN: TIMESTAMP}
    columns |= {name: pa.array(samples.key(key)) for name, key in keys.items()}
    columns |= {label: pa.array(samples.key(label), pa.float32()) for label in form.schema.labels}
    for f in form.schema.of_group(SAMPLE):
        columns |= _named(f, rows.columns[f.name], form)
    columns |= {f"{group}_{ROW}": pa.array(row) for group, row in numbers.items()}
    return required(columns, columns.values())


def _named(feature: Feature, column: Column, form: Form) -> dict[str, pa.Array]:
    """The column, or the two columns, that a feature is stored as."""
    names = [feature.name] if feature.weights is None else [feature.name, feature.weights]
    return dict(zip(names, to_arrow(column, form.types[feature.name], WEIGHTS), strict=True))


def _measure(
    rows: GroupRows, streams: Streams | None, samples: Samples, features: tuple[Feature, ...], result: Result
) -> None:
    num_pairs = int(samples.pairs.sum())
    for f in features:
        measured = result.features[f.name]
        measured.num_null += rows.missing[f.name]
        measured.add(rows.columns[f.name], rows.repeats, rows.changes[f.name], num_pairs)
        if f.table is not None:  # a stream holds the ids that its windows hold
            values = (streams.lists if streams is not None and f.window else rows.columns)[f.name].values
            result.ids[f.table].add(values)
