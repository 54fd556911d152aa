"""The same samples as flat Parquet files, to compare the clustered table with.

The files are written as well as can be: columns and list elements are required, ids are as narrow as the table's, row
groups have 8192 samples, the compression is zstd-3, and each column has the encoding that the table's own chooser takes
on these rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rm1 import Raw, files_of

from recd_dist.etl.checksum.row_hashes import column_checksum, row_hashes
from recd_dist.etl.write.column_encodings import choose_encodings, leaf, writer_options
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import KEYS, SAMPLE_ID, Kind, Schema

ROW_GROUP = 8192
MIB = 1 << 20
ENCODINGS = ("PLAIN", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED")


@dataclass(frozen=True)
class Flat:
    """A flat file that was written, read back and removed.

    Attributes:
        num_bytes: the size of the file.
        columns: the size of the column chunks in bytes, by column.
        checksums: checksums of the values that were read back, by column.
        num_rows: the number of rows that were read back.
    """

    num_bytes: int
    columns: Counter[str]
    checksums: dict[str, int]
    num_rows: int


def in_time_order(raw: Raw) -> Iterator[pa.Table]:
    """The row groups of the samples in the order of the logs.

    Raises:
        SystemExit: the logs are not in time order.
    """
    last = None
    for rows in _regroup(b for f in files_of(raw.path) for b in pq.ParquetFile(f).iter_batches(ROW_GROUP)):
        place = rows.column_names.index("timestamp")
        times = rows["timestamp"].cast(pa.int64())
        numbers = times.to_numpy()
        if (numbers[1:] < numbers[:-1]).any() or (last is not None and numbers[0] < last):
            raise SystemExit(f"{raw.path}: not in time order")
        last = numbers[-1]
        yield _forbid_nulls(rows.set_column(place, "timestamp", times))


def in_table_order(table: Path) -> Iterator[pa.Table]:
    """The row groups of the samples in the table's order, where each sample has its own copy of everything."""
    manifest = Manifest.load(table)
    names = [name for name in (*KEYS, *manifest.schema.labels) if name != SAMPLE_ID]
    names += [feature.name for feature in manifest.schema.features]
    columns = ", ".join(f'"{name}"' for name in names)

    def batches() -> Iterator[pa.RecordBatch]:
        with duckdb.connect() as connection:
            for part in manifest.parts:
                query = f"select {columns} from ({flat_view(table, parts=[part])}) order by {SAMPLE_ID}"
                yield from connection.sql(query).to_arrow_reader(ROW_GROUP)

    return (_forbid_nulls(rows) for rows in _regroup(batches()))


def write_flat(
    rows: Iterable[pa.Table],
    schema: Schema,
    scratch: Path,
    page_bytes: int = MIB,
    encoding: str = "",
    levels: bool = False,
) -> Flat:
    """Writes row groups as one flat file, reads it back and removes it.

    Args:
        rows: the row groups.
        schema: the schema of the features, for checksums.
        scratch: a directory for the file.
        page_bytes: the size of a page to aim for.
        encoding: the encoding of every column that can have it; empty lets the table's chooser choose on the first row
            group.
        levels: whether the chooser chooses levels of zstd too, instead of level 3.
    """
    path, writer = scratch / "flat.parquet", None
    for group in rows:
        if writer is None:
            codec = "zstd" if levels else "zstd:3"
            chosen = (
                _one_encoding(group.schema, encoding) if encoding else choose_encodings(group, ROW_GROUP, codec, levels)
            )
            writer = pq.ParquetWriter(str(path), group.schema, **_options(group.schema, chosen, page_bytes))
        writer.write_table(group, row_group_size=ROW_GROUP)
    if writer is None:
        raise SystemExit("no samples")
    writer.close()
    return read_back(path, schema)


def pyarrow_defaults(raw: Raw, schema: Schema, scratch: Path) -> Flat:
    """Writes the logs as they are with ``pyarrow.parquet.write_table`` without options."""
    path = scratch / "pyarrow.parquet"
    pq.write_table(ds.dataset([str(file) for file in files_of(raw.path)]).to_table(), path)
    return read_back(path, schema)


def duckdb_defaults(raw: Raw, schema: Schema, scratch: Path) -> Flat:
    """Writes the logs as they are with DuckDB's ``COPY ... TO`` without options."""
    path = scratch / "duckdb.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"copy (select * from read_parquet('{raw.path}/part-*.parquet')) to '{path}'")
    return read_back(path, schema)


def read_back(path: Path, schema: Schema) -> Flat:
    """Measures a flat file and the checksums of its values, and removes the file."""
    file = pq.ParquetFile(path)
    kinds = dict.fromkeys(schema.labels, Kind.dense) | {f.name: f.kind for f in schema.features}
    checksums: Counter[str] = Counter()
    for batch in file.iter_batches(ROW_GROUP):
        for name in batch.schema.names:
            column = batch.column(name)
            column = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            checksums[name] += column_checksum(row_hashes(column, kinds.get(name, Kind.id)))
    num_rows, num_bytes, columns = file.metadata.num_rows, path.stat().st_size, column_bytes(path)
    file.close()
    path.unlink()
    return Flat(num_bytes, columns, {name: value % 2**64 for name, value in checksums.items()}, num_rows)


def column_bytes(path: Path) -> Counter[str]:
    """The size of a file's column chunks in bytes, by column."""
    metadata, sizes = pq.read_metadata(path), Counter[str]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for number_of_column in range(group.num_columns):
            chunk = group.column(number_of_column)
            sizes[chunk.path_in_schema.split(".")[0]] += chunk.total_compressed_size
    return sizes


def _regroup(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Cuts batches into tables of 8192 rows; the last one may have fewer."""
    waiting: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        waiting.append(batch)
        num_rows += batch.num_rows
        while num_rows >= ROW_GROUP:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, ROW_GROUP).combine_chunks()
            waiting = table.slice(ROW_GROUP).to_batches()
            num_rows -= ROW_GROUP
    if num_rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _forbid_nulls(rows: pa.Table) -> pa.Table:
    """The table with columns and list elements that cannot be null."""
    fields, arrays = [], []
    for name in rows.column_names:
        array = rows[name].combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        if pa.types.is_list(array.type):
            element = pa.field("element", array.type.value_type, nullable=False)
            array = pa.ListArray.from_arrays(array.offsets, array.values, pa.list_(element))
        fields.append(pa.field(name, array.type, nullable=False))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _one_encoding(schema: pa.Schema, encoding: str) -> dict[str, str]:
    """One encoding for every column; PLAIN for the columns that cannot have it."""
    encoding_of = {}
    for field in schema:
        element = field.type.value_type if pa.types.is_list(field.type) else field.type
        fits = encoding != "DELTA_BINARY_PACKED" or pa.types.is_integer(element)
        encoding_of[leaf(field)] = encoding if fits else "PLAIN"
    return encoding_of


def _options(schema: pa.Schema, chosen: dict[str, str], page_bytes: int) -> dict[str, Any]:
    """The writer options of the clustered table, with another page size."""
    return writer_options(schema, chosen, "zstd:3") | {"data_page_size": page_bytes}
