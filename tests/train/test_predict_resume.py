"""A prediction that was stopped goes on, exactly once; and keeps the best samples of each request."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.train.two_labels import NUM_SAMPLES, add_day, described

from recd_dist.cli import main
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.job.options import PredictConfig
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import prediction
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resumed")
    add_day(root, "2026-11-25")
    options = ["data.label=clicked", "batch_size=64", "max_steps=4", "model.dim=8", "evaluate.split=null"]
    train(load("train", [*described(root), *options, f"run_dir={root / 'run'}"]), alone)
    return root


@pytest.fixture
def own_environment() -> Iterator[None]:
    """The launcher sets variables for its ranks: undone at the end of a test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def line(root: Path, out: Path | str, *overrides: str) -> list[str]:
    return [f"run_dir={root / 'run'}", "split=train", "device=cpu", f"out={out}", *overrides]


def config(root: Path, out: Path | str, *overrides: str) -> PredictConfig:
    loaded: PredictConfig = load("predict", line(root, out, "samples_per_file=100", "batch_size=40", *overrides))
    return loaded


def count_batches(monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**9) -> list[int]:
    """Counts the samples of each batch that is scored, and stops the prediction after some batches."""
    sizes: list[int] = []
    score = prediction.output_of

    def counted(model: Any, batch: Any, device: Any) -> Any:
        if len(sizes) == stop_after:
            raise KeyboardInterrupt
        sizes.append(batch.batch_size)
        return score(model, batch, device)

    monkeypatch.setattr(prediction, "output_of", counted)
    return sizes


def stop(alone: Ranks, root: Path, out: Path | str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """A prediction that is stopped after 480 of 800 samples, of which 400 lie in finished parts."""
    with monkeypatch.context() as patched:
        count_batches(patched, stop_after=12)
        with pytest.raises(KeyboardInterrupt):
            predict_run(config(root, out, *overrides), alone)


def parts_of(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(directory.glob("part-*"))}


def test_what_is_finished_is_kept(alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(alone, root, tmp_path / "out", monkeypatch)
    kept = parts_of(tmp_path / ".out.partial")
    assert kept
    assert not (tmp_path / "out").exists()

    sizes = count_batches(monkeypatch)
    predict_run(config(root, tmp_path / "out"), alone)
    assert sum(sizes) == NUM_SAMPLES - 100 * len(kept)
    assert kept.items() <= parts_of(tmp_path / "out").items()
    assert len(parts_of(tmp_path / "out")) == 8
    predict_run(config(root, tmp_path / "whole"), alone)
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_damaged_part_and_one_that_was_written_halfway(
    alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(alone, root, tmp_path / "out", monkeypatch)
    first = min((tmp_path / ".out.partial").glob("part-*"))
    first.write_bytes(first.read_bytes()[:50])
    (tmp_path / ".out.partial/.part-000000000400.tmp").write_bytes(b"half")
    predict_run(config(root, tmp_path / "out"), alone)

    assert len(set(pq.read_table(tmp_path / "out")["sample_id"].to_pylist())) == NUM_SAMPLES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("changed", ["columns=[price]", "data.label=loved_it", "reader.on_bad_id=drop", "top=3"])
def test_another_prediction_does_not_go_on(
    alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    stop(alone, root, tmp_path / "out", monkeypatch)
    before = parts_of(tmp_path / ".out.partial")
    with pytest.raises(ConfigError, match=r"holds a prediction that was stopped, with .*begin anew by resume=false"):
        predict_run(config(root, tmp_path / "out", changed), alone)
    assert parts_of(tmp_path / ".out.partial") == before

    result = predict_run(config(root, tmp_path / "out", changed, "resume=false"), alone)
    assert result["num_samples"] == NUM_SAMPLES


def test_two_at_once_are_refused(alone: Ranks, root: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    with (tmp_path / ".out.partial/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another `recd predict` is writing there"):
            predict_run(config(root, tmp_path / "out"), alone)


def test_in_a_store(alone: Ranks, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryFileSystem()
    stop(alone, root, "memory://stopped/out", monkeypatch)
    kept = [name for name in store.ls("/stopped/.out.partial", detail=False) if "part-" in name.rpartition("/")[2]]
    sizes = count_batches(monkeypatch)
    result = predict_run(config(root, "memory://stopped/out"), alone)

    assert kept
    assert sum(sizes) == NUM_SAMPLES - 100 * len(kept)
    assert [len(result["files"]), store.exists("/stopped/.out.partial")] == [8, False]
    tables = [pq.read_table(store.open(f"/stopped/out/{name}")) for name in result["files"]]
    assert len(set(pa.concat_tables(tables)["sample_id"].to_pylist())) == NUM_SAMPLES


@pytest.mark.usefixtures("own_environment")
def test_two_ranks_go_on_and_keep_the_best_of_each_item(
    alone: Ranks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one rank began; the samples of an item lie on both ranks, and in every part. Ties: the earlier sample."""
    top = ["top=3", "per=item", "columns=[price]"]
    predict_run(config(root, tmp_path / "all", "columns=[item,price]"), alone)
    stop(alone, root, tmp_path / "out", monkeypatch, *top)
    assert parts_of(tmp_path / ".out.partial")
    words = line(root, tmp_path / "out", "samples_per_file=100", "batch_size=40", *top)
    assert main(["predict", *words, "--nproc", "2"]) == 0

    wanted = duckdb.sql(
        "with numbered as (select *, file_row_number + cast(split_part(parse_filename(filename), '-', 2) as bigint) n "
        f"from read_parquet('{tmp_path}/all/*.parquet', file_row_number = true, filename = true)) "
        "select sample_id, item, row_number() over (partition by item order by round(score_clicked, 5) desc, n) rank "
        "from numbered qualify rank <= 3 order by min(n) over (partition by item), rank"
    ).fetchall()
    found = pq.read_table(tmp_path / "out")
    assert found.column_names[-3:] == ["item", "score_clicked", "rank"]
    assert [tuple(row.values()) for row in found.select(["sample_id", "item", "rank"]).to_pylist()] == wanted
    success = json.loads((tmp_path / "out/_SUCCESS").read_text())
    assert success["top"] == {"num": 3, "score": "score_clicked", "per": "item", "num_kept": 150}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["top=0"], "top=0: must be at least 1"),
        (["per=item"], "say how many samples of each request are kept, such as top=10"),
        (["top=2", "top_by=clikced"], "top_by=clikced: the run has no such task; it has clicked"),
        (["top=2", "per=itm"], "no column 'itm'; did you mean 'item'"),
        (["samples_per_file=0"], "samples_per_file=0: must be at least 1"),
    ],
)
def test_what_cannot_be_kept(alone: Ranks, root: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    loaded = load("predict", [*line(root, tmp_path / "out"), *overrides])
    with pytest.raises(ConfigError, match=message):
        predict_run(loaded, alone)
    assert list(tmp_path.iterdir()) == []
