"""The specification of the clustered table: rows in, unique rows and row numbers out."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flat import flat_view
from recd_dist.etl.run import etl
from recd_dist.etl.source import Source
from recd_dist.manifest import Manifest

ROWS = {
    "session": [2, 1, 2, 1, 1],
    "t": [10, 20, 30, 15, 40],
    "history": [[7, 8], [5], [7, 8, 9], [5], []],
    "device": [1, 0, 1, 0, 0],
    "item": [100, 101, 102, 103, 104],
    "price": [0.5, None, 2.5, float("nan"), 4.5],
    "clicked": [1, 0, 0, 1, 0],
}


def source(path: Path, rows: dict[str, list[object]] = ROWS, **options: object) -> Source:
    file = path / "raw.parquet"
    pq.write_table(pa.table(rows), file)
    keys = {"session": "session", "timestamp": "t"}
    return Source.from_dict({"name": "shop", "path": str(file), "keys": keys, "labels": ["clicked"], **options})


def columns(table: Path, directory: str) -> dict[str, list[object]]:
    return pq.read_table(table / directory).to_pydict()


def test_table_of_literals(tmp_path):
    groups = {"history": {"features": ["history"]}, "request": ["device"]}
    manifest = etl(source(tmp_path, groups=groups), tmp_path / "out", progress=False)["train"]
    table = tmp_path / "out" / "train"

    assert columns(table, "history") == {"row": [0, 1, 2, 3], "history": [[5], [], [7, 8], [7, 8, 9]]}
    assert columns(table, "request") == {"row": [0, 1], "device": [0, 1]}
    assert columns(table, "samples") == {
        "sample_id": [0, 1, 2, 3, 4],
        "session_id": [1, 1, 1, 2, 2],
        "request_id": [1, 1, 1, 2, 2],
        "timestamp": [15, 20, 40, 10, 30],
        "clicked": [1, 0, 0, 1, 0],
        "item": [103, 101, 104, 100, 102],
        "price": [0, 0, 4.5, 0.5, 2.5],
        "history_row": [0, 0, 1, 2, 3],
        "request_row": [0, 0, 0, 1, 1],
    }
    assert (manifest.num_samples, manifest.num_sessions, manifest.num_requests) == (5, 2, 2)
    assert manifest.group_rows == {"history": 4, "request": 2}
    history = manifest.features["history"]
    assert (history.num_values_unique, history.num_values_expanded, history.max_length) == (6, 7, 3)
    assert history.stay_rate == 1 / 3  # 5 5 | 5 - | 78 789
    assert manifest.features["price"].num_null == 2
    assert manifest.ids["history"].num_distinct == 4
    assert Manifest.load(table) == manifest


def test_row_groups_keep_sessions_whole_and_rows_local(tmp_path):
    rows = {
        "session": [1, 1, 2, 2, 2, 3],
        "t": [1, 2, 3, 4, 5, 6],
        "user": [9, 9, 9, 9, 9, 9],
        "item": [1, 2, 3, 4, 5, 6],
        "clicked": [0, 1, 0, 1, 0, 1],
    }
    made = etl(source(tmp_path, rows, groups={"user": ["user"]}), tmp_path / "out", progress=False, row_group_samples=2)
    part = made["train"].parts[0]
    assert part.samples.row_groups == (2, 3, 1)
    assert part.groups["user"].row_groups == (1, 1, 1)
    assert columns(tmp_path / "out" / "train", "user") == {"row": [0, 1, 2], "user": [9, 9, 9]}
    assert columns(tmp_path / "out" / "train", "samples")["user_row"] == [0, 0, 1, 1, 1, 2]


def test_flat_view_joins_the_samples_back(tmp_path):
    etl(source(tmp_path, groups={"history": ["history"], "request": ["device"]}), tmp_path / "out", progress=False)
    flat = duckdb.sql(flat_view(tmp_path / "out" / "train")).order("timestamp").to_arrow_table().to_pydict()
    by_time = sorted(range(5), key=ROWS["t"].__getitem__)
    for name in ("history", "device", "item", "clicked"):
        assert flat[name] == [ROWS[name][i] for i in by_time], name


def test_an_existing_table_is_replaced_only_when_asked(tmp_path):
    made = source(tmp_path, groups={})
    etl(made, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="already there; overwrite=true replaces it"):
        etl(made, tmp_path / "out", progress=False)
    etl(made, tmp_path / "out", progress=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
