"""Everything about a training job that can be found wrong before a rank starts: config, table, sizes, run directory.

    python -m recd_dist.preflight data=ebnerd batch_size=2048

Light (no torch), run once per job by the launcher; prints one short error and exits with 2, or nothing and 0.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from recd_dist.config import TrainConfig, flatten, from_yaml, load
from recd_dist.errors import ConfigError, DataError, UserError, nearest
from recd_dist.job import Job, resolve, writable

TABLE_OPTIMIZERS = ("rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb", "lars_sgd")
DENSE_OPTIMIZERS = ("adagrad", "adam", "adamw", "sgd")


def check(config: TrainConfig, world_size: int = 1) -> Job:
    """Checks a job without starting it.

    Args:
        config: as loaded.
        world_size: ranks that it will run on.

    Returns:
        The job, resolved against its table.

    Raises:
        ConfigError, DataError: the first thing that would stop the job, with the remedy.
    """
    _check_numbers(config)
    job = resolve(config)
    _check_files(job)
    _check_steps(job, world_size)
    _check_names(config)
    if config.plan.world_size not in (None, world_size):
        raise ConfigError(
            f"plan.world_size={config.plan.world_size}: the plan is for {config.plan.world_size} ranks, the job has "
            f"{world_size}; start as many (-j 1x{config.plan.world_size}) or plan.world_size=null"
        )
    unknown = [t for t in config.plan.tables if t not in job.tables]
    if unknown:
        raise ConfigError(f"plan.tables: no table '{unknown[0]}'{nearest(unknown[0], job.tables)}")
    writable(Path(config.run_dir))
    _check_resume(config)
    _check_work(config)
    return job


def _check_numbers(config: TrainConfig) -> None:
    wanted = {
        "batch_size": (config.batch_size, 1),
        "epochs": (config.epochs, 1),
        "max_steps": (config.max_steps if config.max_steps is not None else 1, 1),
        "log_every": (config.log_every, 1),
        "checkpoint.every": (config.checkpoint.every, 1),
        "checkpoint.keep": (config.checkpoint.keep, 1),
        "reader.num_workers": (config.reader.num_workers, 0),
        "reader.window": (config.reader.window, 1),
        "reader.prefetch": (config.reader.prefetch, 1),
    }
    for name, (value, least) in wanted.items():
        if value < least:
            raise ConfigError(f"{name}={value}: must be at least {least}")
    for name in ("tables", "dense"):
        lr = getattr(config.optim, name).lr
        if not lr > 0:
            raise ConfigError(f"optim.{name}.lr={lr}: must be above 0")


def _check_files(job: Job) -> None:
    """Every file of the table is there with its size: a truncated one is found before the first step."""
    for part in job.manifest.parts:
        for entry in (part.samples, *part.groups.values()):
            path = job.table / entry.path
            size = path.stat().st_size if path.is_file() else -1
            if size != entry.num_bytes:
                found = "missing" if size < 0 else f"{size:,} bytes, {entry.num_bytes:,} were written"
                raise DataError(f"{path}: {found}; make the table again with `recd etl ... overwrite=true`")


def _check_steps(job: Job, world_size: int) -> None:
    if job.manifest.num_samples < world_size:
        raise ConfigError(
            f"{job.table}: {job.manifest.num_samples} samples for {world_size} ranks, each needs at least one; "
            f"start at most {job.manifest.num_samples} ranks"
        )


def _check_names(config: TrainConfig) -> None:
    for part, known in (("tables", TABLE_OPTIMIZERS), ("dense", DENSE_OPTIMIZERS)):
        name = getattr(config.optim, part).name
        if name not in known:
            raise ConfigError(f"optim.{part}.name={name}: unknown{nearest(name, known)}")
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={config.device}: unknown{nearest(config.device, ('auto', 'cpu', 'cuda'))}")


def _check_resume(config: TrainConfig) -> None:
    """A run directory that holds another model or table must not be mixed with this one."""
    saved = Path(config.run_dir) / "config.yaml"
    if not config.resume or not saved.is_file() or not any(Path(config.run_dir, "checkpoints").glob("step-*")):
        return
    before, now = asdict(from_yaml("train", saved)), asdict(config)
    for name in ("model", "seed", "dedup"):
        if before.get(name) != now[name]:
            keys = sorted({*flatten({name: before.get(name)}), *flatten({name: now[name]})})
            changed = [k for k in keys if _at(before, k) != _at(now, k)] or [name]
            raise ConfigError(
                f"{config.run_dir} holds a run with {changed[0]}={_at(before, changed[0])}, now "
                f"{_at(now, changed[0])}; take another run_dir=..., or resume=false to start it afresh"
            )


def _check_work(config: TrainConfig) -> None:
    """A run that is complete has nothing to do: said before any rank starts.

    Raises:
        ConfigError: how to go on.
    """
    found = sorted(Path(config.run_dir, "checkpoints").glob("step-*/checkpoint.json")) if config.resume else []
    if found:
        header = json.loads(found[-1].read_text())
        require_work(config, int(header["step"]), int(header["extra"]["reader"]["epoch"]))


def require_work(config: TrainConfig, step: int, epoch: int) -> None:
    """Refuses a run that is complete: a command never succeeds without having trained.

    Args:
        config: of the run.
        step: steps done.
        epoch: whole epochs done.

    Raises:
        ConfigError: nothing is left to train, and how to go on.
    """
    if epoch >= config.epochs or (config.max_steps is not None and step >= config.max_steps):
        more = f"max_steps={step + 1000}" if epoch < config.epochs else f"epochs={epoch + 1}"
        raise ConfigError(
            f"{config.run_dir}: trained to the end already ({step} steps, {epoch} whole epochs); go on with {more}, "
            "start afresh with resume=false, or take another run_dir=..."
        )


def _at(value: object, key: str) -> object:
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def main(overrides: Sequence[str] | None = None) -> int:
    """Checks the job that the overrides describe.

    Args:
        overrides: Hydra overrides; those of the process by default.

    Returns:
        0, or 2 with one line on stderr.
    """
    try:
        config = load("train", sys.argv[1:] if overrides is None else overrides)
        check(config, int(os.environ.get("RECD_WORLD_SIZE", "1")))
    except UserError as error:
        sys.stderr.write(f"recd: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
