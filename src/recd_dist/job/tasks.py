"""From the config's ``tasks`` to the tasks of a job, each on a label of its table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.options import TrainConfig
from recd_dist.job.task_options import TaskOptions
from recd_dist.model.task import CANDIDATES, LOSSES, NEGATIVES, NO_POSITIVE, Task
from recd_dist.model.tower_choice import TOWER_MODELS
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Schema

TASKS = "tasks"
"""Key of a checkpoint's extra values under which its tasks stand."""

_EVALUATION = "eval"
"""The line of the evaluation beside that of training, where curves are named by tasks."""


def find_tasks(config: TrainConfig, manifest: Manifest, table: str) -> tuple[Task, ...]:
    """The tasks of a config, in the order in which it names them; where it names none one of its model's usual loss.

    Args:
        config: the config.
        manifest: the manifest of the table to train on.
        table: what to call the table in a message.

    Raises:
        ConfigError: a task without a label of the table, or a number out of range; the message has the remedy.
    """
    labels = manifest.schema.labels
    if config.data.weight is not None and config.data.weight not in labels:
        raise ConfigError(
            f"data.weight={config.data.weight}: the table {table} has no such column of weights"
            f"{nearest(config.data.weight, labels)}; make it again with this option (`recd etl ... overwrite=true`)"
        )
    if not config.tasks:
        name = config.data.label or first_label(manifest, config.data.weight)
        if name not in labels:
            raise ConfigError(f"data.label={name}: the table has no such label{nearest(name, labels)}")
        return (Task(name, name, usual_loss(config.model)),)
    if config.data.label is not None:
        raise ConfigError(
            f"data.label={config.data.label}: tasks names what is trained ({', '.join(config.tasks)}); leave "
            f"data.label out, or write tasks.{config.data.label}.loss=binary alone"
        )
    given = {name: TaskOptions(**(options or {})) for name, options in config.tasks.items()}
    return tuple(_read_task(name, options, manifest, table) for name, options in given.items())


def usual_loss(model: Mapping[str, Any]) -> str:
    """The loss of the only task, where a config names none.

    Args:
        model: the options of the model, with its name.
    """
    return "in_batch" if model.get("name") in TOWER_MODELS else "binary"


def _read_task(name: str, options: TaskOptions, manifest: Manifest, table: str) -> Task:
    labels, label = manifest.schema.labels, options.label or name
    where = f"tasks.{name}"
    if not name.isidentifier() or name == _EVALUATION:
        raise ConfigError(
            f"{where}: a task is named by letters, digits and _, and not {_EVALUATION}; write tasks.NAME.label={label}"
        )
    if label not in labels:
        known = nearest(label, labels)
        raise ConfigError(
            f"{where}: the table {table} has no label '{label}'{known}; name the column by {where}.label=..., or put "
            "it into data.labels and make the table again with `recd etl ... overwrite=true`"
        )
    if options.loss not in LOSSES:
        raise ConfigError(f"{where}.loss={options.loss}: unknown{nearest(options.loss, LOSSES)}")
    if not (options.weight > 0 and math.isfinite(options.weight)):
        raise ConfigError(f"{where}.weight={options.weight}: must be above 0; leave the task out instead (~{where})")
    kept = options.negatives_kept
    if not 0 < kept <= 1:
        raise ConfigError(f"{where}.negatives_kept={kept}: must be a share above 0 and at most 1, such as 0.1")
    if kept < 1 and options.loss != "binary":
        raise ConfigError(f"{where}.negatives_kept={kept}: {where}.loss={options.loss} has no negatives; leave it out")
    _check_choices(where, options)
    of_items = options.candidates, options.negatives, options.log_q, options.user
    task = Task(name, label, options.loss, options.weight, kept, 0.0, 1.0, *of_items)
    return _with_statistics(task, manifest, table) if task.loss == "regression" else task


_OPTIONS_OF_LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no_positive": ("softmax", NO_POSITIVE),
    "candidates": ("in_batch", CANDIDATES),
    "negatives": ("in_batch", NEGATIVES),
    "log_q": ("in_batch", ()),
    "user": ("in_batch", ()),
}
"""Options that only one loss has: which one, and what they may be; () for anything of their type."""


def _check_choices(where: str, options: TaskOptions) -> None:
    for option, (loss, known) in _OPTIONS_OF_LOSSES.items():
        value = getattr(options, option)
        if options.loss != loss and value != getattr(TaskOptions(), option):
            raise ConfigError(f"{where}.{option}={value}: is an option of {where}.loss={loss}; leave it out")
        if known and value not in known:
            raise ConfigError(f"{where}.{option}={value}: unknown{nearest(value, known)}")


def _with_statistics(task: Task, manifest: Manifest, table: str) -> Task:
    """The task with mean and spread of its label, by which a regression is trained in units that do not matter."""
    stats = manifest.labels.get(task.label)
    if stats is None:
        raise ConfigError(
            f"tasks.{task.name}: the table {table} is of an earlier release and says nothing of the label "
            f"'{task.label}', whose mean and spread a regression needs; make it again (`recd etl ... overwrite=true`)"
        )
    return replace(task, mean=stats.mean, std=stats.std or 1.0)


def first_label(manifest: Manifest, weight: str | None) -> str:
    """The label that is trained on where nobody names one: the first of the table that is no weight.

    Args:
        manifest: the manifest of the table.
        weight: the column of weights; None for none.

    Raises:
        ConfigError: there is none.
    """
    for name in manifest.schema.labels:
        if name != weight:
            return name
    raise ConfigError(
        f"data.weight={weight}: the table {manifest.name} has no other label to train on; add data.labels"
    )


def read_order(schema: Schema, tasks: Sequence[Task]) -> Schema:
    """The schema with the labels of the tasks in front, in their order, and all others behind them."""
    return schema.led_by(dict.fromkeys(task.label for task in tasks))


def require_same_tasks(run_dir: str, before: Mapping[str, Any], now: Mapping[str, Any], label: str) -> None:
    """Refuses a run directory that holds a run of other tasks: the logits' columns would mean something else.

    Args:
        run_dir: the directory.
        before: the config of the run there, as plain values; one of an earlier release names no tasks.
        now: the config of this run.
        label: the label that is trained on where a config names none.

    Raises:
        ConfigError: name, label or loss of a task differ, or their order.
    """
    was, wanted = (_outline(of, of["data"]["label"] or label) for of in (before, now))
    if was == wanted:
        return
    if not (before.get("tasks") or now.get("tasks")):
        if was[0][:2] == wanted[0][:2]:
            return  # the models differ, and with them the usual losses
        told, new, same = f"data.label={was[0][1]}", wanted[0][1], f"data.label={was[0][1]}"
    else:
        told, new = (", ".join(f"{name} ({loss} of {label})" for name, label, loss in of) for of in (was, wanted))
        told, same = f"the tasks {told}", "naming the same tasks in the same order"
    raise ConfigError(
        f"{run_dir} holds a run with {told}, now {new}; {same} goes on with it, another run_dir=... begins beside it, "
        "resume=false starts it afresh"
    )


def _outline(config: Mapping[str, Any], label: str) -> list[tuple[str, str, str]]:
    """Name, label and loss of each task of a config, in order: what the logits' columns mean."""
    if not (tasks := config.get("tasks") or {}):
        return [(label, label, usual_loss(config.get("model") or {}))]
    options = {name: TaskOptions(**(given or {})) for name, given in tasks.items()}
    return [(name, of.label or name, of.loss) for name, of in options.items()]


def keep_statistics(tasks: Sequence[Task], before: Sequence[Task], whose: str) -> tuple[Task, ...]:
    """The tasks with mean and spread as an earlier run had them, whose weights depend on them.

    Args:
        tasks: the tasks of this run.
        before: those of the earlier run.
        whose: how that run was named, for the message.

    Raises:
        ConfigError: the runs have other tasks.
    """
    was, now = ([(task.name, task.loss) for task in of] for of in (before, tasks))
    if was != now:
        shown = [", ".join(f"{name} ({loss})" for name, loss in of) for of in (was, now)]
        raise ConfigError(
            f"{whose}: that run has the tasks {shown[0]}, this one {shown[1]}; name the same in the same order, or "
            "train without run_from"
        )
    return tuple(replace(task, mean=old.mean, std=old.std) for task, old in zip(tasks, before, strict=True))


def tasks_of(extra: Mapping[str, Any], label: str) -> tuple[Task, ...]:
    """The tasks of a checkpoint; one of an earlier release has a binary one.

    Args:
        extra: its extra values.
        label: the first label that it was trained on.
    """
    if TASKS in extra:
        return tuple(map(Task.from_json, extra[TASKS]))
    return (Task(label, label),)
