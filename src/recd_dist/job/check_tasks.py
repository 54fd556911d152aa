"""What tasks, labels and weights must be for training to mean something: said before a rank starts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recd_dist.errors import ConfigError, DataError
from recd_dist.job.check_in_batch import check_in_batch
from recd_dist.job.job import Job
from recd_dist.job.task_options import TaskOptions
from recd_dist.model.task import Task
from recd_dist.reader.open_files import AnyTable
from recd_dist.screen.command_line import command_line
from recd_dist.table.binary_label import binary_label_cure
from recd_dist.table.location import arrow_input, report_store_errors
from recd_dist.table.schema import REQUEST_ID

_NUM_PARTS = 64  # that are read where the manifest does not tell; what was not read is taken to be right
_AGAIN = "and make the table again with `recd etl ... overwrite=true`"


def check_tasks(job: Job, world_size: int = 1) -> None:
    """Refuses labels that do not fit their tasks, and weights that are none.

    Args:
        job: the job, resolved against its table.
        world_size: the number of ranks.

    Raises:
        ConfigError, DataError: the message names the column, the value found and the remedy.
    """
    for task in job.tasks:
        if task.label == job.weight:
            raise ConfigError(f"data.weight={job.weight}: task '{task.name}' is trained on it; a weight is no label")
        values = _Values.of(job.table, task.label)
        if not values.num:
            raise DataError(
                f"{job.table.path}: label '{task.label}' is missing in every sample, so task '{task.name}' has nothing "
                f"to learn from; leave the task out, or fill the column in data.samples {_AGAIN}"
            )
        (_check_number if task.loss == "regression" else _check_binary)(job.table, task, values)
        if task.loss == "softmax" and TaskOptions(**(job.config.tasks.get(task.name) or {})).no_positive == "error":
            _check_requests(job.table, task)
    check_in_batch(job, world_size)
    if job.weight is not None:
        _check_weights(job.table, job.weight, _Values.of(job.table, job.weight))


def check_measured(table: AnyTable, tasks: Sequence[Task], weight: str | None) -> None:
    """Refuses labels by which a task cannot be measured, and weights that are none, in a split that is evaluated.

    Labels of one class, and labels that are all missing, leave numbers undefined and are no error there.

    Args:
        table: the split.
        tasks: the tasks, whose labels it has.
        weight: the column of the samples' weights; None where each counts once.

    Raises:
        DataError: the message names the column, the value found and the remedy.
    """
    for task in tasks:
        values = _Values.of(table, task.label)
        if values.num and task.loss != "regression":
            _check_zeros_and_ones(table, task, values)
    if weight is not None and table.manifest.num_samples:
        _check_weights(table, weight, _Values.of(table, weight), is_trained=False)


@dataclass(frozen=True)
class _Values:
    """The values of a label: by the manifest, or by its column in a table of an older release.

    Attributes:
        num, num_missing: samples that have it, and that lack it.
        low, high: the smallest and the largest value.
        is_binary: whether all are 0 or 1.
    """

    num: int
    num_missing: int
    low: float
    high: float
    is_binary: bool

    @staticmethod
    def of(table: AnyTable, label: str) -> "_Values":
        stats = table.manifest.labels.get(label)
        if stats is None:
            return _Values._read(table, label)
        variance = stats.mean * (1 - stats.mean)  # of zeros and ones, and of nothing else between 0 and 1
        is_binary = stats.min >= 0 and stats.max <= 1 and math.isclose(stats.std**2, variance, abs_tol=1e-9)
        num = table.whole.manifest.num_samples - stats.num_null
        return _Values(num, stats.num_null, stats.min, stats.max, is_binary)

    @staticmethod
    def _read(table: AnyTable, label: str) -> "_Values":
        num, low, high, is_binary = 0, math.inf, -math.inf, True
        for (values,) in _read_columns(table, label):
            low, high, num = min(low, float(values.min())), max(high, float(values.max())), num + len(values)
            is_binary = is_binary and bool(np.isin(values, (0, 1)).all())
        if is_binary and len(table.manifest.parts) > _NUM_PARTS:
            low, high = 0.0, 1.0
        return _Values(num, 0, low, high, is_binary)


def _read_columns(table: AnyTable, *names: str) -> Iterator[list[NDArray[Any]]]:
    """Some columns of the samples, part by part."""
    for part in table.manifest.parts[:_NUM_PARTS]:
        path = table.path / part.samples.path
        with report_store_errors(path):
            rows = pq.read_table(arrow_input(path), columns=list(names))
        yield [np.asarray(rows[name].to_numpy()) for name in names]


def _check_zeros_and_ones(table: AnyTable, task: Task, values: _Values) -> None:
    label, low, high = task.label, values.low, values.high
    if not values.is_binary:
        number = f"{command_line(f'tasks.{task.name}.loss=regression')} predicts the number itself"
        raise DataError(
            f"{table.path}: label '{label}' goes from {low:g} to {high:g}, training takes 0 and 1 only; "
            f"{binary_label_cure(label, low, high)}, {_AGAIN}; {number}"
        )


def _check_binary(table: AnyTable, task: Task, values: _Values) -> None:
    _check_zeros_and_ones(table, task, values)
    label, low, high = task.label, values.low, values.high
    if low == high and (task.loss != "in_batch" or low == 0):
        raise DataError(
            f"{table.path}: label '{label}' is {low:g} in every sample, so there is nothing to learn; "
            f"{binary_label_cure(label, low, high)}, {_AGAIN}"
        )


def _check_number(table: AnyTable, task: Task, values: _Values) -> None:
    if values.low == values.high:
        raise DataError(
            f"{table.path}: label '{task.label}' is {values.low:g} in every sample, so there is nothing to learn; "
            f"leave task '{task.name}' out, or bring samples with other values into data.samples, {_AGAIN}"
        )


def _check_weights(table: AnyTable, weight: str, values: _Values, is_trained: bool = True) -> None:
    cure = f"such as select * replace (greatest(coalesce({weight}, 0), 0) as {weight}) in data.samples, {_AGAIN}"
    if values.num_missing:
        raise DataError(
            f"{table.path}: weight '{weight}' is missing in {values.num_missing:,} samples; say what they weigh, {cure}"
        )
    if values.low < 0:
        raise DataError(f"{table.path}: weight '{weight}' goes down to {values.low:g}; weights are at least 0, {cure}")
    if is_trained and not values.high > 0:
        raise DataError(f"{table.path}: weight '{weight}' is 0 in every sample, so that none counts; choose another")


def _check_requests(table: AnyTable, task: Task) -> None:
    """Refuses requests without a candidate that is chosen: a softmax over them says nothing."""
    num_requests = num_empty = 0
    example = None
    for label, requests in _read_columns(table, task.label, REQUEST_ID):
        known = ~np.isnan(label)
        ids, place = np.unique(requests[known], return_inverse=True)
        positives = np.bincount(place, label[known], len(ids))
        num_requests += len(ids)
        if (empty := positives == 0).any():
            num_empty += int(empty.sum())
            example = example if example is not None else int(ids[int(empty.argmax())])
    if num_empty:
        raise DataError(
            f"{table.path}: {num_empty:,} of {num_requests:,} requests have no sample with {task.label}=1, such as "
            f"{REQUEST_ID} {example}, and a softmax over a request needs one; tasks.{task.name}.no_positive=skip "
            f"passes over them, or leave them out in data.samples {_AGAIN}"
        )
