"""The vectors of two towers, each item and each query once, and what an index of the items finds."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.train.two_labels import NUM_SAMPLES, described, write_day

from recd_dist.cli import main
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train.prediction import predict_run, report
from recd_dist.train.training import train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def root(alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("towers")
    write_day(root / "day.parquet", "2026-11-25")
    data = [*described(root), "data.features={history: {table: item}}", "data.groups={user: [history]}"]
    assert main(["etl", *data, f"data.path={root / 'day.parquet'}", "row_group_samples=128"]) == 0
    options = ["model=two_tower", "model.item=[item]", "model.vector=8", "model.dim=8", "batch_size=64", "max_steps=6"]
    train(load("train", [*data, *options, "evaluate.split=null", f"run_dir={root / 'run'}"]), alone)
    return root


def scored(alone: Ranks, root: Path, out: Path | str, *overrides: str) -> dict[str, object]:
    line = [f"run_dir={root / 'run'}", "split=train", "device=cpu", f"out={out}", "samples_per_file=100"]
    return predict_run(load("predict", [*line, "batch_size=40", *overrides]), alone)


def latest(vectors: Path, key: str, column: str) -> list[tuple[int, list[float]]]:
    """What the vectors of all samples say of each key: those of its latest sample."""
    sql = f"select {key}, arg_max({column}, sample_id) from '{vectors}/*.parquet' group by {key} order by {key}"
    return [(key, list(vector)) for key, vector in duckdb.sql(sql).fetchall()]


def rows(directory: Path, key: str, column: str) -> list[tuple[int, list[float]]]:
    """Keys and vectors as any reader of Parquet finds them, by the directory's name."""
    found = pq.read_table(directory)
    assert found.column_names == [key, column]
    return list(zip(found[key].to_pylist(), found[column].to_pylist(), strict=True))


def assert_close(found: list[tuple[int, list[float]]], wanted: list[tuple[int, list[float]]]) -> None:
    assert [key for key, _ in found] == [key for key, _ in wanted]
    np.testing.assert_allclose([vector for _, vector in found], [vector for _, vector in wanted], atol=1e-6)


@pytest.mark.parametrize(("per", "key"), [([], "request_id"), (["per=session_id"], "session_id")])
def test_each_query_once(alone: Ranks, root: Path, tmp_path: Path, per: list[str], key: str) -> None:
    scored(alone, root, tmp_path / "all", "vectors=true")
    scored(alone, root, tmp_path / "queries", "embeddings=queries", *per)
    assert_close(rows(tmp_path / "queries", key, "query_vector"), latest(tmp_path / "all", key, "query_vector"))


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_each_item_once_and_an_index(alone: Ranks, root: Path, tmp_path: Path, kind: str) -> None:
    """Row n of the index is row n of the items; a flat one finds exactly what a product with all items finds."""
    scored(alone, root, tmp_path / "all", "vectors=true", "columns=[item]")
    result = scored(alone, root, tmp_path / "items", "embeddings=items", f"index={kind}", "recall_at=[1,5,500]")
    items = rows(tmp_path / "items", "item", "item_vector")
    assert_close(items, latest(tmp_path / "all", "item", "item_vector"))

    vectors = np.array([vector for _, vector in items], np.float32)
    queries = np.array(pq.read_table(tmp_path / "all")["query_vector"].to_pylist(), np.float32)[::50]
    index = faiss.read_index(str(tmp_path / "items/_items.faiss"))
    found = index.search(queries, 5)[1]
    exact = np.argsort(-(queries @ vectors.T), 1, kind="stable")[:, :5]
    shares = [len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    told = result["items"]
    assert (index.ntotal, told["num"], told["width"], told["num_queries"]) == (50, 50, 8, 25)
    assert told["recall"].keys() == {"1", "5"}
    assert min(told["recall"].values()) > (0.99 if kind == "flat" else 0.9)
    assert np.mean(shares) == pytest.approx(told["recall"]["5"], abs=0.3)
    assert json.loads((tmp_path / "items/_SUCCESS").read_text()) == result
    assert f"vectors of 50 items; index {kind}" in report(result, tmp_path / "items")


def test_in_a_store(alone: Ranks, root: Path) -> None:
    store = MemoryFileSystem()
    result = scored(alone, root, "memory://towers", "embeddings=items", "index=flat")
    names = {path.rpartition("/")[2] for path in store.ls("/towers", detail=False)}
    assert names == {"_SUCCESS", "_items.faiss", *result["files"]}
    assert result["files"] == [f"part-{0:012d}-{NUM_SAMPLES:012d}.parquet"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["embeddings=item"], "embeddings=item: unknown; did you mean 'items'"),
        (["embeddings=items", "columns=[price]"], "leave top, vectors and columns out"),
        (["embeddings=queries", "index=flat"], "index=flat: is made of the vectors of items; add embeddings=items"),
        (["embeddings=items", "index=hnws"], "index=hnws: unknown; did you mean 'hnsw'"),
        (["embeddings=items", "recall_at=[0]"], "recall_at=0: must be at least 1"),
        (["embeddings=items", "per=item"], "per: "),
    ],
)
def test_what_does_not_fit(alone: Ranks, root: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scored(alone, root, tmp_path / "out", *overrides)
    assert list(tmp_path.iterdir()) == []
