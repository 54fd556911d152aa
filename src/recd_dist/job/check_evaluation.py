"""Which split is evaluated, how often, and when training ends early: checked before a rank starts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.check_tasks import check_measured
from recd_dist.job.job import Job
from recd_dist.job.options import EvaluateInTraining, TrainConfig
from recd_dist.model.task import Task
from recd_dist.reader.open_files import AnyTable

BEST_BY = {"ne": -1, "loss": -1, "auc": 1, "auc_per_request": 1, "gauc": 1, "ndcg": 1, "rmse": -1, "mae": -1, "r2": 1}
"""Numbers by which evaluations are compared: 1 where more is better, -1 where less is."""

_IN_LISTS = ("recall", "ndcg")
"""Numbers that a task with the loss ``in_batch`` has at each length of ``evaluate.top``, as ``recall@50``."""

_IN_REQUESTS = ("auc_per_request", "gauc", "ndcg")
_NUMBERS_OF = {
    "binary": ("loss", "ne", "auc", *_IN_REQUESTS),
    "regression": ("loss", "rmse", "mae", "r2", "ndcg"),
    "softmax": ("loss", *_IN_REQUESTS),
    "in_batch": ("loss", *_IN_REQUESTS),
}
"""Which of them a task has, by its loss."""

VALIDATION = "validation"
"""Key of a checkpoint's extra values under which the state of the evaluations stands."""


def find_evaluation_table(job: Job, world_size: int) -> AnyTable | None:
    """The split to evaluate, with a sample for every rank: what is wrong is said before training.

    A table made without a test split is trained without evaluation.

    Args:
        job: the job.
        world_size: the number of ranks.

    Raises:
        ConfigError, DataError: there is no such split, an option of ``evaluate`` does not fit, or its labels do not.
    """
    wanted, splits = job.config.evaluate.split, job.table.splits
    _check_options(job.config.evaluate, job.tasks, has_split=wanted is not None and wanted in splits)
    if wanted is not None and wanted not in splits and not (wanted == "test" and splits == ["train"]):
        raise ConfigError(
            f"evaluate.split={wanted}: the table {job.table.root} has no such split{nearest(wanted, splits)}"
        )
    if wanted is None or wanted not in splits:
        return None
    table = job.table.of_split(wanted)
    if table.manifest.num_samples < world_size:
        raise ConfigError(
            f"evaluate.split={wanted}: {table.manifest.num_samples} samples for {world_size} ranks, each needs at "
            "least one; start fewer ranks, or evaluate.split=null"
        )
    check_measured(table, job.tasks, job.weight)
    return table


def direction(number: str) -> int:
    """1 for a number of which more is better, -1 for one of which less is."""
    return 1 if "@" in number else BEST_BY[number]


def check_lengths(name: str, top: Sequence[int]) -> None:
    """Refuses lengths of lists that are none.

    Args:
        name: the name of the option.
        top: its value.
    """
    if not top or min(top) < 1 or len(set(top)) < len(top):
        raise ConfigError(f"{name}={list(top)}: must be lengths of lists, each at least 1, such as [10,50,100]")


def _check_options(options: EvaluateInTraining, tasks: Sequence[Task], has_split: bool) -> None:
    for name in ("batch_size", "every", "patience"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"evaluate.{name}={value}: must be at least 1, or null")
    check_lengths("evaluate.top", options.top)
    if options.best is not None and (options.every is not None or options.best.rpartition(".")[2] not in BEST_BY):
        _check_best(options.best, tasks, options.top)
    if options.every is not None and not has_split:
        raise ConfigError(
            f"evaluate.every={options.every}: there is no split to evaluate; make the table with data.split=0.1, or "
            "evaluate.every=null"
        )
    if options.patience is not None and (options.every is None or options.best is None):
        missing = "evaluate.every=500" if options.every is None else "evaluate.best=ne"
        raise ConfigError(f"evaluate.patience={options.patience}: needs evaluations to compare; add {missing}")
    if not 0 <= (least := options.min_improvement) < math.inf:
        raise ConfigError(f"evaluate.min_improvement={least}: must be a number, at least 0")
    if options.min_improvement and options.patience is None:
        raise ConfigError(f"evaluate.min_improvement={least}: is for a patience; add evaluate.patience=3, or 0")


def _check_best(best: str, tasks: Sequence[Task], top: Sequence[int]) -> None:
    """Refuses a number that no evaluation has: those of the first task by their names, of others as TASK.NAME."""
    name, _, number = best.rpartition(".")
    of_task = {task.name: task for task in tasks}
    if name and name not in of_task:
        raise ConfigError(f"evaluate.best={best}: no task '{name}'{nearest(name, of_task)}")
    task = of_task.get(name, tasks[0])
    known: tuple[str, ...] = _NUMBERS_OF[task.loss]
    if task.loss == "in_batch":
        known = (*(f"{name}@{length}" for name in _IN_LISTS for length in top), *known)
    if number in BEST_BY and number not in known:
        raise ConfigError(
            f"evaluate.best={best}: task '{task.name}' has the loss {task.loss}, of which {', '.join(known)} are "
            "measured; choose one of these, or a number of another task as TASK.NAME"
        )
    if number not in known:
        raise ConfigError(f"evaluate.best={best}: unknown{nearest(best, known)}")


def find_number(numbers: Mapping[str, Any], best: str) -> float:
    """The number of an evaluation by which it is compared with others.

    Args:
        numbers: what was measured.
        best: its name for the first task, ``TASK.NAME`` for any other.
    """
    name, _, number = best.rpartition(".")
    of_task: Mapping[str, Any] = numbers["tasks"][name] if name and "tasks" in numbers else numbers
    return float(of_task[number])


def is_out_of_patience(config: TrainConfig, extra: Mapping[str, Any]) -> bool:
    """Whether a run has ended early, because its evaluations did not become better any more.

    Args:
        config: the config of the run.
        extra: the extra values of its newest checkpoint.
    """
    patience = config.evaluate.patience
    return patience is not None and int(extra.get(VALIDATION, {}).get("since_best", 0)) >= patience
