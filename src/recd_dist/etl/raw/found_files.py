"""The files that a path names: a file, all files below a directory, or what a pattern matches.

::

    logs/                 logs/dt=2026-11-25/a.parquet      read
                          logs/_SUCCESS, logs/.a.crc        markers of the engine that wrote the files: passed over
    logs/*.parquet        logs/a.parquet                    read
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recd_dist.etl.raw.duckdb_sql import LEFT_TO_DUCKDB, is_glob, match_glob
from recd_dist.table.flat import string_literal
from recd_dist.table.location import Location, location, stored_files

_COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class FoundFile:
    """A raw file.

    Attributes:
        name: its path, as a query names it.
        num_bytes: its size.
        version: the time of change in ns; in a store, a number that changes with the file.
        content: what a store says of its content; empty where it is local.
    """

    name: str
    num_bytes: int
    version: int
    content: str = ""

    @property
    def path(self) -> Location:
        """Where the file lies."""
        return location(self.name)

    @property
    def suffix(self) -> str:
        """The ending that tells the format, in lower case and without that of a compression."""
        return format_suffix(self.name)


def find_files(pattern: str) -> tuple[FoundFile, ...]:
    """Finds the files of a path, a directory or a pattern, sorted by path.

    Hidden files, those that begin with an underscore (``_SUCCESS``, ``_metadata``) and checksums (``.crc``) are passed
    over, unless the pattern itself names them so.

    Args:
        pattern: local or in a store. What only DuckDB reads (``http://``) has no files here.

    Raises:
        StoreError: the store cannot be reached.
    """
    if pattern.lower().startswith(LEFT_TO_DUCKDB):
        return ()
    place = location(pattern)
    if isinstance(place, Path):
        stats = [(file, file.stat()) for file in _local_files(place, pattern)]
        files = [FoundFile(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    else:
        files = [FoundFile(str(file.path), file.num_bytes, file.version, file.content) for file in stored_files(place)]
    root = fixed_part(str(place))
    shown = PurePosixPath(pattern).name.startswith(("_", "."))
    kept = [file for file in files if file.name == str(place) or shown or not is_marker(file.name, root)]
    return tuple(sorted(kept, key=lambda file: file.name))


def is_marker(name: str, root: str) -> bool:
    """Whether a file below a directory is no data but a mark or a checksum of the engine that wrote the data.

    Args:
        name: the path of the file.
        root: the directory from which on hidden names count.
    """
    parts = PurePosixPath(name.removeprefix(root)).parts
    hidden = (part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)
    return any(hidden) or name.endswith(".crc")


def list_literal(files: tuple[FoundFile, ...]) -> str:
    """The SQL list of the names of files, in which ``[``, ``*`` and ``?`` stand for themselves."""
    escape = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})
    return f"[{', '.join(string_literal(file.name.translate(escape)) for file in files)}]"


def format_suffix(name: str) -> str:
    """The ending of a name that tells the format: ``.csv`` of ``a.CSV.gz``."""
    path = PurePosixPath(name)
    return (PurePosixPath(path.stem) if path.suffix.lower() in _COMPRESSED else path).suffix.lower()


def _local_files(path: Path, pattern: str) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if path.exists() or not is_glob(pattern):
        return [path] if path.is_file() else []
    matched = match_glob(path.absolute())
    named = (found if path.is_absolute() else found.relative_to(Path.cwd()) for found in matched)
    return [file for found in named for file in _local_files(found, str(found))]


def fixed_part(pattern: str) -> str:
    """The beginning of a pattern, up to the first directory whose name is a pattern."""
    fixed: list[str] = []
    for part in pattern.split("/"):
        if is_glob(part):
            break
        fixed.append(part)
    return "/".join(fixed)
