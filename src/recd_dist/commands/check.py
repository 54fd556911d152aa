"""``recd check``: are the files of a table those that were written?"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.place.sketches import SKETCHES
from recd_dist.etl.place.statistics import STATISTICS
from recd_dist.screen.console import console
from recd_dist.table.clustered import REMEDY, ClusteredTable, Damage
from recd_dist.table.location import Location, contents, directories, location
from recd_dist.table.manifest import NAME, is_table


@dataclass(frozen=True)
class Report:
    """What was found at the directory of one split.

    Attributes:
        path: the directory.
        num_files: files that the manifest names; 0 where it cannot be read.
        num_bytes: their bytes.
        damages: the files that are missing or damaged.
    """

    path: Location
    num_files: int
    num_bytes: int
    damages: tuple[Damage, ...]

    def to_json(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        damaged = [{"path": str(damage.path), "problem": damage.problem} for damage in self.damages]
        return {"table": str(self.path), "num_files": self.num_files, "num_bytes": self.num_bytes, "damaged": damaged}


def run(options: argparse.Namespace) -> int:
    """Reads every file of the tables and compares it with the checksum in the manifest.

    Returns:
        Exit code: 1 when a file is damaged or missing.
    """
    paths = list(dict.fromkeys(path for text in options.tables for path in _tables_at(text)))
    columns = (TextColumn("checking"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("", total=0)

        def grow(num_bytes: int) -> None:
            bar.update(task, total=(bar.tasks[0].total or 0) + num_bytes)

        reports = [_check(path, grow, lambda num_bytes: bar.advance(task, num_bytes)) for path in paths]
    for report in reports:
        _show(report)
    write_json(options.json, [report.to_json() for report in reports])
    return 1 if any(report.damages for report in reports) else 0


def _tables_at(text: str) -> list[Location]:
    """The directory of a table, or that of each split below it, also of splits that have lost their manifest.

    Raises:
        ConfigError: there is no table.
    """
    if "=" in text.partition("/")[0] and not Path(text).is_dir():
        raise ConfigError(f"recd check {text}: takes directories of tables, such as `recd check tables/tiny`")
    root = location(text)
    if is_table(root):
        return [root]
    paths = [root / name for name in directories(root) if not name.startswith(".")]
    if not any(is_table(path) for path in paths):
        raise ConfigError(
            f"recd check {text}: no clustered table there; give the directory that holds manifest.json, or the one "
            "above it with all splits"
        )
    return paths


def _check(path: Location, grow: Callable[[int], None], report: Callable[[int], None]) -> Report:
    """Checks the files of one split."""
    try:
        table = ClusteredTable.load(path)
    except DataError as error:
        return Report(path, 0, 0, (Damage(path / NAME, str(error).removeprefix(f"{path / NAME}: ")),))
    grow(table.manifest.num_bytes)
    damages = (*table.find_damage(report), *(() if table.manifest.notes else _damaged_notes(path)))
    return Report(path, len(table.files), table.manifest.num_bytes, damages)


def _damaged_notes(path: Location) -> Iterator[Damage]:
    """The files beside the manifest that cannot be read: in tables of older releases they have no checksum."""
    for name in (SKETCHES, STATISTICS):
        try:
            pq.read_table(pa.BufferReader(contents(path / name)))
        except FileNotFoundError:
            yield Damage(path / name, "no such file; `recd etl append=true` and `recd compact` need it")
        except (pa.ArrowException, OSError) as error:
            yield Damage(path / name, f"no readable Parquet ({str(error).splitlines()[0]})")


def _show(report: Report) -> None:
    """Prints a line for the table, and one for every damaged file."""
    state = f"{len(report.damages):,} damaged; {REMEDY}" if report.damages else "all as they were written"
    text = f"{report.path}: {report.num_files:,} files, {report.num_bytes / 2**20:,.1f} MiB: {state}"
    for line in (text, *(f"  {damage.path}: {damage.problem}" for damage in report.damages)):
        console(sys.stdout).print(line, highlight=False, soft_wrap=True)


COMMAND = Command(
    name="check",
    summary="every file of a table against its checksum",
    details="Reads every Parquet file that manifest.json names, here or in a store, and compares it with its checksum\n"
    "there, the statistics beside it too (in tables of older releases these have none and are only read).\n"
    "Exit code 0 when all are as they were written, 1 when one is missing or damaged.",
    examples=("recd check tables/tiny", "recd check tables/tiny/train s3://bucket/tables/mine --json check.json"),
    run=run,
    arguments=(
        Argument("tables", "directory of a table, or of all its splits", {"nargs": "+", "metavar": "TABLE"}),
        JSON,
    ),
)
