"""``recd sql``: the query that gives back the flat samples of a table."""

import argparse
import sys

from recd_dist.commands.command import Argument, Command
from recd_dist.commands.sources import no_table
from recd_dist.errors import ConfigError, nearest
from recd_dist.table.location import location
from recd_dist.table.manifest import splits_of


def run(options: argparse.Namespace) -> int:
    """Prints the query.

    Raises:
        ConfigError: the table has no such split.
    """
    config = COMMAND.load_config(options)
    from recd_dist.table.flat import flat_view

    root = location(config.data.table)
    splits = splits_of(root)
    if not splits:
        raise no_table(config.data, options.overrides, options.config_dir)
    if options.split not in splits:
        raise ConfigError(f"--split {options.split}: {root} has none{nearest(options.split, splits)}")
    sys.stdout.write(flat_view(root / options.split, options.dialect, config.data.partitions) + "\n")
    return 0


COMMAND = Command(
    name="sql",
    summary="the query that gives back flat samples, for DuckDB or Spark",
    details="A plain join over the table's files. data.partitions=[2026-11-25] narrows it.",
    examples=(
        "recd sql data=mine",
        "recd sql data=mine --dialect spark --split test",
        'duckdb -c "create view flat as $(recd sql data=mine)"',
    ),
    run=run,
    config="etl",
    arguments=(
        Argument("--dialect", "duckdb (default) or spark", {"default": "duckdb"}),
        Argument("--split", "default train", {"default": "train"}),
    ),
)
