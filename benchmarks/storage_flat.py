"""What the clustered table is compared with: the same samples as flat Parquet files, written as well as can be.

Required columns and list elements, ids as narrow as the table's, zstd-3, row groups of 8192 samples, and for each
column the encoding that the table's own chooser finds on these rows.
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
        num_bytes: of the file.
        columns: bytes of the column chunks, by column.
        checksums: by column, of the values that were read back.
        num_rows: rows read back.
    """

    num_bytes: int
    columns: Counter[str]
    checksums: dict[str, int]
    num_rows: int


def in_time_order(raw: Raw) -> Iterator[pa.Table]:
    """Row groups of the samples as they were logged.

    Raises:
        SystemExit: the logs are in another order.
    """
    last = None
    for rows in _regrouped(b for f in files_of(raw.path) for b in pq.ParquetFile(f).iter_batches(ROW_GROUP)):
        place = rows.column_names.index("timestamp")
        times = rows["timestamp"].cast(pa.int64())
        numbers = times.to_numpy()
        if (numbers[1:] < numbers[:-1]).any() or (last is not None and numbers[0] < last):
            raise SystemExit(f"{raw.path}: not in time order")
        last = numbers[-1]
        yield _required(rows.set_column(place, "timestamp", times))


def clustered(table: Path) -> Iterator[pa.Table]:
    """Row groups of the samples in the table's order, each with its own copy of everything."""
    manifest = Manifest.load(table)
    names = [name for name in (*KEYS, *manifest.schema.labels) if name != SAMPLE_ID]
    names += [feature.name for feature in manifest.schema.features]
    columns = ", ".join(f'"{name}"' for name in names)

    def batches() -> Iterator[pa.RecordBatch]:
        with duckdb.connect() as connection:
            for part in manifest.parts:
                query = f"select {columns} from ({flat_view(table, parts=[part])}) order by {SAMPLE_ID}"
                yield from connection.sql(query).to_arrow_reader(ROW_GROUP)

    return (_required(rows) for rows in _regrouped(batches()))


def written(
    rows: Iterable[pa.Table],
    schema: Schema,
    scratch: Path,
    page_bytes: int = MIB,
    encoding: str = "",
    levels: bool = False,
) -> Flat:
    """Writes row groups as one flat file.

    Args:
        rows: a row group each.
        schema: of the features, for checksums.
        scratch: directory for the file.
        page_bytes: aim for a page.
        encoding: of every column that can have it; empty lets the table's chooser choose on the first row group.
        levels: let it choose levels of zstd too, instead of 3.
    """
    path, writer = scratch / "flat.parquet", None
    for group in rows:
        if writer is None:
            codec = "zstd" if levels else "zstd:3"
            chosen = (
                _everywhere(group.schema, encoding) if encoding else choose_encodings(group, ROW_GROUP, codec, levels)
            )
            writer = pq.ParquetWriter(str(path), group.schema, **_options(group.schema, chosen, page_bytes))
        writer.write_table(group, row_group_size=ROW_GROUP)
    if writer is None:
        raise SystemExit("no samples")
    writer.close()
    return read_back(path, schema)


def pyarrow_defaults(raw: Raw, schema: Schema, scratch: Path) -> Flat:
    """What ``pyarrow.parquet.write_table`` makes of the logs as they are, without options."""
    path = scratch / "pyarrow.parquet"
    pq.write_table(ds.dataset([str(file) for file in files_of(raw.path)]).to_table(), path)
    return read_back(path, schema)


def duckdb_defaults(raw: Raw, schema: Schema, scratch: Path) -> Flat:
    """What DuckDB's ``COPY ... TO`` makes of them, without options."""
    path = scratch / "duckdb.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"copy (select * from read_parquet('{raw.path}/part-*.parquet')) to '{path}'")
    return read_back(path, schema)


def read_back(path: Path, schema: Schema) -> Flat:
    """Sizes of a flat file and checksums of what is in it; removes it."""
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
    """Bytes of a file's column chunks, by column."""
    metadata, sizes = pq.read_metadata(path), Counter[str]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            sizes[chunk.path_in_schema.split(".")[0]] += chunk.total_compressed_size
    return sizes


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of 8192 rows, the last of fewer."""
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


def _required(rows: pa.Table) -> pa.Table:
    """A table whose columns and list elements cannot be null."""
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


def _everywhere(schema: pa.Schema, encoding: str) -> dict[str, str]:
    """One encoding for every column; PLAIN for what cannot have it."""
    found = {}
    for field in schema:
        element = field.type.value_type if pa.types.is_list(field.type) else field.type
        fits = encoding != "DELTA_BINARY_PACKED" or pa.types.is_integer(element)
        found[leaf(field)] = encoding if fits else "PLAIN"
    return found


def _options(schema: pa.Schema, chosen: dict[str, str], page_bytes: int) -> dict[str, Any]:
    """The table's own, but for the size of pages."""
    return writer_options(schema, chosen, "zstd:3") | {"data_page_size": page_bytes}
