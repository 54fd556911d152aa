"""The data files of a snapshot of an Iceberg or Delta table, as the table's own library lists them.

::

    clicks/_delta_log/                    deltalake   version 7: clicks/part-0001.parquet, clicks/part-0004.parquet
    clicks/metadata/v3.metadata.json      pyiceberg   snapshot 5721...: clicks/data/00000-....parquet

Files that the log no longer names are not read. A snapshot with rows that are deleted inside files (deletion vectors,
delete files) is refused: its files alone would bring those rows back.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.raw.found_files import FoundFile, find_files
from recd_dist.etl.raw.table_formats import ForeignTable, foreign_table, newest_metadata
from recd_dist.table.location import first_line, is_remote, location

logger = logging.getLogger(__name__)

_THREADS = 8
_COMPACT = "; compact the table with the engine that made it, or read it with `recd etl` and data.reader=table"


def snapshot_files(path: str, snapshot: str | None = None) -> tuple[FoundFile, ...] | None:
    """The data files of a table of another format.

    Args:
        path: what ``data.path`` names.
        snapshot: the snapshot of an Iceberg table, or the version of a Delta table; None for the newest.

    Returns:
        The files, in order of their names; None where the path is no such table.

    Raises:
        ConfigError: the library is not installed, or there is no such snapshot.
        DataError: the table cannot be read, or rows of its files are deleted.
    """
    table = None if any(c in path for c in "*?[") else foreign_table(path)
    if table is None:
        if snapshot is not None:
            raise ConfigError(f"data.snapshot={snapshot}: {path} is no Iceberg or Delta table, and has no snapshots")
        return None
    if table.kind not in _LISTS:
        table.query()  # refuses it, with what to do
    try:
        name, files = _LISTS[table.kind](table, snapshot)
    except ImportError as error:
        extra = table.kind.lower()
        raise ConfigError(
            f"path {path}: {_kind(table)}, whose library is not installed; pip install 'recd-dist[{extra}]'"
        ) from error
    except (ConfigError, DataError):
        raise
    except Exception as error:
        raise DataError(f"path {path}: {_kind(table)} that cannot be read ({first_line(error)})") from error
    logger.info(
        "%s: %s, %s of %d files; data.snapshot=%s reads the same later", path, _kind(table), *name, len(files), name[1]
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(sorted(pool.map(_find, files), key=lambda file: file.name))


def _kind(table: ForeignTable) -> str:
    return f"{'an' if table.kind == 'Iceberg' else 'a'} {table.kind} table"


def _delta_files(table: ForeignTable, version: str | None) -> tuple[tuple[str, str], list[str]]:
    from deltalake import DeltaTable

    if version is not None and not version.isdigit():
        raise ConfigError(f"data.snapshot={version}: a Delta table has versions 0, 1, 2, ...")
    opened: Any = DeltaTable(table.root, version=None if version is None else int(version))
    features = opened.protocol().reader_features or []
    if "deletionVectors" in features and _has_vectors(opened):
        raise DataError(
            f"path {table.root}: a Delta table with deletion vectors: rows of its files are deleted{_COMPACT}"
        )
    return (f"version {opened.version()}", str(opened.version())), list(opened.file_uris())


def _has_vectors(opened: Any) -> bool:
    actions = opened.get_add_actions(flatten=True)
    names = [name for name in actions.schema.names if name.lower().startswith(("deletionvector", "deletion_vector"))]
    return not names or any(len(actions[name]) != actions[name].null_count for name in names)


def _iceberg_files(table: ForeignTable, snapshot: str | None) -> tuple[tuple[str, str], list[str]]:
    from pyiceberg.table import StaticTable

    if snapshot is not None and not snapshot.lstrip("-").isdigit():
        raise ConfigError(f"data.snapshot={snapshot}: a snapshot of an Iceberg table is a number")
    opened: Any = StaticTable.from_metadata(newest_metadata(table.root))
    chosen = opened.current_snapshot() if snapshot is None else opened.snapshot_by_id(int(snapshot))
    if chosen is None:
        raise ConfigError(f"data.snapshot={snapshot}: the Iceberg table {table.root} has no such snapshot")
    tasks = list(opened.scan(snapshot_id=chosen.snapshot_id).plan_files())
    if any(task.delete_files for task in tasks):
        raise DataError(
            f"path {table.root}: an Iceberg table with delete files: rows of its files are deleted{_COMPACT}"
        )
    return (f"snapshot {chosen.snapshot_id}", str(chosen.snapshot_id)), [task.file.file_path for task in tasks]


_LISTS: dict[str, Callable[[ForeignTable, str | None], tuple[tuple[str, str], list[str]]]] = {
    "Delta": _delta_files,
    "Iceberg": _iceberg_files,
}


def _find(name: str) -> FoundFile:
    """A data file, with its size.

    Raises:
        DataError: the log names it, and it is not there.
    """
    place = location(name)
    found: Sequence[FoundFile] = find_files(name if is_remote(place) else str(place))
    if len(found) != 1:
        raise DataError(f"{name}: not there, though the table's log names it")
    return found[0]
