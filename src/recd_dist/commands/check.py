"""``recd check``: are the files of a table those that were written?"""

import argparse
import sys
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError
from recd_dist.screen.console import console
from recd_dist.table.clustered import REMEDY, ClusteredTable, Damage
from recd_dist.table.location import Location, location
from recd_dist.table.manifest import is_table, splits_of


def run(options: argparse.Namespace) -> int:
    """Reads every file of the tables and compares it with the checksum in the manifest.

    Returns:
        Exit code: 1 when a file is damaged or missing.
    """
    tables = [table for path in options.tables for table in _tables_at(path)]
    total = sum(table.manifest.num_bytes for table in tables)
    columns = (
        TextColumn("checking"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    results: list[tuple[ClusteredTable, list[Damage]]] = []
    bar = Progress(*columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("", total=total)
        for table in tables:
            results.append((table, list(table.find_damage(lambda num_bytes: bar.advance(task, num_bytes)))))
    for table, damages in results:
        _show(table, damages)
    write_json(options.json, [_to_json(table, damages) for table, damages in results])
    return 1 if any(damages for _, damages in results) else 0


def _tables_at(text: str) -> list[ClusteredTable]:
    """The table of a directory, or of each split below it.

    Raises:
        ConfigError: there is none.
    """
    if "=" in text.partition("/")[0]:
        raise ConfigError(f"recd check {text}: takes directories of tables, such as `recd check tables/tiny`")
    root: Location = location(text)
    paths = [root] if is_table(root) else [root / split for split in splits_of(root)]
    if not paths:
        raise ConfigError(
            f"recd check {text}: no clustered table there; give the directory that holds manifest.json, or the one "
            "above it with all splits"
        )
    return [ClusteredTable.load(path) for path in paths]


def _show(table: ClusteredTable, damages: list[Damage]) -> None:
    """One line a table, and one for every damaged file."""
    text = f"{table.path}: {len(table.files):,} files, {table.manifest.num_bytes / 2**20:,.1f} MiB"
    state = f"{len(damages):,} damaged; {REMEDY}" if damages else "all as they were written"
    console(sys.stdout).print(f"{text}: {state}", highlight=False, soft_wrap=True)
    for damage in damages:
        console(sys.stdout).print(f"  {damage.path}: {damage.problem}", highlight=False, soft_wrap=True)


def _to_json(table: ClusteredTable, damages: list[Damage]) -> dict[str, Any]:
    return {
        "table": str(table.path),
        "num_files": len(table.files),
        "num_bytes": table.manifest.num_bytes,
        "damaged": [{"path": str(damage.path), "problem": damage.problem} for damage in damages],
    }


COMMAND = Command(
    name="check",
    summary="every file of a table against its checksum",
    details="Reads every file whole, here or in a store, and compares it with its checksum in manifest.json.\n"
    "Exit code 0 when all are as they were written, 1 when one is missing or damaged.",
    examples=("recd check tables/tiny", "recd check tables/tiny/train s3://bucket/tables/mine --json check.json"),
    run=run,
    arguments=(
        Argument("tables", "directory of a table, or of all its splits", {"nargs": "+", "metavar": "TABLE"}),
        JSON,
    ),
)
