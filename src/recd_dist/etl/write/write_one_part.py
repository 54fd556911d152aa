"""Writes one part of a table, group by group, from the samples of one shard.

One group at a time is in memory: first its rows over the whole part (or, if it has its own query, over one row group),
then its file, row group by row group. The samples come last, since they refer to the rows of every group.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.etl.write.history_windows import Streams
from recd_dist.etl.write.part_files import PART_SHIFT, PartWriter
from recd_dist.etl.write.part_result import PartResult
from recd_dist.etl.write.row_groups import Samples
from recd_dist.etl.write.stored_rows import StoredRows
from recd_dist.etl.write.stored_tables import find_rows, find_streams, group_tables, sample_table
from recd_dist.etl.write.table_form import TableForm
from recd_dist.table.flat_columns import Order
from recd_dist.table.schema import SAMPLE, Feature, Schema


def write_part(
    shard: pa.Table,
    order: Order,
    form: TableForm,
    table: Path,
    number: int,
    first_sample: int,
    done: Callable[[int], None],
    partition: str = "",
) -> PartResult:
    """Writes the files of one part.

    Args:
        shard: normalised samples, in any order.
        order: int64 [N], rows of the shard in clustered order.
        form: what every part of the table has in common.
        table: directory of the table.
        number: the number of the part.
        first_sample: ``sample_id`` of the part's first sample.
        done: called with the number of samples of each row group that has been written.
        partition: the partition that the part belongs to; empty where the table has none.

    Raises:
        DataError: a single id is missing, or a list of weights is not as long as its list of ids.
    """
    samples = Samples.of(shard, order, form.row_group_samples)
    sums = _Sums.over(form.schema)
    writer = PartWriter(table, number, form.compression, form.encodings, form.readable_by)
    row_numbers = {group: _write_group(writer, samples, form, group, sums) for group in form.schema.dedup_groups}
    rows = find_rows(samples, form, SAMPLE)
    sums.add(form.schema.of_group(SAMPLE), rows, None, samples)
    sums.add_labels(form.schema, samples)
    writer.write("samples", sample_table(samples, rows, form, row_numbers, first_sample), samples.bounds, done)
    part = replace(
        writer.close(),
        partition=partition,
        num_sessions=int(samples.new_session.sum()),
        num_requests=int(samples.new_request.sum()),
        first_sample=first_sample,
    )
    return PartResult(part, sums.features, sums.ids)


def _write_group(writer: PartWriter, samples: Samples, form: TableForm, group: str, sums: "_Sums") -> Order:
    """Writes the rows of a group; returns the row of each sample, int64 [N], numbered in the whole table.

    A group with its own query is written row group by row group: its rows do not lie in the shard, whose bytes are
    bounded, and they may be much longer than the samples that refer to them.
    """
    row_numbers, num_rows, num_streams = [], 0, 0
    for some in samples.row_groups() if group in form.lookups else [samples]:
        rows = find_rows(some, form, group)
        first_row = (writer.number << PART_SHIFT) + num_rows
        row_numbers.append(rows.inverse + first_row)
        num_rows += len(rows.repeats)
        streams = find_streams(rows, form, group)
        sums.add(form.schema.of_group(group), rows, streams, some)
        first_stream = (writer.number << PART_SHIFT) + num_streams
        for directory, (stored, bounds) in group_tables(rows, streams, form, group, first_row, first_stream).items():
            writer.write(directory, stored, bounds)
        num_streams += 0 if streams is None else int(streams.bounds[-1])
    return np.concatenate([np.empty(0, np.int64), *row_numbers])


@dataclass
class _Sums:
    """What is measured of a part while it is written.

    Attributes:
        features: the sums of each feature and label.
        ids: the distinct ids of each embedding table.
    """

    features: dict[str, FeatureSums]
    ids: dict[str, DistinctIds]

    @staticmethod
    def over(schema: Schema) -> "_Sums":
        return _Sums(
            {f.name: FeatureSums() for f in schema.features},
            {name: DistinctIds() for name in schema.tables},
        )

    def add_labels(self, schema: Schema, samples: Samples) -> None:
        for label in schema.labels if len(samples) else ():
            self.features[label] = sums = FeatureSums()
            values = samples.key(label).astype(np.float64)
            known = values[~np.isnan(values)]
            sums.num_null = len(values) - len(known)
            if len(known):
                sums.add_numbers(known, np.ones(len(known), np.int64))

    def add(self, features: tuple[Feature, ...], rows: StoredRows, streams: Streams | None, samples: Samples) -> None:
        num_pairs = int(samples.pairs.sum())
        for f in features:
            sums = self.features[f.name]
            sums.num_null += rows.missing[f.name]
            sums.add(rows.columns[f.name], rows.repeats, rows.changes[f.name], num_pairs)
            if f.table is not None:  # a stream holds every id that its windows hold, and fewer repeats
                columns = streams.lists if streams is not None and f.window else rows.columns
                self.ids[f.table].add(columns[f.name].values)
