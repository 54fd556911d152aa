"""``recd etl``, ``recd stats``, ``recd compact``, ``recd sql``: from a config to the ETL and back to text."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console

from recd_dist.commands.sources import make_logs, source_options
from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.source.source import Source
from recd_dist.job.options import Data, EtlConfig
from recd_dist.table.location import Location, location
from recd_dist.table.manifest import Manifest, is_table, splits_of


def source_of(data: Data, seed: int = 0) -> Source:
    """The source that a data config describes; synthetic logs are made where they are not there yet.

    Raises:
        ConfigError: mistakes in the config, all in one message.
    """
    plain = asdict(data)
    make_logs(plain, seed)
    return Source.from_dict(source_options(plain))


def run_etl(config: EtlConfig, console: Console, *, dry_run: bool = False, verify: bool = False) -> int:
    """Makes the tables, or shows what they would be, or compares them with their source.

    Args:
        config: as loaded.
        console: for what came of it.
        dry_run: only show schema and sample rows.
        verify: compare every column with the source afterwards; tables that are there are only compared.

    Returns:
        Exit code: 1 when table and source differ.
    """
    source = source_of(config.data, config.seed)
    out = location(config.data.table)
    if dry_run:
        from recd_dist.etl.source.dry_run import dry_run as shown

        console.print(shown(source, config.memory_limit))
        return 0
    if not (verify and _stands(out, source) and not config.overwrite and not config.append):
        manifests = _made(config, source, out)
        _summary(config.data.table, manifests)
        _warn_of_small_tables(config.data, manifests)
    if not verify:
        return 0
    from recd_dist.etl.verify.compare import verify as compared

    found = compared(source, out, memory_limit=config.memory_limit)
    console.print(found.render())
    return 0 if found.equal else 1


def _made(config: EtlConfig, source: Source, out: Location) -> Mapping[str, Manifest]:
    """The tables, by the engine that the config names."""
    options: dict[str, Any] = {
        "overwrite": config.overwrite,
        "append": config.append,
        "replace": config.replace,
        "row_group_samples": config.row_group_samples,
        "compression": config.compression,
        "memory_limit": config.memory_limit,
        "threads": config.threads,
    }
    if config.engine == "duckdb":
        from recd_dist.etl.flow import etl

        return etl(source, out, **options)
    if config.engine == "spark":
        from recd_dist.etl.spark.spark_flow import etl_on_spark

        return etl_on_spark(source, out, master=config.spark.master, **options)
    raise ConfigError(f"engine={config.engine}: unknown{nearest(config.engine, ('duckdb', 'spark'))}")


def _stands(out: Location, source: Source) -> bool:
    return all(is_table(out / split) for split in source.splits)


def _summary(table: str, manifests: Mapping[str, Manifest]) -> None:
    console = Console(stderr=True)
    for split, manifest in manifests.items():
        factors = ", ".join(f"{g} {manifest.dedup_factor(g):.2f}" for g in manifest.schema.dedup_groups)
        console.print(
            f"{table}/{split}: {manifest.num_samples:,} samples of {manifest.num_sessions:,} sessions, "
            f"{manifest.num_bytes / 2**20:.1f} MiB" + (f"; samples per stored row: {factors}" if factors else ""),
            highlight=False,
            soft_wrap=True,
        )


def _warn_of_small_tables(data: Data, manifests: Mapping[str, Manifest]) -> None:
    """Ids beyond an embedding table that the config sizes: training will refuse them, so say it now."""
    console = Console(stderr=True)
    ids = next(iter(manifests.values())).ids
    for name, options in data.tables.items():
        rows = (options or {}).get("num_embeddings")
        if rows and name in ids and not (options or {}).get("hashed") and ids[name].max_id >= rows:
            console.print(
                f"recd: warning: data.tables.{name}.num_embeddings={rows}: ids go up to {ids[name].max_id}; training "
                f"will refuse them: set num_embeddings={ids[name].max_id + 1} or more, or "
                f"data.tables.{name}.hashed=true",
                highlight=False,
                soft_wrap=True,
            )


def run_compact(config: EtlConfig, console: Console) -> int:
    """Merges small parts, and says what came of it."""
    from recd_dist.etl.compaction import compact
    from recd_dist.etl.etl_run import Options

    root = location(config.data.table)
    before = {split: len(Manifest.load(root / split).parts) for split in splits_of(root)}
    options = Options(config.row_group_samples, config.compression, config.memory_limit, config.threads)
    for split, manifest in compact(root, options).items():
        console.print(
            f"{root}/{split}: {before[split]} parts, now {len(manifest.parts)}; {manifest.num_samples:,} samples, "
            f"{manifest.num_bytes / 2**20:.1f} MiB",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def view(config: EtlConfig, split: str, dialect: str) -> str:
    """The SQL that gives back the flat samples of a table.

    Raises:
        ConfigError: no table of that split.
    """
    from recd_dist.table.flat import flat_view

    root = location(config.data.table)
    if split not in splits_of(root):
        raise ConfigError(f"--split {split}: {root} has none{nearest(split, splits_of(root))}")
    return flat_view(root / split, dialect, config.data.partitions)


def run_stats(config: EtlConfig, console: Console) -> dict[str, Any]:
    """Shows the numbers of each split's table.

    Returns:
        The same, ready for JSON.
    """
    from recd_dist.table.stats.stats_text import render, table_stats

    root = location(config.data.table)
    tables = [root / split for split in reversed(splits_of(root))]
    if is_table(root):
        tables = [root]
    if not tables:
        raise ConfigError(
            f"data.table={root}: no clustered table there; make it with `recd etl data={config.data.name}`"
        )
    results = {}
    for table in tables:
        stats = table_stats(table)
        results[table.name] = stats.to_json()
        console.print(render(stats))
    return results
