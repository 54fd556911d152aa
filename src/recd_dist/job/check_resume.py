"""Refuses to go on in a run directory whose run has another model, label or table: said before a rank starts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.job.config import shipped_model
from recd_dist.job.dotted_names import dotted_names, value_at
from recd_dist.job.job import Job
from recd_dist.job.run_places import config_of_run
from recd_dist.job.tasks import first_label, require_same_tasks

_KEPT = ("model.name", "model", "seed", "dedup", "plan.expand", "data.weight", "run_from", "progressive", "optim.ema")
"""Options, and sections, that a run keeps. A model of another name has other options: they say nothing more."""


def check_resume(job: Job) -> None:
    """Refuses a run directory that holds a run of another model, label or table.

    Args:
        job: the job, resolved against its table.

    Raises:
        ConfigError: the message names the option, both values and how to go on.
    """
    config = job.config
    before = config_of_run(config) if config.resume else None
    if before is None:
        return
    now = asdict(config)
    _require_same_transforms(config.run_dir, before, now)
    before.setdefault("progressive", False)  # a config that an earlier release has left in a checkpoint
    before["model"] = {**shipped_model(before["model"].get("name")), **before["model"]}
    require_same_tasks(config.run_dir, before, now, first_label(job.manifest, job.weight))
    for kept in _KEPT:
        if value_at(before, kept) != value_at(now, kept):
            name = _first_difference(kept, before, now)
            was, wanted = (_as_typed(value_at(of, name)) for of in (before, now))
            same = f"model={was}" if name == "model.name" else f"{name}={was}"
            raise ConfigError(
                f"{config.run_dir} holds a run with {name}={was}, now {wanted}; {same} goes on with it, another "
                "run_dir=... begins beside it, resume=false starts it afresh"
            )


def _require_same_transforms(run_dir: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses features that are transformed in another way: weights were learnt from what transforms gave."""
    was, wanted = (_transforms_of(config) for config in (before, now))
    for name in sorted({*was, *wanted}):
        if was.get(name) != wanted.get(name):
            raise ConfigError(
                f"{run_dir} holds a run with data.features.{name}.transforms={_as_typed(was.get(name))}, now "
                f"{_as_typed(wanted.get(name))}; the same transforms go on with it, another run_dir=... begins beside "
                "it, resume=false starts it afresh"
            )


def _transforms_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The transforms of each feature for which a config names some, none at all included."""
    features = value_at(config, "data.features") or {}
    given = {name: (options or {}).get("transforms") for name, options in features.items()}
    return {name: transforms for name, transforms in given.items() if transforms is not None}


def _first_difference(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first option of a section that differs, by its whole name."""
    names = sorted({*dotted_names({name: value_at(before, name)}), *dotted_names({name: value_at(now, name)})})
    return next((n for n in names if value_at(before, n) != value_at(now, n)), name)


def _as_typed(value: object) -> str:
    """A value as people type it in an override."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
