"""A train config that was checked against its table. No torch: the check before a job uses it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd_dist.config import TrainConfig
from recd_dist.errors import ConfigError, nearest
from recd_dist.inference import infer_tables
from recd_dist.manifest import Manifest
from recd_dist.reader.transform import Transforms
from recd_dist.schema import Schema, Table


@dataclass(frozen=True)
class Job:
    """A train config that was checked against its table.

    Attributes:
        config: the config.
        table: directory of the split that is trained on.
        manifest: of that table.
        schema: its features less the dropped ones.
        tables: embedding tables, sizes inferred where the config leaves them open.
        transforms: of the features, not fitted yet.
    """

    config: TrainConfig
    table: Path
    manifest: Manifest
    schema: Schema
    tables: dict[str, Table]
    transforms: Transforms


def resolve(config: TrainConfig, split: str = "train") -> Job:
    """Reads the table's manifest and settles features, table sizes and transforms.

    Raises:
        ConfigError, DataError: what does not fit, by name, and the remedy.
    """
    table = Path(config.data.table) / split
    if not (table / "manifest.json").is_file():
        raise ConfigError(
            f"data.table={config.data.table}: no clustered table at '{table}'; "
            f"make it with `recd etl data={config.data.name}` (the same data overrides), or correct data.table"
        )
    manifest = Manifest.load(table)
    schema = manifest.schema.without(n for n in config.data.drop if n in manifest.schema)
    columns = [*(f.name for f in manifest.schema.features), *manifest.schema.labels, *manifest.source.get("drop", [])]
    for name in [*config.data.features, *config.data.drop]:
        if name not in columns and name not in manifest.source.get("columns", []):
            raise ConfigError(f"data: the table {table} has no feature '{name}'{nearest(name, columns)}")
    dim = int(config.model.get("dim", 16))
    overrides = {name: dict(value or {}) for name, value in config.data.tables.items()}
    unknown = [n for n in overrides if n not in manifest.schema.tables]
    if unknown:
        raise ConfigError(f"data.tables: no table '{unknown[0]}'{nearest(unknown[0], manifest.schema.tables)}")
    transforms = Transforms.parse(schema, _transforms(config, schema, manifest))
    overrides = {n: v for n, v in overrides.items() if n in schema.tables}
    tables = infer_tables(manifest, schema, overrides, dim, transforms.id_limits())
    return Job(config, table, manifest, schema, tables, transforms)


def _transforms(config: TrainConfig, schema: Schema, manifest: Manifest) -> dict[str, list[Any]]:
    """The config's transforms; dense features that have none are standardised, heavy tails after a logarithm."""
    given = {n: list((f or {}).get("transforms") or []) for n, f in config.data.features.items() if n in schema}
    for feature in schema.dense:
        if "transforms" not in (config.data.features.get(feature.name) or {}):
            stats = manifest.features[feature.name]
            heavy = stats.min >= 0 and stats.max > stats.mean + 10 * stats.std
            given[feature.name] = ["log", "standardize"] if heavy else ["standardize"]
    return {name: steps for name, steps in given.items() if steps}


def writable(directory: Path) -> None:
    """Makes a directory and shows that it can be written.

    Raises:
        ConfigError: it cannot, with the path and the reason.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{directory}: cannot be written ({reason}); choose another with run_dir=...") from error
