"""EB-NeRD on disk: raw files, clustered table, and flat samples that each carry their user's history.

    python benchmarks/ebnerd_disk.py DIR [--quick] [--json FILE]       DIR: behaviors.parquet and history.parquet

The published baseline writes flat samples; its authors name 1 TB of disk for the full set (reczoo/RecSys2024_CTR_
Challenge, README). Here the same samples, with the same columns and values, are written in every form. The flat Parquet
files have required columns, zstd-3, and for each column the encoding that is smallest on its first 8192 rows; they are
written in time order and sorted by session, with pages of 1 MiB (pyarrow's default) and of 16 MiB. The CSV, with lists
joined by `^`, is not written: DuckDB computes its size as the sum of its fields' lengths, separators included.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.job.config import EtlConfig, load
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import KEYS, SAMPLE, Kind

NUM_SAMPLES = 8192
"""The number of samples in a row group, as in the table."""

MIB = 2.0**20


def write_clustered(
    raw: Path, out: Path, compression: str, where: str = "true", windows: bool = True
) -> dict[str, Manifest]:
    """Writes the clustered table of both splits.

    Args:
        raw: the directory of the two published files.
        out: the directory to make.
        compression: ``zstd`` or ``lz4``.
        where: an SQL predicate that chooses the samples.
        windows: whether histories that shift are stored as windows; flat files need a table where every row has its
            lists.
    """
    config: EtlConfig = load("etl", ["data=ebnerd", f"data.path={raw}"])
    data = config.data
    samples = f"select * from ({data.samples}) where {where}"
    features = data.features if windows else data.features | {"recent_article": {"table": "article", "window": False}}
    source = Source.from_dict(
        {
            "name": data.name,
            "path": data.path,
            "samples": samples,
            "keys": {name: column for name, column in asdict(data.keys).items() if column},
            "labels": data.labels,
            "split": data.split,
            "groups": data.groups,
            "features": features,
            "drop": data.drop,
        }
    )
    return etl(source, out, compression=compression, progress=False)


def flat_row_groups(table: Path, manifest: Manifest, in_time_order: bool) -> Iterator[pa.Table]:
    """The flat samples of a table, 8192 at a time, where every row has its own copy of everything."""
    schema = manifest.schema
    samples = pq.read_table(table / "samples")
    rows = {g: pq.read_table(table / g) for g in schema.dedup_groups}
    order = np.arange(len(samples))
    if in_time_order:
        order = np.lexsort([samples[k].to_numpy() for k in ("sample_id", "request_id", "timestamp")])
    places = {g: np.searchsorted(rows[g]["row"].to_numpy(), samples[f"{g}_row"].to_numpy()) for g in rows}
    for start in range(0, len(order), NUM_SAMPLES):
        picked = order[start : start + NUM_SAMPLES]
        columns = {name: samples[name].take(pa.array(picked)) for name in (*KEYS, *schema.labels)}
        for feature in schema.features:
            own = feature.group == SAMPLE
            column = samples[feature.name] if own else rows[feature.group][feature.name]
            columns[feature.name] = column.take(pa.array(picked if own else places[feature.group][picked]))
        yield _forbid_nulls(columns)


def _forbid_nulls(columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """A table whose columns and list elements cannot be null, which is the fastest to read and the smallest."""
    fields, arrays = [], []
    for name, column in columns.items():
        array = column.combine_chunks()
        if pa.types.is_list(array.type):
            element = pa.field("element", array.type.value_type, nullable=False)
            array = pa.ListArray.from_arrays(array.offsets, array.values, pa.list_(element))
        fields.append(pa.field(name, array.type, nullable=False))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _options(encodings: dict[str, str], page_bytes: int) -> dict[str, Any]:
    return {
        "compression": "zstd",
        "compression_level": 3,
        "data_page_size": page_bytes,
        "use_dictionary": [leaf for leaf, encoding in encodings.items() if encoding == "RLE_DICTIONARY"],
        "column_encoding": {leaf: e for leaf, e in encodings.items() if e != "RLE_DICTIONARY"},
        "store_schema": False,
    }


def _best_encodings(first: pa.Table, page_bytes: int) -> dict[str, str]:
    """For each column the encoding that makes it smallest, on one row group."""
    chosen = {}
    for field in first.schema:
        leaf = f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        sizes = {}
        for encoding in ("PLAIN", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"):
            if encoding == "DELTA_BINARY_PACKED" and "float" in str(field.type):
                continue
            sink = pa.BufferOutputStream()
            pq.write_table(first.select([field.name]), sink, **_options({leaf: encoding}, page_bytes))
            sizes[encoding] = sink.getvalue().size
        chosen[leaf] = min(sizes, key=lambda encoding: sizes[encoding])
    return chosen


def flat_parquet_bytes(tables: dict[Path, Manifest], in_time_order: bool, page_bytes: int) -> int:
    """The size of the flat samples as Parquet, in one file per split, which is removed at once."""
    total = 0
    for table, manifest in tables.items():
        with tempfile.NamedTemporaryFile(suffix=".parquet", dir=table.parent) as file:
            writer = None
            for rows in flat_row_groups(table, manifest, in_time_order):
                if writer is None:
                    options = _options(_best_encodings(rows, page_bytes), page_bytes)
                    writer = pq.ParquetWriter(file.name, rows.schema, **options)
                writer.write_table(rows, row_group_size=NUM_SAMPLES)
            if writer is not None:
                writer.close()
            total += Path(file.name).stat().st_size
    return total


def csv_bytes(tables: dict[Path, Manifest]) -> int:
    """The size of the flat samples as CSV with a header per split; the text of a stored row is measured once."""
    total = 0
    for table, manifest in tables.items():
        schema = manifest.schema
        names = (*KEYS, *schema.labels, *(f.name for f in schema.features))
        total += len(",".join(names)) + 1 + manifest.num_samples * len(names)  # separators and line ends
        lengths = {g: [_text_length(f.name, f.kind) for f in schema.of_group(g)] for g in schema.groups}
        own = [*(_text_length(name, Kind.id) for name in (*KEYS, *schema.labels)), *lengths[SAMPLE]]
        joins, counted = "", [f"sum({' + '.join(own)})"]
        for group in schema.dedup_groups:
            length = " + ".join(lengths[group])
            files = f"read_parquet('{table / group}/*.parquet')"
            joins += f' join (select "row", {length} as num_bytes from {files}) as "{group}_text"'
            joins += f' on "{group}_text"."row" = samples."{group}_row"'
            counted.append(f'sum("{group}_text".num_bytes)')
        query = f"select {' + '.join(counted)} from read_parquet('{table}/samples/*.parquet') as samples {joins}"
        total += int(duckdb.sql(query).fetchall()[0][0])
    return total


def _text_length(name: str, kind: Kind) -> str:
    """SQL for the number of bytes of a field; lists are written as 1^2^3."""
    column = f'"{name}"'
    text = f"array_to_string({column}, '^')" if kind is Kind.ids else f"{column}::varchar"
    return f"strlen({text})"


def _directory_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def measure_forms(raw: Path, work: Path, quick: bool) -> tuple[dict[str, int], int]:
    """Measures every form; returns the bytes by form, and the number of samples."""
    where = "impression_id % 8 = 0" if quick else "true"
    manifests = write_clustered(raw, work / "zstd", "zstd", where)
    write_clustered(raw, work / "lz4", "lz4", where)
    rows = write_clustered(raw, work / "rows", "zstd", where, windows=False)
    tables = {work / "rows" / split: manifest for split, manifest in rows.items()}
    sizes = {
        "raw files": sum((raw / f).stat().st_size for f in ("behaviors.parquet", "history.parquet")),
        "clustered table, zstd": _directory_bytes(work / "zstd"),
        "clustered table, lz4": _directory_bytes(work / "lz4"),
        "flat CSV": csv_bytes(tables),
    }
    for order, in_time_order in (("in time order", True), ("sorted by session", False)):
        for pages in (1, 16):
            name = f"flat Parquet, {order}, pages of {pages} MiB"
            sizes[name] = flat_parquet_bytes(tables, in_time_order, int(pages * MIB))
    return sizes, sum(m.num_samples for m in manifests.values())


def main() -> int:
    """Prints a table, and writes the claims with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", nargs="?", type=Path, help="directory of behaviors.parquet and history.parquet")
    parser.add_argument("--quick", action="store_true", help="one impression in eight (its raw files stay whole)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.raw is None:
        sys.stderr.write("ebnerd_disk: skipped; it needs EB-NeRD: python benchmarks/ebnerd_disk.py DIR\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="ebnerd_disk_") as work:
        sizes, num_samples = measure_forms(options.raw, Path(work), options.quick)
    ours = sizes["clustered table, zstd"]
    print(f"{num_samples:,} samples\n{'':44}{'MB':>10}{'bytes/sample':>14}{'/ table, zstd':>15}")
    for name, num_bytes in sizes.items():
        print(f"{name:44}{num_bytes / 1e6:10.1f}{num_bytes / num_samples:14.1f}{num_bytes / ours:14.2f}x")
    if options.json:
        claims = []
        for codec in ("zstd", "lz4"):
            for name, num_bytes in sizes.items():
                if name.startswith("flat"):
                    value = num_bytes / sizes[f"clustered table, {codec}"]
                    config = {"num_samples": num_samples, "quick": options.quick, "bytes": sizes}
                    claims.append(
                        {"claim": f"ebnerd_disk.{codec}", "value": value, "low": value, "high": value}
                        | {"baseline": name, "unit": "x", "config": config}
                    )
        options.json.write_text(json.dumps(claims, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
