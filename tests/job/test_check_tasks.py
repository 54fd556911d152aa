"""Labels, tasks and weights that training refuses, by the manifest and in tables of older releases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.job.check_tasks import check_measured, check_tasks
from recd_dist.job.config import load
from recd_dist.job.job import Job, resolve
from recd_dist.job.options import TrainConfig
from recd_dist.model.task import Task
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable


def table(path: Path, labels: list[float]) -> ClusteredTable:
    rows = {"session": [i // 4 for i in range(len(labels))], "item": [i % 7 for i in range(len(labels))], "y": labels}
    pq.write_table(pa.table(rows), path / "raw.parquet")
    named = {"name": "shop", "path": str(path / "raw.parquet"), "keys": {"session": "session"}, "labels": ["y"]}
    etl(Source.from_dict(named), path / "out", progress=False)
    return ClusteredTable.load(path / "out" / "train")


def job_on(table: ClusteredTable) -> Job:
    schema = table.manifest.schema
    return Job(TrainConfig(), table, schema, {}, Transforms({}), tasks=(Task("y", "y"),))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1, 0] * 5, None),
        ([1, 2, 3, 5] * 5, r"label 'y' goes from 1 to 5, training takes 0 and 1 only; .*\(\(y > 3\)::int as y\)"),
        ([-1, 1, 1, -1] * 5, r"from -1 to 1, .*\(\(y > 0\)::int as y\)"),
        ([0, 1, 0.5, 0] * 5, r"from 0 to 1, training takes 0 and 1 only; .*\(\(y > 0.5\)::int as y\)"),
        ([0] * 20, r"label 'y' is 0 in every sample, so there is nothing to learn"),
    ],
)
def test_only_binary_labels_are_trained_on(tmp_path, labels, message, older):
    made = table(tmp_path, labels)
    assert "y" in made.manifest.labels
    if older:
        made = replace(made, manifest=replace(made.manifest, labels={}))
    if message is None:
        check_tasks(job_on(made))
        return
    with pytest.raises(DataError, match=message):
        check_tasks(job_on(made))


# --- several labels, weights and requests ---


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a table: requests 0 and 5 have no click, half of the likes are missing, all rates are."""
    path = tmp_path_factory.mktemp("log")
    size = 40
    rows = {
        "session": [i // 8 for i in range(size)],
        "request": [i // 4 for i in range(size)],
        "item": [i % 7 for i in range(size)],
        "clicked": [float(i % 4 == 1 and i // 4 not in (0, 5)) for i in range(size)],
        "watch_s": [float(i) for i in range(size)],
        "liked": [float(i % 3 == 0) if i % 2 else None for i in range(size)],
        "rated": pa.array([None] * size, pa.float32()),
        "same": [3.0] * size,
        "heavy": [float(i - 2) for i in range(size)],
        "weight": [0.5 + i % 3 for i in range(size)],
    }
    pq.write_table(pa.table(rows), path / "raw.parquet")
    named = {"name": "log", "path": str(path / "raw.parquet"), "keys": {"session": "session", "request": "request"}}
    labels = ["clicked", "watch_s", "liked", "rated", "same", "heavy"]
    options = {"labels": labels, "weight": "weight", "policy": {"unlabelled": "keep"}}
    etl(Source.from_dict(named | options), path / "out", progress=False)
    return ["data=parquet", f"data.table={path / 'out'}", f"data.labels=[{','.join(labels)}]", "data.weight=weight"]


def judge(*overrides: str) -> Job:
    job = resolve(load("train", overrides))
    check_tasks(job)
    return job


def test_the_first_label_is_the_task_where_none_is_named(log: list[str]) -> None:
    assert judge(*log).tasks == (Task("clicked", "clicked"),)


def test_tasks_in_their_order_with_the_statistics_of_their_labels(log: list[str]) -> None:
    named = [
        "tasks.long.label=watch_s",
        "tasks.long.loss=regression",
        "tasks.long.weight=0.1",
        "tasks.liked.loss=binary",
    ]
    job = judge(*log, *named)
    long, liked = job.tasks
    assert (long.name, long.weight, long.mean) == ("long", 0.1, 19.5)
    assert long.std == pytest.approx(np.arange(40).std())
    assert liked == Task("liked", "liked")
    assert job.schema.labels[:2] == ("watch_s", "liked")
    assert job.weight == "weight"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tasks.watch_s.loss=binary"],
            r"label 'watch_s' goes from 0 to 39, .*tasks\.watch_s\.loss=regression predicts",
        ),
        (
            ["tasks.rated.loss=binary"],
            r"label 'rated' is missing in every sample, so task 'rated' has nothing to learn",
        ),
        (["tasks.rated.loss=regression"], r"label 'rated' is missing in every sample"),
        (["tasks.same.loss=regression"], r"label 'same' is 3 in every sample, so there is nothing to learn"),
        (["tasks.stars.loss=binary"], r"tasks\.stars: the table .* has no label 'stars'; .*tasks\.stars\.label="),
        (["tasks.watch.loss=regression"], r"has no label 'watch'; did you mean 'watch_s'\?; name the column by"),
        (
            ["tasks.clicked.loss=hinge"],
            r"tasks\.clicked\.loss=hinge: unknown; there are: binary, in_batch, regression, softmax",
        ),
        (["tasks.clicked.weight=0"], r"tasks\.clicked\.weight=0\.0: must be above 0; leave the task out"),
        (["tasks.clicked.weight=nan"], r"tasks\.clicked\.weight=nan: must be above 0"),
        (["tasks.clicked.negatives_kept=0"], r"negatives_kept=0\.0: must be a share above 0 and at most 1"),
        (
            ["tasks.watch_s={loss: regression, negatives_kept: 0.5}"],
            r"negatives_kept=0\.5: tasks\.watch_s\.loss=regression has no negatives",
        ),
        (["tasks.eval.label=clicked"], r"tasks\.eval: a task is named by letters, digits and _, and not eval"),
        (
            ["tasks.clicked.loss=binary", "data.label=liked"],
            r"data\.label=liked: tasks names what is trained \(clicked\)",
        ),
        (["tasks.clicked.loss=softmax"], r"2 of 10 requests have no sample with clicked=1.*no_positive=skip"),
        (["tasks.clicked={loss: softmax, no_positive: skp}"], r"no_positive=skp: unknown; did you mean 'skip'\?"),
        (["tasks.clicked.no_positive=skip"], r"no_positive=skip: is an option of tasks\.clicked\.loss=softmax"),
        (["data.weight=heavy", "data.label=clicked"], r"weight 'heavy' goes down to -2; weights are at least 0"),
        (["data.weight=liked", "data.label=clicked"], r"weight 'liked' is missing in 20 samples; say what they weigh"),
        (["data.weight=wait"], r"data\.weight=wait: the table .* has no such column of weights; did you mean 'weight'"),
        (["data.label=weight"], r"data\.weight=weight: task 'weight' is trained on it; a weight is no label"),
    ],
)
def test_what_is_refused_before_a_rank_starts(log: list[str], overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        judge(*log, *overrides)


def test_requests_without_a_positive_are_passed_over_where_that_is_said(log: list[str]) -> None:
    assert judge(*log, "tasks.clicked={loss: softmax, no_positive: skip}").tasks[0].loss == "softmax"


def test_a_negative_weight_ends_the_etl(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": [1, 2], "y": [0.0, 1.0], "w": [1.0, -0.5]}), tmp_path / "raw.parquet")
    named = {"name": "log", "path": str(tmp_path / "raw.parquet"), "labels": ["y"], "weight": "w"}
    with pytest.raises(DataError, match=r"weight 'w' is -0\.5 in row 1 .*weights are numbers of at least 0"):
        etl(Source.from_dict(named), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def split_of(path: Path, **columns: list) -> ClusteredTable:
    """The test split of a log whose training split is right: labels y, and w, which may be taken as weights."""
    rows = {"session": [0, 0, 1, 1], "item": [1, 2, 1, 2], "is_test": [False, False, True, True]}
    given = {"y": [0.0, 1.0, *columns.get("y", [0.0, 1.0])], "w": [1.0, 1.0, *columns.get("w", [1.0, 1.0])]}
    pq.write_table(pa.table({**rows, **given}), path / "raw.parquet")
    named = {"name": "log", "path": str(path / "raw.parquet"), "keys": {"session": "session"}, "labels": ["y", "w"]}
    options = {"policy": {"unlabelled": "keep"}, "split": "is_test", "drop": ["is_test"]}
    etl(Source.from_dict(named | options), path / "out", progress=False)
    return ClusteredTable.load(path / "out" / "test")


@pytest.mark.parametrize(
    ("columns", "loss", "message"),
    [
        ({"y": [0.0, 2.0]}, "binary", r"out/test: label 'y' goes from 0 to 2"),
        ({"y": [0.0, 2.0]}, "softmax", r"out/test: label 'y' goes from 0 to 2"),
        ({"w": [1.0, -1.0]}, "binary", r"out/test: weight 'w' goes down to -1"),
        ({"w": [1.0, None]}, "binary", r"out/test: weight 'w' is missing in 1 samples"),
        ({"y": [0.0, 2.0]}, "regression", None),
        ({"y": [1.0, 1.0]}, "binary", None),
        ({"y": [None, None]}, "binary", None),
        ({"w": [0.0, 0.0]}, "binary", None),
    ],
)
def test_a_split_that_is_evaluated_has_labels_and_weights_that_can_be_measured(
    tmp_path: Path, columns: dict[str, list], loss: str, message: str | None
) -> None:
    table = split_of(tmp_path, **columns)
    if message is None:
        check_measured(table, [Task("y", "y", loss)], "w")
        return
    with pytest.raises(DataError, match=message):
        check_measured(table, [Task("y", "y", loss)], "w")
