"""A train config that was checked against its table. No torch: the check before a job uses it."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recd_dist.embedding.vocabulary.names import Codecs
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.options import TrainConfig
from recd_dist.job.table_sizes import infer_tables
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import Location, location
from recd_dist.table.manifest import Manifest, is_table
from recd_dist.table.schema import Schema, Table

WORTH_DEDUP = 1.1
"""Samples per stored row from which unique rows are worth finding: at 1.0 a step gains nothing and costs 1-5% more."""

_SETTLED = ("table", "kind", "weights", "window")
"""What the ETL has settled of a feature."""


@dataclass(frozen=True)
class GroupChoice:
    """Whether a group of the table is trained on its unique rows.

    It follows from the table and the config alone, never from a measurement: it shapes the dense layers.

    Attributes:
        group: its name.
        factor: samples per stored row.
        expanded: trained as features of ``sample``, a row per sample.
        reason: in words.
    """

    group: str
    factor: float
    expanded: bool
    reason: str


def group_choices(manifest: Manifest, schema: Schema, expand: Sequence[str] | None = None) -> tuple[GroupChoice, ...]:
    """For each group that the table stores deduplicated, whether it stays so.

    Args:
        manifest: of the table.
        schema: the features that are trained, in the groups of the table.
        expand: groups to expand; None leaves it to the table.

    Raises:
        ConfigError: a name that is no group.
    """
    for name in expand or ():
        if name not in schema.dedup_groups:
            raise ConfigError(f"plan.expand: no group '{name}'{nearest(name, schema.dedup_groups)}")
    found = []
    for group in schema.dedup_groups:
        factor = manifest.dedup_factor(group)
        saved = f"{factor:.1f} samples a stored row"
        if expand is not None:
            found.append(GroupChoice(group, factor, group in expand, f"{saved}; plan.expand says so"))
        elif factor < WORTH_DEDUP:
            reason = f"{factor:.2f} samples a stored row, below {WORTH_DEDUP}: nothing to gain"
            found.append(GroupChoice(group, factor, True, reason))
        else:
            found.append(GroupChoice(group, factor, False, saved))
    return tuple(found)


@dataclass(frozen=True)
class Job:
    """A train config that was checked against its table.

    Attributes:
        config: the config.
        table: the split that is trained on, of it the partitions that the config names.
        schema: its features less the dropped ones, those of expanded groups in ``sample``.
        tables: embedding tables, sizes inferred where the config leaves them open.
        transforms: of the features, not fitted yet.
        groups: which groups of the table stay deduplicated, and why.
        evaluation: the split that is evaluated when training ends; None where there is none, or before ``check``.
    """

    config: TrainConfig
    table: ClusteredTable
    schema: Schema
    tables: dict[str, Table]
    transforms: Transforms
    groups: tuple[GroupChoice, ...] = ()
    evaluation: ClusteredTable | None = None

    @property
    def manifest(self) -> Manifest:
        """What the table holds of what is trained on."""
        return self.table.manifest

    def load_table(self, path: Location) -> ClusteredTable:
        """Loads a table that the job is evaluated on; its own, with all partitions, is in memory already.

        Args:
            path: directory of one split.

        Raises:
            DataError: there is no table, or one that this release cannot read.
        """
        return self.table.whole if path == self.table.path else ClusteredTable.load(path)

    @property
    def codecs(self) -> Codecs:
        """How vectors and gradients travel; float32 where batches are trained expanded."""
        codec = self.config.plan.codec
        return Codecs(codec.forward, codec.backward) if self.dedup else Codecs()

    @property
    def dedup(self) -> bool:
        """Whether to train on unique rows: as the config says, unless no group is left that has rows to save.

        The parameters are the same either way, and so are the numbers but for rounding.
        """
        return self.config.dedup and bool(self.schema.dedup_groups)


def resolve(config: TrainConfig, split: str = "train") -> Job:
    """Reads the table's manifest and settles features, table sizes and transforms.

    Raises:
        ConfigError, DataError: what does not fit, by name, and the remedy.
    """
    path = location(config.data.table) / split
    if not is_table(path):
        raise ConfigError(
            f"data.table={config.data.table}: no clustered table at '{path}'; "
            f"make it with `recd etl data={config.data.name}` (the same data overrides), or correct data.table"
        )
    _check_codec(config)
    table = ClusteredTable.load(path).of_partitions(config.data.partitions)
    manifest = table.manifest
    weights = manifest.schema.weights.values()
    stored = manifest.schema.without(n for n in config.data.drop if n in manifest.schema or n in weights)
    groups = group_choices(manifest, stored, config.plan.expand)
    schema = stored.expanded([g.group for g in groups if g.expanded])
    columns = [*(f.name for f in manifest.schema.features), *weights, *manifest.schema.labels]
    columns += manifest.source.get("drop", [])
    for name in [*config.data.features, *config.data.drop]:
        if name not in columns and name not in manifest.source.get("columns", []):
            raise ConfigError(f"data: the table {path} has no feature '{name}'{nearest(name, columns)}")
    _check_as_made(config, path, manifest)
    dim = _dim(config)
    overrides = {name: dict(value or {}) for name, value in config.data.tables.items()}
    unknown = [n for n in overrides if n not in manifest.schema.tables]
    if unknown:
        raise ConfigError(f"data.tables: no table '{unknown[0]}'{nearest(unknown[0], manifest.schema.tables)}")
    transforms = Transforms.parse(schema, _transforms(config, schema, manifest))
    overrides = {n: v for n, v in overrides.items() if n in schema.tables}
    tables = infer_tables(manifest, schema, overrides, dim, transforms.id_limits())
    return Job(config, table, schema, tables, transforms, groups)


def _check_codec(config: TrainConfig) -> None:
    """Codecs that do not exist, or that plain TorchRec is not trained with."""
    if Codecs(config.plan.codec.forward, config.plan.codec.backward) != Codecs() and not config.dedup:
        raise ConfigError(
            "plan.codec: dedup=off, the yardstick, is trained in fp32; set plan.codec.* to fp32 or dedup=on"
        )


def _dim(config: TrainConfig) -> int:
    """Width of the embeddings."""
    dim = config.model.get("dim", 16)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ConfigError(f"model.dim={dim}: must be a whole number, at least 1")
    return dim


def _check_as_made(config: TrainConfig, table: Location, manifest: Manifest) -> None:
    """What the ETL has settled cannot be changed by training: an option that says otherwise would be passed over."""
    data, made = config.data, manifest.schema
    again = "make it again by `recd etl ... overwrite=true`, or leave the option as it was"
    if data.labels and tuple(data.labels) != made.labels:
        raise ConfigError(f"data.labels={data.labels}: the table {table} holds {list(made.labels)}; {again}")
    keys = manifest.source.get("keys", {})
    for name, column in asdict(data.keys).items():
        if column and name in keys and keys[name] not in (None, column):
            raise ConfigError(f"data.keys.{name}={column}: the table {table} was made by '{keys[name]}'; {again}")
    known = {feature.name: feature for feature in made.features}
    for name, options in data.features.items():
        feature = known.get(name)
        for option in _SETTLED if feature is not None else ():
            wanted, found = (options or {}).get(option), getattr(feature, option)
            if wanted is not None and wanted != found and (wanted, found) != ("id", "ids"):
                there = "it has none" if found is None else f"it is {_written(found)}"
                raise ConfigError(
                    f"data.features.{name}.{option}={_written(wanted)}: in the table {table} {there}; {again}"
                )
    for group, given in (data.groups or {}).items():
        members = given if isinstance(given, list) else (given or {}).get("features") or []
        for name in members:
            if name in made and made[name].group != group:
                found = made[name].group
                raise ConfigError(f"data.groups.{group}: '{name}' is in group '{found}' of the table {table}; {again}")


def _written(value: object) -> str:
    """A value as a config writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
