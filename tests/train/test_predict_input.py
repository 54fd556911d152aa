"""Rows that are in no table get the scores that they would have in one: files as they are, and rows of a query."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from recd_dist.cli import main
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]

NUM = 600
CITIES = np.array(["Oslo", "Rome", "Ærø", "Łódź"])


def log() -> pa.Table:
    """Samples whose sessions lie apart, with texts, lists of texts, a missing city here and there, and times."""
    number = np.arange(NUM)
    session = number % 60
    return pa.table(
        {
            "visit": pa.array([f"v{i}" for i in session]),
            "search": pa.array([f"s{i // 2}" for i in number]),
            "at": np.datetime64("2026-11-25") + number * np.timedelta64(1_000_000, "us"),
            "clicked": (number % 3 == 0).astype(np.int8),
            "item": pa.array([f"item-{i % 40}" for i in number]),
            "history": pa.array([[f"item-{i}", f"item-{(i + 3) % 40}"] for i in session % 40]),
            "weight": pa.array([[i / 60, 2.0] for i in session.tolist()]),
            "device": (number % 5).astype(np.uint8),
            "city": pa.array([None if i % 7 == 0 else CITIES[i % 4] for i in session.tolist()]),
            "age": (session % 30).astype(np.int16),
            "price": pa.array((number % 11) / 3, pa.float64()),
            "note": pa.array([f"note {i}" for i in number]),
        }
    )


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table of the log, and one on the log itself, both with weights and a feature made of others."""
    root = tmp_path_factory.mktemp("input")
    pq.write_table(log(), root / "log.parquet", row_group_size=100)
    keys = "data.keys={session: visit, request: search, timestamp: at}"
    data = ["data=parquet", f"data.path={root / 'log.parquet'}", f"data.table={root / 'table'}", keys]
    data += ["data.labels=[clicked]", "data.split=null", "data.drop=[note]"]
    made = "both: {transforms: [{cross: {of: [item, device], n: 100}}]}"
    features = f"data.features={{history: {{table: item, weights: weight}}, age: {{kind: dense}}, {made}}}"
    data += ["data.groups={user: [history, city, age]}", features]
    assert main(["etl", *data]) == 0
    options = ["batch_size=64", "max_steps=6", "model.dim=8", "evaluate.split=null"]
    sizes = ["data.tables={item: {hashed: true, num_embeddings: 500}, city: {hashed: true, num_embeddings: 50}}"]
    train(load("train", [*data, *options, *sizes, f"run_dir={root / 'run'}"]), alone)
    train(load("train", [*data, *options, *sizes, "data.reader=direct", f"run_dir={root / 'direct'}"]), alone)
    return root


def scored(alone: Ranks, run: Path, out: Path, *overrides: str) -> pa.Table:
    """The scores, read by the directory's name."""
    line = [f"run_dir={run}", f"out={out}", "device=cpu", *overrides]
    predict_run(load("predict", line), alone)
    return pq.read_table(out)


def of_table(alone: Ranks, root: Path, out: Path) -> np.ndarray:
    """The scores of the table's samples, in order of time, which is that of the log."""
    scores = scored(alone, root / "run", out, "split=train").sort_by("timestamp")
    return scores["score_clicked"].to_numpy()


def test_a_file_gets_the_scores_of_its_table(alone: Ranks, root: Path, tmp_path: Path) -> None:
    """In the order of the file; keys and chosen columns stand there as in the file, texts as texts."""
    found = scored(alone, root / "run", tmp_path / "out", f"data.path={root / 'log.parquet'}", "columns=[note,price]")

    names = ["input_row", "visit", "search", "at", "clicked", "note", "price", "score_clicked"]
    assert found.column_names == names
    assert found["input_row"].to_pylist() == list(range(NUM))
    assert found.select(names[1:-1]).equals(log().select(names[1:-1]))
    np.testing.assert_allclose(found["score_clicked"], of_table(alone, root, tmp_path / "table"), atol=1e-6)


def test_neither_label_nor_keys_are_needed(alone: Ranks, root: Path, tmp_path: Path) -> None:
    """Columns in another order, of other integer types, with columns that nobody asks for."""
    bare = log().drop_columns(["clicked", "visit", "search", "at"])
    bare = bare.select(bare.column_names[::-1]).set_column(0, "age", bare["age"].cast(pa.uint32()))
    pq.write_table(bare, tmp_path / "bare.parquet")
    found = scored(alone, root / "run", tmp_path / "out", f"data.path={tmp_path / 'bare.parquet'}")

    assert found.column_names == ["input_row", "score_clicked"]
    np.testing.assert_allclose(found["score_clicked"], of_table(alone, root, tmp_path / "table"), atol=1e-6)


@pytest.mark.parametrize("run", ["run", "direct"])
def test_a_query_in_its_own_order(alone: Ranks, root: Path, tmp_path: Path, run: str) -> None:
    """For a run on a table and one without; the scores are those of the same rows in the file."""
    whole = scored(alone, root / run, tmp_path / "whole", f"data.path={root / 'log.parquet'}")
    sql = f"select * exclude clicked from '{root / 'log.parquet'}' where age > 10 order by note desc"
    found = scored(alone, root / run, tmp_path / "out", f"data.sql={sql}", "columns=[note]")

    notes = [int(note.split()[1]) for note in found["note"].to_pylist()]
    assert found["note"].to_pylist() == sorted(found["note"].to_pylist(), reverse=True)
    np.testing.assert_allclose(found["score_clicked"], whole["score_clicked"].to_numpy()[notes], atol=1e-6)
    success = json.loads((tmp_path / "out/_SUCCESS").read_text())
    assert (success["table"], success["sql"], success["num_samples"]) == ("data.sql", sql, len(notes))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_SUCCESS", *success["files"]]


def test_files_in_a_store_and_scores_beside_them(alone: Ranks, root: Path, tmp_path: Path) -> None:
    store = MemoryFileSystem()
    for number in range(3):
        part = pa.BufferOutputStream()
        pq.write_table(log().slice(number * 200, 200), part)
        store.pipe(f"/foreign/part-{number}.parquet", part.getvalue().to_pybytes())
    line = [f"run_dir={root / 'run'}", "device=cpu", "data.path=memory://foreign/*.parquet", "out=memory://found"]
    result = predict_run(load("predict", line), alone)
    by_query = [*line[:2], "data.sql=select * from 'memory://foreign/*.parquet'", "out=memory://queried"]
    other = predict_run(load("predict", by_query), alone)

    for out, files in (("found", result["files"]), ("queried", other["files"])):
        with store.open(f"/{out}/{files[0]}") as file:
            scores = pq.read_table(file)["score_clicked"]
        np.testing.assert_allclose(scores, of_table(alone, root, tmp_path / out), atol=1e-6)
        assert not store.exists(f"/.{out}.partial")


def test_csv_is_read_as_the_etl_reads_it(alone: Ranks, root: Path, tmp_path: Path) -> None:
    plain = log().drop_columns(["history", "weight"])
    duckdb.from_arrow(plain).write_csv(str(tmp_path / "log.csv"))
    sql = "select *, ['item-1'] as history, [1.0] as weight from read_csv('{path}')"
    found = scored(alone, root / "run", tmp_path / "out", f"data.sql={sql}", f"data.path={tmp_path / 'log.csv'}")
    assert (len(found), found["visit"][5].as_py()) == (NUM, "v5")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.sql=select * exclude item from '{log}'"], DataError, "data.sql: no column 'item'.*the model reads"),
        (["data.sql=select * replace (3 as item) from '{log}'"], DataError, "'item' is INTEGER, and was text in the"),
        (["data.sql=select * replace ('x' as price) from '{log}'"], DataError, "'price'.*VARCHAR cannot be dense"),
        (["data.sql=select * from '{log}' where itm = 3"], DataError, "line 1, column .*: no column 'itm'; did you"),
        (["data.sql=select 1; select 2"], DataError, "data.sql: must be one query"),
        (["data.sql=select * from '{path}'"], ConfigError, "say what it is: data.path=FILES"),
        (["data.sql=select * from '{log}' where false"], DataError, "^data.sql: .* without a single row"),
        (["data.path={log}", "columns=[nots]"], ConfigError, "has no column 'nots'; did you mean 'note'"),
        (["data.path={log}", "columns=[visit]"], ConfigError, None),
        (["data.path=nowhere.parquet"], DataError, "path nowhere.parquet: not found"),
        (["data.path={log}", "data.table=tables/mine"], ConfigError, "leave one of them out"),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_nothing(
    alone: Ranks, root: Path, tmp_path: Path, overrides: list[str], error: type[Exception], message: str | None
) -> None:
    line = [text.replace("{log}", str(root / "log.parquet")) for text in overrides]
    if message is None:  # it stands there already, and is not written twice
        assert scored(alone, root / "run", tmp_path / "out", *line).column_names.count("visit") == 1
        return
    with pytest.raises(error, match=message):
        scored(alone, root / "run", tmp_path / "out", *line)
    assert list(tmp_path.iterdir()) == []
