"""The tables that a server may read: those that its command line names, and no others."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from recd_dist.errors import ConfigError
from recd_dist.reader.position import fingerprint
from recd_dist.reader.tier.messages import WantedTable
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import Location, directories
from recd_dist.table.manifest import is_table

_DEPTH = 3
"""Directories below a root in which tables are looked for: ROOT/mine/train is at depth 2."""


class ServedTables:
    """Tables below some directories, found by what they hold: a trainer may know them under other paths.

    Args:
        roots: directories of tables, or of one.
        vocabularies: further directories, of files that transforms name.

    Raises:
        ConfigError: no table lies below a root.
    """

    def __init__(self, roots: Sequence[Location], vocabularies: Sequence[Path] = ()) -> None:
        self._roots, self._lock = tuple(roots), threading.Lock()
        self._folders = [root.resolve() for root in (*self._roots, *vocabularies) if isinstance(root, Path)]
        self._paths: dict[str, Location] = {}
        for root in self._roots:
            if next(_tables_below(root), None) is None:
                raise ConfigError(f"{root}: no table here or below; name the directory of one that `recd etl` has made")
        self._look()

    def _look(self) -> list[ClusteredTable]:
        """Looks which tables there are now."""
        tables = [ClusteredTable.load(path) for root in self._roots for path in _tables_below(root)]
        self._paths = {fingerprint(table.manifest): table.path for table in tables}
        return tables

    @property
    def names(self) -> list[str]:
        """The tables that there are, as mine/train."""
        with self._lock:
            return sorted({f"{table.manifest.name}/{table.manifest.split}" for table in self._look()})

    def find(self, wanted: WantedTable) -> ClusteredTable:
        """The table that a trainer wants, in the state in which the trainer knows it.

        Args:
            wanted: what says which table.

        Raises:
            ConfigError: there is no such table, or it has changed.
        """
        with self._lock:
            path = self._paths.get(wanted.fingerprint)
            table = ClusteredTable.load(path) if path is not None and is_table(path) else None
            if table is None or fingerprint(table.manifest) != wanted.fingerprint:
                tables = {fingerprint(table.manifest): table for table in self._look()}
                table = tables.get(wanted.fingerprint)
                if table is None:
                    raise ConfigError(_not_here(wanted, list(tables.values())))
        return table.of_partitions(wanted.partitions)

    def require_file(self, file: str) -> None:
        """Refuses a file that a trainer names, unless it lies where this server may read.

        Args:
            file: a vocabulary, as a config names it.

        Raises:
            ConfigError: it lies elsewhere.
        """
        path = Path(file).expanduser().resolve()
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise ConfigError(
                f"vocabulary {file}: the server reads below {', '.join(map(str, self._folders))} alone; start it with "
                "recd reader --vocabularies DIR"
            )


def _tables_below(root: Location, depth: int = _DEPTH) -> Iterator[Location]:
    """Directories of tables: the root itself, or below it."""
    if is_table(root):
        yield root
    elif depth:
        for name in directories(root):
            yield from _tables_below(root / name, depth - 1)


def _not_here(wanted: WantedTable, tables: Sequence[ClusteredTable]) -> str:
    """Says that a table is not among those that are served, or is there in another state."""
    name = f"{wanted.name}/{wanted.split}"
    for table in tables:
        if (table.manifest.name, table.manifest.split) == (wanted.name, wanted.split):
            return (
                f"the server's table {name} has fingerprint {fingerprint(table.manifest)}, the trainer's "
                f"{wanted.fingerprint}: other samples, or an older state; copy one over the other"
            )
    known = ", ".join(sorted(f"{table.manifest.name}/{table.manifest.split}" for table in tables))
    return f"the server has no table {name}, it has {known}; start it with that table too: recd reader --tables DIR"
