"""What a clustered table takes on disk: the footers of its files, the weight of its splits and of its raw logs."""

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


def opened(table: Location, entry: FileEntry) -> pq.ParquetFile:
    """A Parquet file of the table.

    Raises:
        DataError: it is missing or cut off.
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
    """Of a group's files: compressed bytes and bytes per value, by column.

    Starts and lengths of a feature's windows, and its weights, count as the feature's.
    """

    num_bytes: dict[str, int]
    widths: dict[str, int]

    @staticmethod
    def of(table: Location, manifest: Manifest, group: str) -> "Footer":
        """Reads the footers of a group's files."""
        num_bytes: dict[str, int] = {}
        widths: dict[str, int] = {}
        owner = _owners(manifest, group)
        entries = [part.samples if group == SAMPLE else part.groups[group] for part in manifest.parts]
        entries += [part.streams[group] for part in manifest.parts if group in part.streams]
        for entry in entries:
            with opened(table, entry) as file:
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
    """The feature of each column that is stored beside it."""
    owners: dict[str, str] = {}
    for f in manifest.schema.of_group(group):
        owners |= {f.weights: f.name} if f.weights else {}
        owners |= {start_of(f.name): f.name, length_of(f.name): f.name} if f.window else {}
    return owners


def table_bytes(table: Location, manifest: Manifest) -> int:
    """Bytes of all splits of the table: its neighbours of the same name."""
    table = table.resolve()
    others = (table.parent / name for name in splits_of(table.parent) if name != table.name)
    loaded = [m for m in map(Manifest.load, others) if m.name == manifest.name]
    return manifest.num_bytes + sum(m.num_bytes for m in loaded)


def raw_bytes(manifest: Manifest) -> int | None:
    """Bytes of the raw files, if the source's path still leads to some on this machine."""
    path = str(manifest.source.get("path") or "")
    if not path or "://" in path:
        return None
    files = [f for f in _raw_files(Path(path).expanduser()) if f.name.endswith(_RAW_SUFFIXES)]
    return sum(f.stat().st_size for f in files) or None


def _raw_files(path: Path) -> Iterator[Path]:
    """Files that a path names: itself, those below a directory, or those that a glob matches."""
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (p for p in path.rglob("*") if p.is_file())
    elif set(str(path)) & set("*?["):
        root = Path(path.anchor)
        yield from (p for p in root.glob(str(path.relative_to(root))) if p.is_file())
