"""Scores of unique rows are those of expanded rows and of the logits of an evaluation: models, one rank and two."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.train.two_labels import NUM_SAMPLES, described, write_day

from recd_dist.cli import main
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import evaluation
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]

MODELS = {
    "dlrm": ["model=dlrm"],
    "transformer": ["model=transformer"],
    "din": ["model=din"],
    "hstu": ["model=hstu"],
    "two_tower": ["model=two_tower", "model.item=[item]"],
    "two tasks": ["model=mmoe", "tasks={clicks: {label: clicked}, loves: {label: loved_it}}"],
}
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, in whose group eight samples share a row."""
    root = tmp_path_factory.mktemp("equal")
    write_day(root / "day.parquet", "2026-11-25")
    assert main(["etl", *data_of(root), f"data.path={root / 'day.parquet'}", "row_group_samples=256"]) == 0
    return root


@pytest.fixture
def own_environment() -> Iterator[None]:
    """The launcher sets variables for its ranks: undone at the end of a test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def data_of(root: Path) -> list[str]:
    return [*described(root), "data.features={history: {table: item}}", "data.groups={user: [history]}"]


def scores_of(directory: Path) -> np.ndarray:
    """The columns of scores, float32 [samples, tasks]."""
    found = pq.read_table(directory)
    return np.stack([found[name].to_numpy() for name in found.column_names if name.startswith("score_")], 1)


@pytest.mark.usefixtures("own_environment")
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_equal(alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = tmp_path / "run"
    options = [*MODELS[name], "model.dim=8", "batch_size=64", "max_steps=4", "evaluate.split=null", f"run_dir={run}"]
    train(load("train", [*data_of(root), *options]), alone)
    line = [f"run_dir={run}", "split=train", "device=cpu"]
    predict_run(load("predict", [*line, f"out={tmp_path / 'unique'}"]), alone)
    unique = scores_of(tmp_path / "unique")
    assert len(unique) == NUM_SAMPLES
    assert unique.std() > 0

    logits: dict[str, Any] = {}
    measure = evaluation.measure_task

    def keep(loss: str, found: Any, *others: Any) -> Any:
        logits[str(len(logits))] = found
        return measure(loss, found, *others)

    monkeypatch.setattr(evaluation, "measure_task", keep)
    evaluate_run(load("evaluate", line), alone)
    known = np.stack([np.asarray(found, np.float64) for found in logits.values()], 1)
    wanted = known if name == "two_tower" else 1 / (1 + np.exp(-known))
    np.testing.assert_allclose(unique, wanted, atol=TOLERANCE)

    config = run / "config.yaml"
    config.write_text(config.read_text().replace("\ndedup: true\n", "\ndedup: false\n"))
    predict_run(load("predict", [*line, f"out={tmp_path / 'expanded'}"]), alone)
    np.testing.assert_allclose(scores_of(tmp_path / "expanded"), unique, atol=TOLERANCE)
    if name == "transformer":
        config.write_text(config.read_text().replace("\ndedup: false\n", "\ndedup: true\n"))
        assert main(["predict", *line, f"out={tmp_path / 'two'}", "batch_size=100", "--nproc", "2"]) == 0
        np.testing.assert_allclose(scores_of(tmp_path / "two"), unique, atol=TOLERANCE)
