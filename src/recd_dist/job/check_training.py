"""Optimizers, schedules, precision and micro-batches: what is wrong is said before a rank starts."""

import math

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.job import Job
from recd_dist.job.optimizer_options import Optim, Schedule
from recd_dist.job.options import TrainConfig

DECAYS = ("none", "linear", "quadratic", "cosine", "exponential", "inverse_root")
"""How a learning rate falls. All but ``inverse_root`` reach the share ``end`` after ``decay_steps``."""


PRECISIONS = ("fp32", "bf16")


def check_training(job: Job, world_size: int) -> None:
    """Checks what a config says about optimizers, and about how the dense layers compute.

    Args:
        job: the job.
        world_size: the number of ranks.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    optim = job.config.optim
    for part in ("tables", "dense"):
        given = getattr(optim, part)
        for name, number in (("lr", given.lr), ("eps", given.eps)):
            if not 0 < number < math.inf:
                raise ConfigError(f"optim.{part}.{name}={number}: must be above 0, and finite")
        if not 0 <= (decay := given.weight_decay) < math.inf:
            raise ConfigError(f"optim.{part}.weight_decay={decay}: must be at least 0, and finite")
        samples = job.config.batch_size * world_size
        _check_schedule(f"optim.{part}.schedule", given.schedule, -(-job.manifest.num_samples // samples))
    _check_dense(optim)
    _check_computation(job.config)


def _check_schedule(name: str, given: Schedule, epoch_steps: int) -> None:
    for option, value in (("warmup_steps", given.warmup_steps), ("decay_from", given.decay_from)):
        if value is not None and value < 0:
            raise ConfigError(f"{name}.{option}={value}: must be at least 0")
    if given.decay not in DECAYS:
        raise ConfigError(f"{name}.decay={given.decay}: unknown{nearest(given.decay, DECAYS)}")
    if not 0 <= given.end <= 1 or (given.decay == "exponential" and given.end == 0):
        above = "above 0" if given.decay == "exponential" else "at least 0"
        raise ConfigError(f"{name}.end={given.end}: must be {above} and at most 1, it is a share of lr")
    if given.decay_from is not None and given.decay_from < given.warmup_steps:
        raise ConfigError(
            f"{name}.decay_from={given.decay_from}: the rate rises until step {given.warmup_steps} (warmup_steps); "
            "let it fall from there on, or later"
        )
    takes_steps = given.decay not in ("none", "inverse_root")
    if takes_steps and given.decay_steps is None:
        raise ConfigError(
            f"{name}.decay={given.decay}: over how many steps? Add {name}.decay_steps={epoch_steps}, which are those "
            "of an epoch"
        )
    if given.decay_steps is not None and (given.decay_steps < 1 or not takes_steps):
        why = "must be at least 1" if takes_steps else f"decay={given.decay} has no end"
        raise ConfigError(f"{name}.decay_steps={given.decay_steps}: {why}")
    if given.decay == "inverse_root" and not (given.decay_from or given.warmup_steps):
        raise ConfigError(
            f"{name}.decay=inverse_root: falls as the root of (step at which it begins / step), so that it has to "
            f"begin later than at 0; add {name}.warmup_steps=1000"
        )


def _check_dense(optim: Optim) -> None:
    if optim.tables.weight_decay:
        raise ConfigError(
            f"optim.tables.weight_decay={optim.tables.weight_decay}: tables are updated without it, since a row is "
            "only touched in the steps that look it up; use optim.dense.weight_decay, or 0"
        )
    if optim.clip_norm is not None and not optim.clip_norm > 0:
        raise ConfigError(f"optim.clip_norm={optim.clip_norm}: must be above 0, or null")
    if optim.ema is not None and not 0 < optim.ema < 1:
        raise ConfigError(
            f"optim.ema={optim.ema}: is the share of the average that stays in each step, such as 0.999; must be above "
            "0 and below 1, or null"
        )


def _check_computation(config: TrainConfig) -> None:
    if config.precision not in PRECISIONS:
        raise ConfigError(f"precision={config.precision}: unknown{nearest(config.precision, PRECISIONS)}")
    parts = config.micro_batches
    if not 1 <= parts <= config.batch_size:
        raise ConfigError(f"micro_batches={parts}: must be from 1 to batch_size, which is {config.batch_size}")
    if not isinstance(norm := config.model.get("batch_norm", False), bool):
        raise ConfigError(f"model.batch_norm={norm}: must be true or false")
    if norm and parts > 1:
        raise ConfigError(
            f"micro_batches={parts}: with model.batch_norm=true each part would be normalised by itself, which is "
            "another model; choose one of them"
        )
