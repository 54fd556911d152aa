"""``recd stats``: what a clustered table holds; ``raw --suggest`` looks at raw logs."""

import argparse
import sys
from typing import Any

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.commands.sources import no_table
from recd_dist.commands.suggest import suggest
from recd_dist.job.options import EtlConfig
from recd_dist.screen.console import console
from recd_dist.table.location import Location, location
from recd_dist.table.manifest import is_table, splits_of


def run(options: argparse.Namespace) -> int:
    """Shows the numbers of each split's table, or suggests groups for raw logs.

    Raises:
        ConfigError: there is no table, or a flag of ``--suggest`` is given without it.
    """
    if options.suggest or options.html or options.sample is not None or "raw" in options.overrides:
        return suggest(options, str(COMMAND.config))
    config: EtlConfig = COMMAND.load_config(options)
    from recd_dist.table.stats.stats_text import render
    from recd_dist.table.stats.table_stats import measure_table

    root = location(config.data.table)
    tables = [root] if is_table(root) else [root / split for split in reversed(splits_of(root))]
    if not tables:
        raise no_table(config.data, options.overrides, options.config_dir)
    results: dict[str, Any] = {}
    for table in tables:
        stats = measure_table(table)
        results[table.name] = stats.to_json()
        console(sys.stdout).print(render(stats), crop=False)
    if any((options or {}).get("transforms") for options in config.data.features.values()):
        results["transforms"] = _show_transforms(tables[0], config)
    write_json(options.json, results)
    return 0


def _show_transforms(table: Location, config: EtlConfig) -> list[dict[str, Any]]:
    """Shows what the transforms of the config change on a split's table; those of the training table where it is."""
    from recd_dist.reader.transform_effects import measure_effects
    from recd_dist.reader.transform_effects_text import render_effects
    from recd_dist.table.clustered import ClusteredTable
    from recd_dist.table.stats.json_values import to_json_value

    effects = measure_effects(ClusteredTable.load(table), config.data.features)
    console(sys.stdout).print(render_effects(effects), crop=False)
    return [to_json_value(effect.to_json()) for effect in effects]


COMMAND = Command(
    name="stats",
    summary="samples per session, dedup factors, cost expanded and unique",
    details="Reads the table that `recd etl` made, and shows what each transform of the data config changes on it;\n"
    "with `raw --suggest` raw logs that are no table yet:\n"
    "which columns change together, and what deduplicating them would save (docs/suggest.md).",
    examples=(
        "recd stats data=ebnerd",
        "recd stats data=ebnerd --json stats.json",
        "recd stats data.table=tables/ebnerd",
        "recd stats raw --suggest data.path=clicks.parquet",
        "recd stats raw --suggest data=ebnerd data.path=~/ebnerd/train --html report.html",
    ),
    run=run,
    config="etl",
    words=("raw",),
    arguments=(
        JSON,
        Argument("--suggest", "look at raw logs and propose groups", {"action": "store_true"}),
        Argument("--html", "with --suggest: also write a report with plots", {"metavar": "FILE"}),
        Argument("--sample", "with --suggest: samples to look at", {"type": int, "metavar": "N"}),
    ),
)
