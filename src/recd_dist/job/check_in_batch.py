"""What towers and negatives of the batch need: said before a rank starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.job.job import Job
from recd_dist.model.task import Task
from recd_dist.model.tower_choice import TOWER_MODELS, check_towers, find_towers
from recd_dist.table.schema import Kind

_OF_TOWERS = ("in_batch", "softmax")
"""The losses of a model with towers, whose score is a product and no logit of a probability."""


def check_in_batch(job: Job, world_size: int) -> None:
    """Refuses the loss ``in_batch`` without towers, towers without it, and batches without negatives.

    Args:
        job: the job, resolved against its table.
        world_size: the number of ranks.

    Raises:
        ConfigError, DataError: the message names the option or the column, and the remedy.
    """
    model = str(job.config.model.get("name"))
    _check_losses(model, job.tasks)
    if model not in TOWER_MODELS:
        return
    check_towers(model, job.schema, job.config.model)
    _check_sizes(job.config.model)
    for task in job.tasks:
        if task.loss == "in_batch":
            _check_users(job, task, world_size)
            _check_items(job)


def _check_losses(model: str, tasks: Sequence[Task]) -> None:
    for task in tasks:
        if task.loss == "in_batch" and model not in TOWER_MODELS:
            raise ConfigError(
                f"tasks.{task.name}.loss=in_batch: model '{model}' has no towers, of which the loss compares all items "
                f"of a batch; use model=two_tower, or tasks.{task.name}.loss=binary"
            )
        if model in TOWER_MODELS and task.loss not in _OF_TOWERS:
            raise ConfigError(
                f"tasks.{task.name}.loss={task.loss}: the score of model '{model}' orders items and is no probability; "
                f"write tasks.{task.name}.loss=in_batch, or softmax for the samples of a request"
            )


def _check_sizes(options: Mapping[str, Any]) -> None:
    for name in ("query_tower", "item_tower"):
        sizes = options.get(name, [])
        if not isinstance(sizes, list) or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
            raise ConfigError(
                f"model.{name}={sizes}: must be a list of widths, each at least 1, such as [128,64] or []"
            )
    temperature = options.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
        raise ConfigError(f"model.temperature={temperature}: scores are divided by it, it must be above 0, such as 0.1")
    if not isinstance(normalize := options.get("normalize", True), bool):
        raise ConfigError(f"model.normalize={normalize}: must be true or false")


def _check_users(job: Job, task: Task, world_size: int) -> None:
    """A sample has the items of other users as negatives, so that a batch needs several of them."""
    table, where = job.table, f"tasks.{task.name}"
    if task.user is not None:
        ids = [f.name for f in job.schema.sparse if f.kind is Kind.id]
        if task.user not in ids:
            raise ConfigError(f"{where}.user={task.user}: no single id of the table{nearest(task.user, ids)}")
        name = str(job.schema[task.user].table)
        if job.tables[name].mapped:
            raise ConfigError(
                f"data.tables.{name}.mapped=true: {where}.user={task.user} tells users by it, and all whose id has no "
                "row would be one user; leave it out, or name another feature"
            )
        known = table.whole.manifest.ids.get(name)
        if known is not None and known.num_distinct < 2:
            raise DataError(
                f"{table.path}: '{task.user}' is the same in every sample, and items of one user are no negatives of "
                f"each other; name another feature by {where}.user=..., or leave it out to go by sessions"
            )
        return
    if job.manifest.num_sessions < 2:
        raise DataError(
            f"{table.path}: one session holds all samples, and its items are no negatives of each other; name the "
            f"sessions in the ETL (data.keys.session), or an id feature by {where}.user=..."
        )
    num_together = job.config.batch_size * (world_size if task.negatives == "all_ranks" else 1)
    per_session = job.manifest.num_samples / job.manifest.num_sessions
    if num_together <= per_session:
        raise ConfigError(
            f"batch_size={job.config.batch_size}: {num_together} samples are compared at a time, and a session has "
            f"{per_session:.1f} in the mean, so that most batches hold one session and no negatives; use at least "
            f"batch_size={int(8 * per_session) + 1}, or name the users by {where}.user=..."
        )


def _check_items(job: Job) -> None:
    options = job.config.model
    item = find_towers(job.schema, options.get("query"), options.get("item")).item[0]
    if job.tables[str(job.schema[item].table)].mapped:
        raise ConfigError(
            f"data.tables.{job.schema[item].table}.mapped=true: tasks with the loss in_batch tell items by '{item}', "
            "and rows that pass from one id to another would make several items one; leave it out"
        )
    known = job.table.whole.manifest.ids.get(str(job.schema[item].table))
    if known is not None and known.num_distinct < 2:
        raise DataError(
            f"{job.table.path}: '{item}' is the same in every sample, so that there is nothing to choose among; name "
            "the feature that says which item a sample has by model.item=[...]"
        )
