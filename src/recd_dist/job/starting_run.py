"""A run that begins with the weights of another one (``run_from``), perhaps on a table that has grown since.

::

    run_from --newest checkpoint--> model, table sizes, transforms, days --.
    the config, its table -------------------------------------------------+--> Job: tables with at least these rows

Position, epoch and step are new. A run that goes day by day (``progressive``) goes on from its own checkpoint in the
same way, since its table grows from day to day. Reads ``checkpoint.json`` alone and loads no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.checkpoint.catalog import DESCRIPTION
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.config import shipped_model
from recd_dist.job.days import chain_after, chain_of, with_drawn
from recd_dist.job.dotted_names import dotted_names, value_at
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import TrainConfig
from recd_dist.job.run_places import checkpoint_at, newest_readable
from recd_dist.job.tasks import keep_statistics, tasks_of
from recd_dist.reader.transform import Transforms
from recd_dist.table.location import Location, contents
from recd_dist.table.schema import Schema, Table

TABLES = "tables"
"""Key of a checkpoint's extra values under which the sizes of its embedding tables stand."""

KEEP, FRESH = "keep", "fresh"
"""What becomes of the optimizers' states, and of the step by which learning rates go, when a run begins."""


def find_start(run_from: str) -> Location:
    """The checkpoint with which a run begins.

    Args:
        run_from: the directory of a run, of its best checkpoint (``RUN/best``), or of one checkpoint, here or in a
            store.

    Raises:
        ConfigError: there is no checkpoint.
    """
    try:
        return checkpoint_at(run_from)
    except ConfigError as error:
        raise ConfigError(f"run_from={error}") from error


@dataclass(frozen=True)
class _Start:
    """What a run begins or goes on with.

    Attributes:
        path: the checkpoint.
        step: its step.
        extra: its extra values.
        schema: the features that its run was trained on.
        where: what names it in a message.
        remedy: what else can be done.
        is_own: whether it is of the run itself.
    """

    path: Location
    step: int
    extra: Mapping[str, Any]
    schema: Schema
    where: str
    remedy: str
    is_own: bool

    @property
    def trained(self) -> dict[str, Any]:
        """The config of the run that wrote it."""
        config: dict[str, Any] = yaml.safe_load(self.extra["config"])
        return config

    @property
    def tables(self) -> dict[str, Table]:
        """Its embedding tables."""
        return {name: Table.from_json(table) for name, table in self.extra[TABLES].items()}


def _find(config: TrainConfig) -> _Start | None:
    """The checkpoint whose tables and transforms a run takes over; None where it has those of its table."""
    own = newest_readable(config) if config.resume and (config.progressive or config.run_from is not None) else None
    if own is not None:
        remedy = "take another run_dir=... or resume=false"
        return _Start(own.path, own.step, own.extra, own.schema, f"{config.run_dir} holds a run", remedy, True)
    if config.run_from is None:
        return None
    path, where = find_start(config.run_from), f"run_from={config.run_from}"
    try:
        found: dict[str, Any] = json.loads(contents(path / DESCRIPTION))
        schema = Schema.from_json(found["schema"])
        return _Start(path, int(found["step"]), found["extra"], schema, where, "train without run_from", False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(where, path, error) from error


def begin_from(job: Job) -> Job:
    """The job with table sizes, transforms and days of the run that it begins from; as it is where there is none.

    A run that has checkpoints of its own goes on from these: the other run may be gone by then.

    Raises:
        ConfigError: that run has another model, or a table that does not fit; the message names the difference.
    """
    config = job.config
    for option in ("run_from_optimizer", "run_from_schedule"):
        if (chosen := getattr(config, option)) not in (KEEP, FRESH):
            raise ConfigError(f"{option}={chosen}: unknown{nearest(chosen, (KEEP, FRESH))}")
    if config.run_from is not None and Path(config.run_from).resolve() == Path(config.run_dir).resolve():
        raise ConfigError(
            f"run_from={config.run_from}: that is the run_dir itself, which resumes without it; take another "
            "run_dir=..."
        )
    start = _find(config)
    if start is None:
        return job
    job = _keep_groups(job, start.schema)
    try:
        trained, tables = start.trained, start.tables
        steps = {name: given for name, given in start.extra["transforms"].items() if name in job.schema}
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _unreadable(start.where, start.path, error) from error
    _require_same_model(job, trained, start)
    grown = {
        name: _grow(job, tables[name], table, start) if name in tables else table for name, table in job.tables.items()
    }
    run = str(trained.get("run_dir", config.run_from))
    chain = chain_of(start.extra) if start.is_own else chain_after(start.extra, start.step, run)
    sizes = {name: (tables[name].num_embeddings, grown[name].num_embeddings) for name in grown if name in tables}
    chain = with_drawn(chain, sizes, int(trained.get("seed", config.seed)), config.seed)
    tasks = keep_statistics(job.tasks, tasks_of(start.extra, job.schema.labels[0]), start.where)
    transforms = Transforms.parse(job.schema, steps, job.manifest.schema)
    return replace(job, tables=grown, transforms=transforms, tasks=tasks, chain=chain)


def _keep_groups(job: Job, trained: Schema) -> Job:
    """The job with those groups expanded that are so in the run that it goes on from: they shape the dense layers.

    Days differ, and a group that was just worth deduplicating in one may not be in the next.
    """
    config = job.config
    expanded = [choice.group for choice in job.groups if choice.group not in trained.dedup_groups]
    if config.plan.expand is not None or expanded == [choice.group for choice in job.groups if choice.expanded]:
        return job
    job = resolve(replace(config, plan=replace(config.plan, expand=expanded)), job.table)
    groups = tuple(replace(choice, reason="as in the run that this one goes on from") for choice in job.groups)
    return replace(job, config=config, groups=groups)


def _unreadable(where: str, path: Location, error: Exception) -> ConfigError:
    return ConfigError(
        f"{where}: {path / DESCRIPTION} cannot be read, or was written by an earlier release ({error!r}); use another "
        "checkpoint"
    )


def _require_same_model(job: Job, trained: dict[str, Any], start: _Start) -> None:
    now, of_run = {"model": job.config.model}, trained.get("model", {})
    before = {"model": {**shipped_model(of_run.get("name")), **of_run}}
    for name in sorted({*dotted_names(before), *dotted_names(now)}):
        was, wanted = value_at(before, name), value_at(now, name)
        if was != wanted:
            raise ConfigError(
                f"{start.where}: that run has {name}={was}, this one {wanted}; write {name}={was}, or {start.remedy}"
            )


def _grow(job: Job, was: Table, now: Table, start: _Start) -> Table:
    """The table with the rows of both runs; a hashed one keeps its size, on which the rows of ids depend.

    A mapped one grows where the config names more rows: its ids are then dealt to zones anew.
    """
    name = f"data.tables.{was.name}"
    _require_same_mapping(start.where, was, now, start.remedy)
    given = (job.config.data.tables.get(was.name) or {}).get("num_embeddings")
    if now.hashed and not was.hashed:
        num_rows = max(was.num_embeddings, now.num_embeddings)
        raise ConfigError(
            f"{start.where}: ids of table '{was.name}' are row numbers there and would be hashed here; write "
            f"{name}.hashed=false {name}.num_embeddings={num_rows} (more where ids go beyond), or {start.remedy}"
        )
    if was.mapped:
        was = replace(was, mapped=now.mapped)
        grown = replace(was, num_embeddings=max(was.num_embeddings, given or 0))
    else:
        grown = was if was.hashed else replace(was, num_embeddings=max(was.num_embeddings, now.num_embeddings))
    if given is not None and given != grown.num_embeddings:
        why = "the rows of its ids depend on that" if was.hashed else "rows are kept"
        raise ConfigError(
            f"{name}.num_embeddings={given}: {start.where} with {was.num_embeddings} rows, and {why}; write "
            f"{grown.num_embeddings}{' or more' if was.mapped else ''}, or {start.remedy}"
        )
    return grown


def require_same_mappings(job: Job, extra: Mapping[str, Any]) -> None:
    """Refuses to resume a run whose tables mapped their ids in another way.

    Args:
        job: the job.
        extra: extra values of the checkpoint that it goes on from.

    Raises:
        ConfigError: the message names the table and the option.
    """
    for name, stored in extra.get(TABLES, {}).items():
        if name in job.tables:
            where = f"{job.config.run_dir} holds a run"
            _require_same_mapping(where, Table.from_json(stored), job.tables[name], "take another run_dir=...")


def _require_same_mapping(where: str, was: Table, now: Table, remedy: str) -> None:
    """Refuses to go on with a table that is not mapped as it was, or in which ids began or ceased to wait."""
    name = f"data.tables.{was.name}"
    if (was.mapped is None) != (now.mapped is None):
        there = "mapped" if was.mapped else "not mapped"
        wanted = str(was.mapped is not None).lower()
        raise ConfigError(f"{where}: table '{was.name}' is {there} there; write {name}.mapped={wanted}, or {remedy}")
    if was.mapped and now.mapped and (was.mapped.admit_after > 1) != (now.mapped.admit_after > 1):
        raise ConfigError(
            f"{where}: ids of table '{was.name}' got rows after {was.mapped.admit_after} lookups there, so that "
            f"{'ids wait' if was.mapped.admit_after > 1 else 'no id waits'} for one; write "
            f"{name}.admit_after={was.mapped.admit_after}, or {remedy}"
        )
