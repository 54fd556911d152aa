"""Finds what is wrong with a training job before a rank starts.

    python -m recd_dist.job.preflight data=ebnerd batch_size=2048

The launcher of each host runs it. It loads no torch, prints one short error and exits with 2, or prints nothing and
exits with 0; where the launcher names a file, it leaves the timeouts of the job there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recd_dist.embedding.vocabulary.names import (
    CPU_OPTIMIZERS,
    EXCHANGES,
    LOOKUP_KERNELS,
    PLACE_KEYS,
    SENDS,
    SHARDING_TYPES,
    TABLE_OPTIMIZERS,
    WIDTH_UNIT,
)
from recd_dist.errors import ConfigError, UserError, nearest
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.check_evaluation import find_evaluation_table, is_out_of_patience
from recd_dist.job.check_reading import check_reading
from recd_dist.job.check_resume import check_resume
from recd_dist.job.check_servers import check_servers, has_servers
from recd_dist.job.check_tasks import check_tasks
from recd_dist.job.check_training import check_training
from recd_dist.job.config import CUSTOM, config_dir, load
from recd_dist.job.days import check_days, days_left, days_of
from recd_dist.job.job import Job, require_writable, resolve
from recd_dist.job.options import SOURCE_KINDS, TrainConfig
from recd_dist.job.run_places import newest_readable, require_place, run_directory
from recd_dist.job.starting_run import begin_from, require_same_mappings
from recd_dist.model.history_choice import check_histories
from recd_dist.plan.machines import find_machine
from recd_dist.plan.saved_plan import load_plan
from recd_dist.ranks.timeouts import TIMEOUTS_FILE
from recd_dist.reader.open_files import AnyTable
from recd_dist.table.module_names import is_taken

SUMMARY = "summary.json"
"""The file in a run's directory that is written when all is done."""

_COUNTS = (
    "heads", "max_length", "layers", "unit", "cross_layers", "experts", "expert_layers", "shared_experts",
    "task_experts", "vector",
)  # fmt: skip
"""Options of models that are whole numbers, at least 1."""

_PROBE = "recd_dist.train.probe_model"

DENSE_OPTIMIZERS = ("adagrad", "adam", "adamw", "sgd")


def check(config: TrainConfig, world_size: int = 1, table: AnyTable | None = None) -> Job:
    """Checks a job without starting it.

    Args:
        config: the config as loaded.
        world_size: number of ranks that the job will run on.
        table: the split to train on, where it was opened before.

    Returns:
        The job, resolved against its table.

    Raises:
        ConfigError, DataError: the first thing that would stop the job, with the remedy.
    """
    _check_numbers(config)
    config.timeouts.check(config.checkpoint.grace_s)
    job = begin_from(resolve(config, table))
    check_servers(config.reader)
    if not has_servers(config.reader):  # else the table's files may lie elsewhere; its manifest is here
        job.table.check_sizes()
    check_tasks(job, world_size)
    _check_steps(job, world_size)
    _check_names(config)
    check_training(job, world_size)
    check_reading(job)
    check_days(config, job.manifest, job.chain, world_size)
    _check_tables(job)
    _check_model(job)
    _check_plan(job, world_size)
    job = replace(job, evaluation=find_evaluation_table(job, world_size))
    if config.plan.world_size not in (None, world_size):
        raise ConfigError(
            f"plan.world_size={config.plan.world_size}: the plan is for {config.plan.world_size} ranks, the job has "
            f"{world_size}; start as many (-j 1x{config.plan.world_size}) or plan.world_size=null"
        )
    require_writable(run_directory(config.run_dir))
    require_place(config)
    check_resume(job)
    _check_work(job)
    return job


def _check_numbers(config: TrainConfig) -> None:
    wanted = {
        "batch_size": (config.batch_size, 1),
        "epochs": (config.epochs, 1),
        "max_steps": (config.max_steps if config.max_steps is not None else 1, 1),
        "log_every": (config.log_every, 1),
        "checkpoint.every": (config.checkpoint.every if config.checkpoint.every is not None else 1, 1),
        "checkpoint.keep": (config.checkpoint.keep, 1),
        "checkpoint.keep_best": (config.checkpoint.keep_best, 1),
        "reader.num_workers": (config.reader.num_workers, 0),
        "reader.window": (config.reader.window, 1),
        "reader.prefetch": (config.reader.prefetch, 1),
    }
    for name, (value, least) in wanted.items():
        if value < least:
            raise ConfigError(f"{name}={value}: must be at least {least}")
    for name in ("every_minutes", "grace_s"):
        number = getattr(config.checkpoint, name)
        if number is not None and not number > 0:
            raise ConfigError(f"checkpoint.{name}={number}: must be above 0")
    if not -1 << 63 <= config.seed < 1 << 64:  # what torch.manual_seed takes
        raise ConfigError(f"seed={config.seed}: must be from {-1 << 63} to {(1 << 64) - 1}, a number of 64 bits")


def _check_steps(job: Job, world_size: int) -> None:
    if job.manifest.num_samples < world_size:
        raise ConfigError(
            f"{job.table.path}: {job.manifest.num_samples} samples for {world_size} ranks, each needs at least one; "
            f"start at most {job.manifest.num_samples} ranks"
        )


def _check_names(config: TrainConfig) -> None:
    for part, known in (("tables", TABLE_OPTIMIZERS), ("dense", DENSE_OPTIMIZERS)):
        name = getattr(config.optim, part).name
        if name not in known:
            raise ConfigError(f"optim.{part}.name={name}: unknown{nearest(name, known)}")
    for option, choices in (("on_bad_id", ("error", "drop")), ("on_nan", ("error", "zero"))):
        if (chosen := getattr(config.reader, option)) not in choices:
            raise ConfigError(f"reader.{option}={chosen}: unknown{nearest(chosen, choices)}")
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={config.device}: unknown{nearest(config.device, ('auto', 'cpu', 'cuda'))}")
    kernel = config.optim.tables.kernel
    if kernel not in LOOKUP_KERNELS:
        raise ConfigError(f"optim.tables.kernel={kernel}: unknown{nearest(kernel, LOOKUP_KERNELS)}")
    if kernel == "recd" and (config.device == "cuda" or not config.dedup):
        raise ConfigError("optim.tables.kernel=recd: needs device=cpu and dedup=true; use auto or fbgemm otherwise")
    name = config.optim.tables.name
    if config.device == "cpu" and name not in CPU_OPTIMIZERS:
        raise ConfigError(
            f"optim.tables.name={name}: fbgemm has no CPU kernel for it; use {', '.join(CPU_OPTIMIZERS)}, or "
            "device=cuda"
        )
    if config.data.source not in SOURCE_KINDS:
        raise ConfigError(f"data.source={config.data.source}: unknown{nearest(config.data.source, SOURCE_KINDS)}")


def _check_tables(job: Job) -> None:
    """Refuses names of tables that TorchRec cannot take; releases that made such tables could not train on them."""
    for table in filter(is_taken, job.tables):
        raise ConfigError(
            f"{job.table.path}: torch keeps the name of the table '{table}' for itself; make the table again with "
            "`recd etl ... overwrite=true`, which names it otherwise"
        )


def _check_model(job: Job) -> None:
    """Checks the options that every model has; the model itself checks the others when a rank builds it."""
    if not job.schema.sparse:
        raise ConfigError(
            f"{job.table.path}: no feature that is trained holds ids, models need at least one; shorten data.drop, or "
            "make a column an id in the ETL (data.features.NAME.kind=id)"
        )
    model = job.config.model
    names = {path.stem for path in (config_dir() / "model").glob("*.yaml")}
    if model.get("name") not in names:
        raise ConfigError(f"model.name={model.get('name')}: no such model{nearest(str(model.get('name')), names)}")
    dim = int(model.get("dim", 16))
    if dim % WIDTH_UNIT:
        raise ConfigError(
            f"model.dim={dim}: must be a multiple of {WIDTH_UNIT}; use {-(-dim // WIDTH_UNIT) * WIDTH_UNIT}"
        )
    for table in job.tables.values():
        if table.dim != dim:
            raise ConfigError(f"data.tables.{table.name}.dim={table.dim}: model.dim is {dim}; make them agree")
    for option in ("bottom", "over", "expert", "tower"):
        sizes = model.get(option, [1])
        if not isinstance(sizes, list) or not sizes or not all(_is_count(size) for size in sizes):
            raise ConfigError(f"model.{option}={sizes}: must be a list of widths, each at least 1, such as [64,32]")
    dropout = model.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout}: must be at least 0 and less than 1")
    if (pooling := model.get("pooling", "mean")) not in ("mean", "sum"):
        raise ConfigError(f"model.pooling={pooling}: unknown{nearest(str(pooling), ('mean', 'sum'))}")
    _check_counts(model)
    if dim % model.get("heads", 1):
        raise ConfigError(f"model.heads={model['heads']}: must divide model.dim, which is {dim}")
    check_histories(str(model["name"]), job.schema, model)


def _check_counts(model: Mapping[str, Any]) -> None:
    if model.get("rank", 0) < 0:
        raise ConfigError(f"model.rank={model['rank']}: must be at least 1, or 0 for full matrices")
    for option in _COUNTS:
        if not _is_count(model.get(option, 1)):
            raise ConfigError(f"model.{option}={model[option]}: must be a whole number, at least 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_plan(job: Job, world_size: int) -> None:
    """Checks names, types and ranks of a plan; whether it fits in memory is for the planner to say."""
    plan = job.config.plan
    types = [*SHARDING_TYPES, *SHARDING_TYPES.values()]
    known = ("auto", "planner", *types)
    if plan.sharding not in known:
        raise ConfigError(f"plan.sharding={plan.sharding}: unknown{nearest(plan.sharding, known)}")
    if plan.tables and plan.sharding == "planner":
        raise ConfigError("plan.tables: the planner places every table itself; choose plan=auto to name some")
    for table, given in plan.tables.items():
        if table not in job.tables:
            raise ConfigError(f"plan.tables.{table}: no such table{nearest(str(table), job.tables)}")
        _check_place(str(table), given if isinstance(given, dict) else {"type": given}, types, world_size)
    for table, send in plan.send.items():
        if table not in job.tables:
            raise ConfigError(f"plan.send.{table}: no such table{nearest(str(table), job.tables)}")
        if send not in SENDS:
            raise ConfigError(f"plan.send.{table}={send}: unknown{nearest(str(send), SENDS)}")
    if plan.exchange not in ("auto", *EXCHANGES):
        raise ConfigError(f"plan.exchange={plan.exchange}: unknown{nearest(plan.exchange, ('auto', *EXCHANGES))}")
    find_machine(plan.topology, measured=Path(plan.costs) if plan.costs else None)
    if plan.file:
        if plan.tables or plan.sharding != "auto":
            raise ConfigError(
                f"plan.file={plan.file} places every table; leave plan.sharding=auto and plan.tables={{}}"
            )
        sizes = {table.name: (table.num_embeddings, table.dim) for table in job.looked_up.values()}
        load_plan(Path(plan.file)).check(sizes, world_size)


def _check_place(table: str, options: Mapping[str, Any], types: Sequence[str], world_size: int) -> None:
    """Checks the place of one table: its sharding type and its ranks exist."""
    if unknown := [option for option in options if option not in PLACE_KEYS]:
        raise ConfigError(f"unknown option 'plan.tables.{table}.{unknown[0]}'{nearest(unknown[0], PLACE_KEYS)}")
    kind = str(options.get("type", "TW"))
    if kind.upper() not in types and kind not in types:
        raise ConfigError(f"plan.tables.{table}={kind}: unknown sharding type{nearest(kind, types)}")
    ranks = options.get("ranks", [])
    for rank in ranks if isinstance(ranks, list) else [ranks]:
        if not isinstance(rank, int) or not 0 <= rank < world_size:
            raise ConfigError(
                f"plan.tables.{table}: rank {rank} is named, this job has {world_size} ranks (0 to "
                f"{world_size - 1}); start more, or plan again"
            )


def _check_work(job: Job) -> None:
    """Refuses a run that is complete or mapped ids otherwise; damaged checkpoints are for the ranks to tell.

    Raises:
        ConfigError: how to go on.
    """
    config = job.config
    found = newest_readable(config) if config.resume else None
    if found:
        require_same_mappings(job, found.extra)
        epoch, is_out = int(found.extra["reader"]["epoch"]), is_out_of_patience(config, found.extra)
        left = days_left(config, job.manifest, job.chain, days_of(found.extra)) if config.progressive else ()
        require_work(config, found.step, epoch, is_out, left)


def require_work(
    config: TrainConfig, step: int, epoch: int, is_out_of_patience: bool = False, days: Sequence[str] = ()
) -> None:
    """Refuses a run that is complete: no command succeeds without having done something.

    A run is complete when its last step is in a checkpoint and ``summary.json`` tells of that step. A run that was
    stopped, or failed, between the two has its evaluation before it.

    Args:
        config: the config of the run.
        step: number of steps that are done.
        epoch: number of whole epochs that are done.
        is_out_of_patience: whether the run has ended early.
        days: the partitions that are left, of a run that goes day by day.

    Raises:
        ConfigError: nothing is left to do, and how to go on.
    """
    has_epochs = bool(days) if config.progressive else epoch < config.epochs or config.reader.follow
    is_trained = is_out_of_patience or not has_epochs or (config.max_steps is not None and step >= config.max_steps)
    if is_trained and _summarized_step(Path(config.run_dir)) == step:
        more = f"max_steps={step + 1000}" if has_epochs else f"epochs={epoch + 1}"
        if config.progressive and not has_epochs:
            more = "a further day (`recd etl ... append=true`)"
        more = "a larger evaluate.patience, or null" if is_out_of_patience else more
        done = "all days" if config.progressive and not has_epochs else f"{epoch} whole epochs"
        raise ConfigError(
            f"{config.run_dir}: trained to the end already ({step} steps, {done}); go on with {more}, "
            "start afresh with resume=false, or take another run_dir=..."
        )


def _summarized_step(run_dir: Path) -> int | None:
    """The step that a run's summary tells of; None where there is no summary that can be read."""
    try:
        return int(json.loads((run_dir / SUMMARY).read_text())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(overrides: Sequence[str] | None = None) -> int:
    """Checks the job that the overrides describe.

    Args:
        overrides: Hydra overrides; those of the process by default.

    Returns:
        0, or 2 with one line on stderr.
    """
    try:
        config = load("train", sys.argv[1:] if overrides is None else overrides)
        if told := os.environ.get(TIMEOUTS_FILE):
            write_whole(
                Path(told), json_text({"timeouts": asdict(config.timeouts), "grace_s": config.checkpoint.grace_s})
            )
        check(config, int(os.environ.get("RECD_WORLD_SIZE", "1")))
        if config.model["name"] == CUSTOM:
            return _probe_model(sys.argv[1:] if overrides is None else overrides)
    except UserError as error:
        sys.stderr.write(f"recd: error: {error}\n")
        return 2
    return 0


def _probe_model(overrides: Sequence[str]) -> int:
    """Tries the user's own module, which needs torch, in a process of its own; its exit code."""
    return subprocess.run([sys.executable, "-m", _PROBE, *overrides], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
