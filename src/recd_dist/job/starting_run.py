"""A run that begins with the weights of another one (``run_from``), perhaps on a table that has grown since.

::

    run_from --newest checkpoint--> model, table sizes, transforms --.
    the config, its table -------------------------------------------+--> Job: tables with at least these rows

Position, epoch and step are new. Reads ``checkpoint.json`` alone and loads no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.checkpoint.catalog import DESCRIPTION, list_whole
from recd_dist.errors import ConfigError
from recd_dist.job.config import shipped_model
from recd_dist.job.dotted_names import dotted_names, value_at
from recd_dist.job.job import Job
from recd_dist.job.run_places import checkpoint_at, checkpoints_of
from recd_dist.job.tasks import keep_statistics, tasks_of
from recd_dist.reader.transform import Transforms
from recd_dist.table.location import Location, contents
from recd_dist.table.schema import Table

TABLES = "tables"
"""Key of a checkpoint's extra values under which the sizes of its embedding tables stand."""


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


def begin_from(job: Job) -> Job:
    """The job with the table sizes and transforms of the run that it begins from; as it is without ``run_from``.

    A run that has checkpoints of its own goes on from these: the other run may be gone by then.

    Raises:
        ConfigError: that run has another model, or a table that does not fit; the message names the difference.
    """
    config = job.config
    if config.run_from is None:
        return job
    if Path(config.run_from).resolve() == Path(config.run_dir).resolve():
        raise ConfigError(
            f"run_from={config.run_from}: that is the run_dir itself, which resumes without it; take another "
            "run_dir=..."
        )
    own = list_whole(checkpoints_of(config)) if config.resume else []
    path = own[-1] if own else find_start(config.run_from)
    try:
        extra: dict[str, Any] = json.loads(contents(path / DESCRIPTION))["extra"]
        trained = yaml.safe_load(extra["config"])
        tables = {name: Table.from_json(table) for name, table in extra[TABLES].items()}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"run_from={config.run_from}: {path / DESCRIPTION} cannot be read, or was written by an earlier release "
            f"({error!r}); use another checkpoint"
        ) from error
    _require_same_model(job, trained)
    grown = {name: _grow(job, tables[name], table) if name in tables else table for name, table in job.tables.items()}
    steps = {name: given for name, given in extra["transforms"].items() if name in job.schema}
    tasks = keep_statistics(job.tasks, tasks_of(extra, job.schema.labels[0]), f"run_from={config.run_from}")
    return replace(job, tables=grown, transforms=Transforms.parse(job.schema, steps, job.manifest.schema), tasks=tasks)


def _require_same_model(job: Job, trained: dict[str, Any]) -> None:
    now, of_run = {"model": job.config.model}, trained.get("model", {})
    before = {"model": {**shipped_model(of_run.get("name")), **of_run}}
    for name in sorted({*dotted_names(before), *dotted_names(now)}):
        was, wanted = value_at(before, name), value_at(now, name)
        if was != wanted:
            raise ConfigError(
                f"run_from={job.config.run_from}: that run has {name}={was}, this one {wanted}; write {name}={was}, or "
                "train without run_from"
            )


def _grow(job: Job, was: Table, now: Table) -> Table:
    """The table with the rows of both runs; a hashed or mapped one keeps its size: rows of ids depend on that."""
    name = f"data.tables.{was.name}"
    _require_same_mapping(f"run_from={job.config.run_from}", was, now, "train without run_from")
    given = (job.config.data.tables.get(was.name) or {}).get("num_embeddings")
    if now.hashed and not was.hashed:
        num_rows = max(was.num_embeddings, now.num_embeddings)
        raise ConfigError(
            f"run_from={job.config.run_from}: ids of table '{was.name}' are row numbers there and would be hashed "
            f"here; write {name}.hashed=false {name}.num_embeddings={num_rows} (more where ids go beyond), or "
            "train without run_from"
        )
    if was.mapped:
        was = replace(was, mapped=now.mapped)
    keeps_size = was.hashed or was.mapped is not None
    grown = was if keeps_size else replace(was, num_embeddings=max(was.num_embeddings, now.num_embeddings))
    if given is not None and given != grown.num_embeddings:
        why = "the rows of its ids depend on that" if keeps_size else "rows are kept"
        raise ConfigError(
            f"{name}.num_embeddings={given}: run_from={job.config.run_from} has {was.num_embeddings} rows, and {why}; "
            f"write {grown.num_embeddings}, or train without run_from"
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
