"""A train config that was checked against its table."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recd_dist.embedding.vocabulary.names import Codecs
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.days import Chain
from recd_dist.job.open_table import open_table
from recd_dist.job.options import TrainConfig
from recd_dist.job.table_sizes import infer_tables
from recd_dist.job.tasks import find_tasks, read_order
from recd_dist.model.history_choice import id_features
from recd_dist.model.task import Task
from recd_dist.model.tower_choice import TOWER_MODELS, find_towers
from recd_dist.reader.made_features import MadeFeatures
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.transform import Transforms
from recd_dist.table.location import Location
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Schema, Table

WORTH_DEDUP = 1.1
"""Samples per stored row from which unique rows are worth finding: at 1.0 a step gains nothing and costs 1-5% more."""

_FIXED_BY_ETL = ("table", "kind", "weights", "window")
"""Options of a feature that the ETL has fixed."""


@dataclass(frozen=True)
class GroupChoice:
    """Whether a group of the table is trained on its unique rows.

    The choice follows from the table and the config alone, never from a measurement: it shapes the dense layers.

    Attributes:
        group: name of the group.
        factor: samples per stored row.
        expanded: True if its features are trained as features of ``sample``, with a row per sample.
        reason: the reason in plain words.
    """

    group: str
    factor: float
    expanded: bool
    reason: str


def choose_groups(manifest: Manifest, schema: Schema, expand: Sequence[str] | None = None) -> tuple[GroupChoice, ...]:
    """Decides for each group that the table stores deduplicated whether it stays so.

    Args:
        manifest: the manifest of the table.
        schema: the features that are trained, in the groups of the table.
        expand: names of the groups to expand; None lets the dedup factors of the table decide.

    Raises:
        ConfigError: ``expand`` names no group of the table.
    """
    for name in expand or ():
        if name not in schema.dedup_groups:
            raise ConfigError(f"plan.expand: no group '{name}'{nearest(name, schema.dedup_groups)}")
    choices = []
    for group in schema.dedup_groups:
        factor = manifest.dedup_factor(group)
        saved = f"{factor:.1f} samples a stored row"
        if expand is not None:
            choices.append(GroupChoice(group, factor, group in expand, f"{saved}; plan.expand says so"))
        elif factor < WORTH_DEDUP:
            reason = f"{factor:.2f} samples a stored row, below {WORTH_DEDUP}: nothing to gain"
            choices.append(GroupChoice(group, factor, True, reason))
        else:
            choices.append(GroupChoice(group, factor, False, saved))
    return tuple(choices)


@dataclass(frozen=True)
class Job:
    """A train config that was checked against its table.

    Attributes:
        config: the config.
        table: the split that is trained on, as far as the config names its partitions.
        schema: the features that are trained; features of expanded groups are in ``sample``.
        tables: the embedding tables, with inferred sizes where the config leaves them open.
        transforms: transforms of the features, not fitted yet.
        groups: which groups of the table stay deduplicated, and why.
        evaluation: the split that is evaluated when training ends; None where there is none, or before ``check``.
        tasks: what the model is trained for, in the order of its logits.
        weight: the column of ``schema.labels`` by which samples count; None where each counts once.
        chain: the runs before this one, where it begins with the weights of another one.
    """

    config: TrainConfig
    table: AnyTable
    schema: Schema
    tables: dict[str, Table]
    transforms: Transforms
    groups: tuple[GroupChoice, ...] = ()
    evaluation: AnyTable | None = None
    tasks: tuple[Task, ...] = ()
    weight: str | None = None
    chain: Chain = field(default_factory=Chain)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the table, as far as it is trained on."""
        return self.table.manifest

    @property
    def looked_up(self) -> dict[str, Table]:
        """The tables that the model looks up; without those of times, and of features that no tower takes."""
        model = self.config.model
        left_out = set(id_features(model.get("times")))
        if model.get("name") in TOWER_MODELS:
            left_out |= set(find_towers(self.schema, model.get("query"), model.get("item")).unused(self.schema))
        names = {str(feature.table) for feature in self.schema.sparse if feature.name not in left_out}
        return {name: table for name, table in self.tables.items() if name in names}

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


def resolve(config: TrainConfig, table: AnyTable | None = None) -> Job:
    """Reads the manifest of the table and decides on features, sizes of embedding tables and transforms.

    Args:
        config: the config as loaded.
        table: the split to train on, where it was opened before.

    Raises:
        ConfigError, DataError: something does not fit; the message names it and the remedy.
    """
    _check_codec(config)
    table = table or open_table(config)
    path, manifest = table.path, table.manifest
    weights = manifest.schema.weights.values()
    made = MadeFeatures.of(config.data.features, manifest.schema)
    known = replace(manifest.schema, features=(*manifest.schema.features, *made.features))
    drop = [name for given in config.data.drop for name in made.names.get(given, (given,))]
    stored = known.without(n for n in drop if n in known or n in weights)
    tasks = find_tasks(config, manifest, str(path))
    stored = read_order(stored, tasks)
    groups = choose_groups(manifest, stored, config.plan.expand)
    schema = stored.expand([g.group for g in groups if g.expanded])
    columns = [*(f.name for f in known.features), *weights, *manifest.schema.labels, *made.names]
    columns += manifest.source.get("drop", [])
    for name in [*config.data.features, *config.data.drop]:
        if name not in columns and name not in manifest.source.get("columns", []):
            raise ConfigError(f"data: the table {path} has no feature '{name}'{nearest(name, columns)}")
    _check_against_table(config, path, manifest)
    dim = _embedding_width(config)
    overrides = {name: dict(value or {}) for name, value in config.data.tables.items()}
    unknown = [n for n in overrides if n not in known.tables]
    if unknown:
        raise ConfigError(f"data.tables: no table '{unknown[0]}'{nearest(unknown[0], known.tables)}")
    specs = {**_transforms(config, schema, manifest), **{n: s for n, s in made.specs.items() if n in schema}}
    transforms = Transforms.parse(schema, specs, manifest.schema)
    overrides = {n: v for n, v in overrides.items() if n in schema.tables}
    times = id_features(config.model.get("times"))
    tables = infer_tables(manifest, schema, overrides, dim, transforms.id_limits(), times)
    return Job(config, table, schema, tables, transforms, groups, None, tasks, config.data.weight)


def _check_codec(config: TrainConfig) -> None:
    """Refuses codecs that do not exist, and codecs with ``dedup=off``, which is trained in fp32."""
    if Codecs(config.plan.codec.forward, config.plan.codec.backward) != Codecs() and not config.dedup:
        raise ConfigError(
            "plan.codec: dedup=off, the yardstick, is trained in fp32; set plan.codec.* to fp32 or dedup=on"
        )


def _embedding_width(config: TrainConfig) -> int:
    """Width of the embeddings."""
    dim = config.model.get("dim", 16)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ConfigError(f"model.dim={dim}: must be a whole number, at least 1")
    return dim


def _check_against_table(config: TrainConfig, table: Location, manifest: Manifest) -> None:
    """Refuses options that contradict the table: the ETL has fixed them, and training could only ignore them."""
    data, made = config.data, manifest.schema
    again = "make it again by `recd etl ... overwrite=true`, or leave the option as it was"
    weights = {data.weight, manifest.source.get("weight")}
    if data.labels and [n for n in data.labels if n not in weights] != [n for n in made.labels if n not in weights]:
        raise ConfigError(f"data.labels={data.labels}: the table {table} holds {list(made.labels)}; {again}")
    keys = manifest.source.get("keys", {})
    for name, column in asdict(data.keys).items():
        if column and name in keys and keys[name] not in (None, column):
            raise ConfigError(f"data.keys.{name}={column}: the table {table} was made by '{keys[name]}'; {again}")
    known = {feature.name: feature for feature in made.features}
    for name, options in data.features.items():
        feature = known.get(name)
        for option in _FIXED_BY_ETL if feature is not None else ():
            wanted, found = (options or {}).get(option), getattr(feature, option)
            if option == "weights" and wanted in data.drop:
                continue  # left out by the ETL or by this run
            if wanted is not None and wanted != found and (wanted, found) != ("id", "ids"):
                there = "it has none" if found is None else f"it is {_as_config(found)}"
                raise ConfigError(
                    f"data.features.{name}.{option}={_as_config(wanted)}: in the table {table} {there}; {again}"
                )
    for group, given in (data.groups or {}).items():
        members = given if isinstance(given, list) else (given or {}).get("features") or []
        for name in members:
            if name in made and made[name].group != group:
                found = made[name].group
                raise ConfigError(f"data.groups.{group}: '{name}' is in group '{found}' of the table {table}; {again}")


def _as_config(value: object) -> str:
    """A value as a config writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _transforms(config: TrainConfig, schema: Schema, manifest: Manifest) -> dict[str, list[Any]]:
    """The transforms of the config. Dense features without any are standardised, those with heavy tails after a log."""
    stored = manifest.schema
    given = {n: list((f or {}).get("transforms") or []) for n, f in config.data.features.items() if n in stored}
    given = {name: steps for name, steps in given.items() if name in schema}
    for feature in (f for f in schema.dense if not f.made_from):
        if "transforms" not in (config.data.features.get(feature.name) or {}):
            stats = manifest.features[feature.name]
            heavy = stats.min >= 0 and stats.max > stats.mean + 10 * stats.std
            given[feature.name] = ["log", "standardize"] if heavy else ["standardize"]
    return {name: steps for name, steps in given.items() if steps}


def require_writable(directory: Path) -> None:
    """Makes a directory and proves that it can be written.

    Raises:
        ConfigError: it cannot be written; the message has the path and the reason.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{directory}: cannot be written ({reason}); choose another with run_dir=...") from error
