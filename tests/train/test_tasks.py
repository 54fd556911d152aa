"""Runs of several tasks: their curves, scores and summaries, resumed, begun from, and measured."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.cli import main
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig, EvaluatedData, PredictConfig
from recd_dist.job.preflight import check
from recd_dist.metrics.quality import measure_quality, measure_regression
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.evaluation import evaluate_run, report
from recd_dist.train.prediction import predict_run
from recd_dist.train.summary_text import render
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]
TASKS = ["tasks.clicked.loss=binary", "tasks.watch_s={loss: regression, weight: 0.5}"]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of clicks, of which a tenth are there, and of watch times, which only clicks have."""
    root, random = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    size = 4000
    item, request = random.integers(0, 20, size), np.arange(size) // 5
    clicked = random.random(size) < 0.02 + 0.01 * item
    watch = np.where(clicked, 60.0 + 5 * item + random.normal(size=size), np.nan)
    rows = {
        "session": request // 4,
        "request": request,
        "t": np.arange(size),
        "clicked": clicked.astype(float),
        "watch_s": watch,
        "importance": random.integers(1, 4, size).astype(float),
        "item": item,
        "history": pa.array([[int(r) % 20, int(r) % 7] for r in request // 4]),
        "kept": random.random(size),
        "is_test": np.arange(size) >= 3000,
    }
    pq.write_table(pa.table(rows), root / "raw.parquet")
    assert main(["etl", *described(root)]) == 0
    return root


def described(root: Path, table: str = "table") -> list[str]:
    """The overrides that name a table below a directory."""
    return [
        "data=parquet",
        f"data.path={root / 'raw.parquet'}",
        f"data.table={root / table}",
        "data.keys={session: session, request: request, timestamp: t}",
        "data.labels=[clicked,watch_s]",
        "data.weight=importance",
        "data.policy.unlabelled=keep",
        "data.split=is_test",
        "data.drop=[is_test,kept]",
    ]


@pytest.fixture(scope="module")
def trained(root: Path, alone: Ranks) -> Path:
    run_dir = root / "run"
    options = ["batch_size=64", "model.dim=8", "epochs=2", "log_every=10"]
    train(load("train", [*described(root), *TASKS, *options, f"run_dir={run_dir}"]), alone)
    return run_dir


def evaluated(trained: Path, alone: Ranks, **options: object) -> dict:
    return evaluate_run(EvaluateConfig(str(trained), device="cpu", **options), alone)


def test_a_score_for_each_task_by_which_its_numbers_come_out(trained: Path, alone: Ranks, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    predict_run(PredictConfig(str(trained), device="cpu", out=str(out), columns=["importance"]), alone)
    found = pq.read_table(out)
    assert found.column_names[4:] == ["clicked", "watch_s", "importance", "score_clicked", "score_watch_s"]
    columns = {name: found[name].to_numpy().astype(np.float64) for name in found.column_names}
    logits = np.log(columns["score_clicked"] / (1 - columns["score_clicked"]))
    keys = columns["request_id"].astype(np.int64), columns["importance"]
    wanted = json.loads((trained / "summary.json").read_text())["tasks"]
    clicked = measure_quality(logits, columns["clicked"], *keys).to_json()
    assert clicked == pytest.approx(wanted["clicked"], rel=1e-4)
    watched = measure_regression(columns["score_watch_s"], columns["watch_s"], *keys).to_json()
    assert watched == pytest.approx(wanted["watch_s"], rel=1e-4)
    assert watched["r2"] > 0.5
    assert json.loads((out / "_SUCCESS").read_text())["tasks"][1]["name"] == "watch_s"


def test_people_see_every_task(trained: Path, alone: Ranks) -> None:
    result = evaluated(trained, alone)
    table = report(result)
    assert [column.header for column in table.columns] == ["", "clicked", "watch_s"]
    cells = dict(zip(table.columns[0].cells, zip(*(c.cells for c in table.columns[1:]), strict=True), strict=True))
    assert cells["AUC"][1] == ""
    assert cells["R2"][0] == ""
    assert cells["samples"][0] == "1,000"
    shown = render(json.loads((trained / "summary.json").read_text()))
    rows = dict(zip(*(list(column.cells) for column in shown.columns), strict=True))
    assert rows["clicked, test"].startswith("AUC ")
    assert "RMSE" in rows["watch_s, test"]


def test_curves_have_a_line_for_each_task(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained / "board"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"quality/loss", "quality/loss/clicked", "quality/loss/watch_s", "quality/ne/clicked"} <= tags
    assert {"quality/auc/clicked/eval", "quality/r2/watch_s/eval"} <= tags
    assert "quality/auc" not in tags  # of which task would it be?


def test_a_run_goes_on_with_its_tasks_alone(root: Path, trained: Path) -> None:
    options = [*described(root), f"run_dir={trained}", "batch_size=64", "model.dim=8", "epochs=3"]
    job = check(load("train", [*options, *TASKS, "tasks.watch_s.weight=2"]))
    assert job.tasks[1].weight == 2.0
    for other in (TASKS[:1], TASKS[::-1], [TASKS[0], "tasks.watch_s={loss: regression, label: clicked}"]):
        with pytest.raises(ConfigError, match=r"holds a run with the tasks clicked \(binary of clicked\), watch_s"):
            check(load("train", [*options, *other]))


def test_a_run_begins_with_the_scale_of_the_run_before(root: Path, trained: Path, tmp_path: Path) -> None:
    options = [*described(root), f"run_dir={tmp_path / 'run'}", f"run_from={trained}", "model.dim=8"]
    before = check(load("train", [*options, *TASKS])).tasks[1]
    path = next((trained / "checkpoints").glob("step-*")) / "checkpoint.json"
    text = path.read_text()
    try:
        value = json.loads(text)
        value["extra"]["tasks"][1]["mean"] = 7.0
        path.write_text(json.dumps(value))
        assert check(load("train", [*options, *TASKS])).tasks[1].mean == 7.0 != before.mean
    finally:
        path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"that run has the tasks clicked \(binary\), watch_s \(regression\), this one"
    ):
        check(load("train", [*options, *TASKS[:1]]))


def test_each_task_is_judged_by_its_own_label(trained: Path, alone: Ranks) -> None:
    with pytest.raises(ConfigError, match=r"data\.label=clicked: the run has the tasks clicked, watch_s, and each is"):
        evaluated(trained, alone, data=EvaluatedData(label="clicked"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluate.best=rmse"], r"evaluate\.best=rmse: task 'clicked' has the loss binary, of which loss, ne, auc"),
        (["evaluate.best=watch_s.auc"], r"task 'watch_s' has the loss regression, of which loss, rmse, mae, r2, ndcg"),
        (["evaluate.best=watch.r2"], r"evaluate\.best=watch\.r2: no task 'watch'; did you mean 'watch_s'\?"),
    ],
)
def test_a_number_that_a_task_does_not_have(root: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load("train", [*described(root), *TASKS, f"run_dir={tmp_path}", "evaluate.every=5", *options]))


def test_predictions_make_up_for_negatives_that_were_left_out(root: Path, alone: Ranks, tmp_path: Path) -> None:
    """Trained on a tenth of the negatives, measured on a test split that has all of them."""
    overrides = [*described(root, "sampled"), "data.weight=null", "data.labels=[clicked]"]
    sampled = (
        "select * exclude (watch_s, importance) from read_parquet('{path}') where clicked = 1 or is_test or kept < .1"
    )
    assert main(["etl", *overrides, f"data.samples={sampled}"]) == 0
    options = ["batch_size=64", "model.dim=8", "epochs=8"]
    found = {}
    for kept in (1.0, 0.1):
        run_dir = tmp_path / str(kept)
        given = [*overrides, *options, f"run_dir={run_dir}", f"tasks.clicked.negatives_kept={kept}"]
        found[kept] = train(load("train", given), alone)
    assert found[1.0]["calibration"] > 3
    assert 0.7 < found[0.1]["calibration"] < 1.4
    assert found[0.1]["ne"] < found[1.0]["ne"]
    assert found[0.1]["auc"] == pytest.approx(found[1.0]["auc"])  # the order is the same
    assert math.isfinite(found[0.1]["gauc"])
