"""Scores equal those of evaluation, each sample once, in the table's order; and stand whole or not at all."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.train.two_labels import NUM_SAMPLES, add_day, described

from recd_dist.cli import main
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.options import EvaluateConfig, EvaluatedData, EvaluatedReader, PredictConfig, ScoredData
from recd_dist.metrics.quality import measure_quality
from recd_dist.ranks import launcher
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.table.flat import flat_view
from recd_dist.train import score_parts
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the second label of a day; a day of other items was added afterwards."""
    root = tmp_path_factory.mktemp("scored")
    add_day(root, "2026-11-25")
    options = ["data.label=loved_it", "batch_size=64", "max_steps=8", "model.dim=8", "evaluate.split=null"]
    train(load("train", [*described(root), *options, f"run_dir={root / 'run'}"]), alone)
    add_day(root, "2026-11-26", first_item=100)
    return root


def config(root: Path, out: Path | str, *partitions: str, **options: object) -> PredictConfig:
    base = PredictConfig(str(root / "run"), split="train", device="cpu", out=str(out))
    data, reader = ScoredData(partitions=list(partitions) or None), EvaluatedReader(on_bad_id="drop")
    return replace(base, data=data, reader=reader, **options)


def predict(alone: Ranks, root: Path, out: Path, *partitions: str, **options: object) -> pa.Table:
    """The scores as pandas and Polars read them too: the directory by its name."""
    predict_run(config(root, out, *partitions, **options), alone)
    return pq.read_table(out)


def require_same(one: pa.Table, other: pa.Table) -> None:
    """Keys are equal, scores are but for rounding, in the same order."""
    assert one.drop_columns("score_loved_it").equals(other.drop_columns("score_loved_it"))
    np.testing.assert_allclose(one["score_loved_it"], other["score_loved_it"], atol=1e-6)


def test_scores_are_those_of_evaluation(alone: Ranks, root: Path, tmp_path: Path) -> None:
    found = predict(alone, root, tmp_path / "scores", "2026-11-25")
    data = EvaluatedData(partitions=["2026-11-25"])
    wanted = evaluate_run(EvaluateConfig(str(root / "run"), data=data, split="train", device="cpu"), alone)

    score = found["score_loved_it"].to_numpy().astype(np.float64)
    quality = measure_quality(np.log(score / (1 - score)), found["loved_it"], found["request_id"])
    assert quality.num_samples == wanted["num_samples"] == NUM_SAMPLES
    for name in ("auc", "auc_per_request", "loss", "ne", "calibration"):
        assert getattr(quality, name) == pytest.approx(wanted[name], abs=2e-6)


def test_keys_and_columns_are_those_of_the_flat_table(alone: Ranks, root: Path, tmp_path: Path) -> None:
    names = ["sample_id", "session_id", "request_id", "timestamp", "loved_it", "item", "price"]
    found = predict(alone, root, tmp_path / "scores", columns=["item", "price"])
    flat = duckdb.sql(f"select {', '.join(names)} from ({flat_view(root / 'table/train')}) order by sample_id")

    assert found.column_names == [*names, "score_loved_it"]
    assert found.select(names).to_pylist() == flat.to_arrow_table().to_pylist()
    assert len(found) == 2 * NUM_SAMPLES
    assert all(0 < score < 1 for score in found["score_loved_it"].to_pylist())


@pytest.mark.parametrize("options", [{"batch_size": 7}, {"num_workers": 2}])
def test_batches_and_workers_do_not_matter(alone: Ranks, root: Path, tmp_path: Path, options: dict[str, int]) -> None:
    one = predict(alone, root, tmp_path / "one", columns=["item"])
    other = predict(alone, root, tmp_path / "other", columns=["item"], **options)

    require_same(one, other)


def test_unique_rows_give_the_scores_of_expanded_ones(alone: Ranks, root: Path, tmp_path: Path) -> None:
    """The same weights, computed on every sample by itself through plain TorchRec."""
    one = predict(alone, root, tmp_path / "one")
    text = (root / "run/config.yaml").read_text()
    (root / "run/config.yaml").write_text(text.replace("\ndedup: true\n", "\ndedup: false\n"))
    try:
        other = predict(alone, root, tmp_path / "other")
    finally:
        (root / "run/config.yaml").write_text(text)

    assert "\ndedup: true\n" in text
    require_same(one, other)


def test_duckdb_reads_the_files_and_success_names_them(alone: Ranks, root: Path, tmp_path: Path) -> None:
    result = predict_run(config(root, tmp_path / "scores", "2026-11-26"), alone)

    assert json.loads((tmp_path / "scores/_SUCCESS").read_text()) == result
    assert (result["files"], result["num_samples"]) == (["part-000000000000-000000000800.parquet"], NUM_SAMPLES)
    assert duckdb.sql(f"select count(*) from '{tmp_path}/scores/*.parquet'").fetchall() == [(NUM_SAMPLES,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]


def test_scores_are_replaced_only_when_asked_to(alone: Ranks, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    predict(alone, root, out, "2026-11-25")
    with pytest.raises(ConfigError, match="scores are there already; overwrite=true replaces them"):
        predict(alone, root, out)

    assert len(pq.read_table(out)) == NUM_SAMPLES
    assert len(predict(alone, root, out, overwrite=True)) == 2 * NUM_SAMPLES


def test_nothing_else_is_replaced(alone: Ranks, root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out, message in (
        (tmp_path, "something else than scores is there"),
        (tmp_path / "thesis.txt", "a file is there; name a directory"),
        (tmp_path / "a.parquet", r"name a directory: out=.*/a$"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(alone, root, out, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [DataError("damaged"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_scores_and_nothing_new(
    alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise error

    before = predict(alone, root, tmp_path / "scores", "2026-11-25")
    monkeypatch.setattr(score_parts, "write_scores", fail)
    with pytest.raises(type(error)):
        predict(alone, root, tmp_path / "scores", overwrite=True)
    with pytest.raises(type(error)):
        predict(alone, root, tmp_path / "other")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]
    assert pq.read_table(tmp_path / "scores").equals(before)


def test_what_nobody_knows_of_is_swept(alone: Ranks, root: Path, tmp_path: Path) -> None:
    left = tmp_path / ".scores.partial"
    left.mkdir()
    (left / "part-000000000007-000000000009.parquet").write_bytes(b"half")
    found = predict(alone, root, tmp_path / "scores")

    assert len(found) == 2 * NUM_SAMPLES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]


def test_a_store(alone: Ranks, root: Path) -> None:
    """What an interrupted upload has left there is no result, and is replaced."""
    store = MemoryFileSystem()
    store.pipe("/scored/part-000000000000-000000000005.parquet", b"half")
    store.pipe("/.scored.partial/part-000000000005-000000000009.parquet", b"half")
    first = predict_run(config(root, "memory://scored"), alone)
    with pytest.raises(ConfigError, match="scores are there already"):
        predict_run(config(root, "memory://scored"), alone)
    second = predict_run(config(root, "memory://scored", "2026-11-25", overwrite=True), alone)

    assert sorted(path.rpartition("/")[2] for path in store.ls("/scored", detail=False)) == [
        "_SUCCESS",
        "part-000000000000-000000000800.parquet",
    ]
    assert not store.exists("/.scored.partial")
    with store.open("/scored/part-000000000000-000000000800.parquet") as file:
        assert len(pq.read_table(file)) == NUM_SAMPLES
    assert (first["num_samples"], second["num_samples"]) == (2 * NUM_SAMPLES, NUM_SAMPLES)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["itm"], r"columns: the table .* has no column 'itm'; did you mean 'item'\?"),
        (["sample_id"], "columns: 'sample_id' stands there already"),
    ],
)
def test_a_column_that_cannot_stand_there(
    alone: Ranks, root: Path, tmp_path: Path, columns: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(alone, root, tmp_path / "scores", columns=columns)
    assert list(tmp_path.iterdir()) == []


def test_more_ranks_than_samples_are_refused_before_any_starts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "launch", lambda *_: pytest.fail("ranks were started"))
    line = ["predict", f"run_dir={root / 'run'}", "split=train", f"out={tmp_path / 'scores'}", "--nproc", "1601"]
    assert main(line) == 2
    assert "1600 samples for 1601 ranks, each needs at least one" in capsys.readouterr().err


@pytest.fixture
def own_environment() -> Iterator[None]:
    """The launcher sets variables for its ranks: undone at the end of a test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("own_environment")
def test_the_command_on_two_ranks(alone: Ranks, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two files, which together are the file of one rank; what is wrong is said once, in one line."""
    one = predict(alone, root, tmp_path / "one")
    line = ["predict", f"run_dir={root / 'run'}", "split=train", f"out={tmp_path / 'two'}", "reader.on_bad_id=drop"]
    line += ["device=cpu", "--nproc", "2"]
    assert main([*line, "--json", str(tmp_path / "two.json")]) == 0
    said = capfd.readouterr().out
    assert main(line) == 2
    refused = capfd.readouterr().err

    files = ["part-000000000000-000000000800.parquet", "part-000000000800-000000001600.parquet"]
    assert json.loads((tmp_path / "two.json").read_text())["files"] == files
    assert said.startswith(f"1,600 samples of {root / 'table/train'} scored by step 8: {tmp_path / 'two'}/part-*.")
    assert refused.count("scores are there already") == 1
    require_same(pq.read_table(tmp_path / "two"), one)
