"""``recd etl``: raw logs become clustered tables."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from recd_dist.commands.command import Argument, Command
from recd_dist.commands.sources import source_of
from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.source.source import Source
from recd_dist.job.options import Data, EtlConfig
from recd_dist.screen.command_line import command_line, override
from recd_dist.screen.console import console
from recd_dist.table.location import Location, location
from recd_dist.table.manifest import Manifest, is_table


def run(options: argparse.Namespace) -> int:
    """Makes the tables, or shows what they would be, or compares them with their source.

    With ``--verify``, tables that are there already are only compared.

    Returns:
        Exit code: 1 when table and source differ.
    """
    config: EtlConfig = COMMAND.load_config(options)
    source = source_of(config.data, config.seed)
    out = location(config.data.table)
    if options.dry_run:
        from recd_dist.etl.source.dry_run import dry_run

        console(sys.stdout).print(dry_run(source, config.memory_limit))
        return 0
    is_there = all(is_table(out / split) for split in source.splits)
    if options.verify and config.append and any(is_table(out / split) for split in source.splits):
        raise ConfigError(
            "append=true --verify: the table holds samples of earlier files too, so that it would differ from the new "
            "ones; append first, then run `recd etl ... --verify` with a data.path that names every file of the table"
        )
    if not (options.verify and is_there and not config.overwrite and not config.append):
        manifests = _make_tables(config, source, out, options.strict)
        _show_tables(config.data.table, manifests)
        _warn_of_small_tables(config.data, manifests)
    if not options.verify:
        return 0
    from recd_dist.etl.verify.compare import verify

    verification = verify(source, out, memory_limit=config.memory_limit)
    console(sys.stdout).print(verification.render())
    if not verification.equal:
        _say_which_files_are_missing(source, Manifest.load(out / source.splits[0]))
    return 0 if verification.equal else 1


def _make_tables(config: EtlConfig, source: Source, out: Location, strict: bool) -> Mapping[str, Manifest]:
    """Makes the tables by the engine that the config names."""
    options: dict[str, Any] = {
        "overwrite": config.overwrite,
        "append": config.append,
        "replace": config.replace,
        "row_group_samples": config.row_group_samples,
        "compression": config.compression,
        "memory_limit": config.memory_limit,
        "threads": config.threads,
        "strict": strict,
    }
    if config.engine == "duckdb":
        from recd_dist.etl.flow import etl

        return etl(source, out, **options)
    if config.engine == "spark":
        from recd_dist.etl.spark.spark_flow import etl_on_spark

        return etl_on_spark(source, out, master=config.spark.master, **options)
    raise ConfigError(f"engine={config.engine}: unknown{nearest(config.engine, ('duckdb', 'spark'))}")


def _say(text: str) -> None:
    """One line on stderr, which rich neither colours nor wraps."""
    console(sys.stderr).print(text, highlight=False, soft_wrap=True)


def _show_tables(table: str, manifests: Mapping[str, Manifest]) -> None:
    """Says what each table holds."""
    for split, manifest in manifests.items():
        factors = ", ".join(f"{g} {manifest.dedup_factor(g):.2f}" for g in manifest.schema.dedup_groups)
        _say(
            f"{table}/{split}: {manifest.num_samples:,} samples of {manifest.num_sessions:,} sessions, "
            f"{manifest.num_bytes / 2**20:.1f} MiB" + (f"; samples per stored row: {factors}" if factors else "")
        )


def _say_which_files_are_missing(source: Source, manifest: Manifest) -> None:
    """Says that the table holds files that the source does not name, as after an append: then the two must differ."""
    from recd_dist.etl.source.input_files import find_input_files

    named = {file.name for file in find_input_files(source).of_samples}
    others = [file.path for file in manifest.raw_files if file.path not in named]
    if others:
        _say(
            f"recd: the table holds samples of {len(others):,} files that data.path does not name now, such as "
            f"{others[0]}; to compare the whole table, let data.path name every file of it"
        )


def _warn_of_small_tables(data: Data, manifests: Mapping[str, Manifest]) -> None:
    """Warns of ids beyond an embedding table whose size the config gives: training will refuse them."""
    ids = next(iter(manifests.values())).ids
    for name, options in data.tables.items():
        rows = (options or {}).get("num_embeddings")
        takes_any = (options or {}).get("hashed") or (options or {}).get("mapped")
        if rows and name in ids and not takes_any and ids[name].max_id >= rows:
            _say(
                f"recd: warning: data.tables.{name}.num_embeddings={rows}: ids go up to {ids[name].max_id}; training "
                f"will refuse them: set num_embeddings={ids[name].max_id + 1} or more, or "
                f"{command_line(override(('data', 'tables', name, 'hashed'), True))}"
            )


COMMAND = Command(
    name="etl",
    summary="raw logs -> clustered table",
    details="The source is SQL, in configs/data/NAME.yaml. The table stands in data.table/train and data.table/test.",
    examples=(
        "recd etl data=tiny",
        "recd etl data=ebnerd data.path=~/ebnerd/train",
        "recd etl data=parquet data.name=mine data.path=clicks.parquet data.keys.session=session_id "
        "data.keys.timestamp=time 'data.labels=[clicked]'",
        "recd etl data=tiny overwrite=true compression=lz4",
        "recd etl data=mine --dry-run",
        "recd etl data=mine --verify",
        "recd etl data=mine --strict",
        "recd etl data=mine data.path=logs/2026-11-25/*.parquet data.partition=day append=true",
    ),
    run=run,
    config="etl",
    arguments=(
        Argument("--dry-run", "show schema and sample rows, write nothing", {"action": "store_true"}),
        Argument("--strict", "refuse logs in which something suspicious is found", {"action": "store_true"}),
        Argument("--verify", "compare every column with the source", {"action": "store_true"}),
    ),
)
