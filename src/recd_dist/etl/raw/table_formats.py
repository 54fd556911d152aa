"""Tables of other formats: a folder whose data files only its log explains.

::

    clicks/_delta_log/                     Delta    DuckDB's delta_scan, where its extension is there
    clicks/metadata/v3.metadata.json       Iceberg  DuckDB's iceberg_scan, where its extension is there
    clicks/.hoodie/                        Hudi     no reader: to be exported

Their data files alone hold rows that were deleted or replaced since, so that they are never read one by one.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import duckdb

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import connect
from recd_dist.etl.raw.found_files import FoundFile
from recd_dist.table.flat import string_literal
from recd_dist.table.location import Location, directories, is_remote, listing, location

_EXTENSIONS = {"Delta": "delta", "Iceberg": "iceberg"}
_NUMBER = re.compile(r"v?(\d+)")


@dataclass(frozen=True)
class ForeignTable:
    """A table of another format.

    Attributes:
        kind: ``Delta``, ``Iceberg`` or ``Hudi``.
        root: its folder.
    """

    kind: str
    root: str

    def query(self) -> str:
        """The query of all its rows by DuckDB's own reader.

        Raises:
            DataError: DuckDB has no reader for it, or the reader's extension is not there.
        """
        extension = _EXTENSIONS.get(self.kind)
        if extension is None:
            raise DataError(
                f"path {self.root}: a {self.kind} table, for which there is no reader; write its rows as Parquet with "
                "the engine that made it, such as spark.read.format('hudi').load(...).write.parquet(...)"
            )
        _load_extension(self, extension)
        place = self.root if self.kind == "Delta" else newest_metadata(self.root)
        return f"select * from {extension}_scan({string_literal(place)})"


def foreign_table(directory: str) -> ForeignTable | None:
    """The table of another format that a folder is; None where it is none."""
    place = location(directory)
    names = directories(place)
    if "_delta_log" in names:
        return ForeignTable("Delta", directory)
    if "metadata" in names and _metadata_files(place):
        return ForeignTable("Iceberg", directory)
    return ForeignTable("Hudi", directory) if ".hoodie" in names else None


def refuse_files_of_tables(files: tuple[FoundFile, ...]) -> None:
    """Refuses data files of a table of another format that are named one by one or by a pattern.

    Raises:
        DataError: some of the files belong to such a table.
    """
    checked: dict[str, ForeignTable | None] = {}
    for file in files:
        for folder in _folders_of(file.name):
            if folder not in checked:
                checked[folder] = foreign_table(folder)
            if (table := checked[folder]) is not None:
                raise DataError(
                    f"{file.name}: a file of the {table.kind} table {table.root}, whose log says which rows of it "
                    f"still count; read the table instead of its files: data.path={table.root}"
                )


def _folders_of(name: str) -> list[str]:
    """The folders that may be the root of a file's table: above ``key=value`` folders, and above Iceberg's ``data``."""
    if "/" not in name:
        return ["."]
    folders = []
    folder = name.rpartition("/")[0]
    while "=" in PurePosixPath(folder).name and "/" in folder:
        folders.append(folder)
        folder = folder.rpartition("/")[0]
    folders.append(folder)
    if PurePosixPath(folder).name == "data":
        folders.append(folder.rpartition("/")[0] or ".")
    return [folder for folder in folders if folder]


def _metadata_files(place: Location) -> list[str]:
    below = place / "metadata"
    names = listing(below) if is_remote(below) else [path.name for path in below.glob("*.metadata.json")]
    return [name for name in names if name.endswith(".metadata.json")]


def newest_metadata(root: str) -> str:
    """The newest description of an Iceberg table: the one with the largest number."""
    names = _metadata_files(location(root))
    newest = max(names, key=lambda name: int(match[1]) if (match := _NUMBER.match(name)) else -1)
    return f"{root.rstrip('/')}/metadata/{newest}"


def _load_extension(table: ForeignTable, extension: str) -> None:
    try:
        with connect() as connection:
            connection.execute(f"load {extension}")
    except duckdb.Error as error:
        raise DataError(
            f"path {table.root}: {'an' if table.kind == 'Iceberg' else 'a'} {table.kind} table; DuckDB's extension "
            f"that reads it is not here: where there is a network, run python -c \"import duckdb; duckdb.sql('install "
            f"{extension}')\", or write the table's rows as Parquet with the engine that made it"
        ) from error
