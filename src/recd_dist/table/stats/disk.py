"""Bytes on disk of a table's columns, of all its splits, and of its raw logs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.table.location import Location, arrow_input, file_size, report_store_errors
from recd_dist.table.manifest import FileEntry, Manifest, length_of, splits_of, start_of
from recd_dist.table.schema import SAMPLE

_RAW_SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".gz", ".zst")


def open_file(table: Location, entry: FileEntry) -> pq.ParquetFile:
    """Opens a Parquet file of a table.

    Args:
        table: the directory of the table.
        entry: the file's entry in the manifest.

    Raises:
        DataError: the file is missing or cut off.
    """
    path = table / entry.path
    size = file_size(path)
    if size is None:
        raise DataError(f"{path}: missing, though the manifest names it; make the table again with `recd etl`")
    try:
        with report_store_errors(path):
            return pq.ParquetFile(arrow_input(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: not readable as Parquet ({size} bytes, {entry.num_bytes} were written): "
            f"{str(error).splitlines()[0]}; make the table again with `recd etl`"
        ) from error


@dataclass(frozen=True)
class Footer:
    """What the footers of a group's files say about each column.

    Starts and lengths of a feature's windows, and its weights, count as bytes of the feature.

    Attributes:
        num_bytes: column -> compressed bytes on disk.
        widths: column -> bytes of one value, 4 or 8.
    """

    num_bytes: dict[str, int]
    widths: dict[str, int]

    @staticmethod
    def read(table: Location, manifest: Manifest, group: str) -> "Footer":
        """Reads the footers of a group's files.

        Raises:
            DataError: a file is missing or cut off.
        """
        num_bytes: dict[str, int] = {}
        widths: dict[str, int] = {}
        owner = _owners(manifest, group)
        entries = [part.samples if group == SAMPLE else part.groups[group] for part in manifest.parts]
        entries += [part.streams[group] for part in manifest.parts if group in part.streams]
        for entry in entries:
            with open_file(table, entry) as file:
                metadata = file.metadata
            for i in range(metadata.num_row_groups):
                for j in range(metadata.num_columns):
                    column = metadata.row_group(i).column(j)
                    stored = column.path_in_schema.split(".")[0]
                    name = owner.get(stored, stored)
                    num_bytes[name] = num_bytes.get(name, 0) + column.total_compressed_size
                    if name == stored:
                        widths[name] = 8 if column.physical_type in ("INT64", "DOUBLE") else 4
        return Footer(num_bytes, widths)


def _owners(manifest: Manifest, group: str) -> dict[str, str]:
    """For each column of weights, starts or lengths the feature that it belongs to."""
    owners: dict[str, str] = {}
    for f in manifest.schema.of_group(group):
        owners |= {f.weights: f.name} if f.weights else {}
        owners |= {start_of(f.name): f.name, length_of(f.name): f.name} if f.window else {}
    return owners


def table_bytes(table: Location, manifest: Manifest) -> int:
    """Bytes of all splits of a table: of the tables beside it that have its name."""
    table = table.resolve()
    others = (table.parent / name for name in splits_of(table.parent) if name != table.name)
    loaded = [m for m in map(Manifest.load, others) if m.name == manifest.name]
    return manifest.num_bytes + sum(m.num_bytes for m in loaded)


def raw_bytes(manifest: Manifest) -> int | None:
    """Bytes of the raw files that a table was made from; None where nothing is known of them.

    The manifest names the files of the samples, of all runs that added to the table. What only a group's own query has
    read is looked for under the path of the source.
    """
    sizes = {file.path: file.num_bytes for file in manifest.raw_files}
    path = str(manifest.source.get("path") or "")
    if path and "://" not in path:
        files = [f for f in _raw_files(Path(path).expanduser()) if f.name.endswith(_RAW_SUFFIXES)]
        sizes |= {os.path.abspath(f): f.stat().st_size for f in files}
    return sum(sizes.values()) or None


def _raw_files(path: Path) -> Iterator[Path]:
    """The files that a path stands for: a file, all files below a directory, or all that a glob matches."""
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (p for p in path.rglob("*") if p.is_file())
    elif set(str(path)) & set("*?["):
        root = Path(path.anchor)
        yield from (p for p in root.glob(str(path.relative_to(root))) if p.is_file())
