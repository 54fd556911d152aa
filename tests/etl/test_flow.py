"""The specification of the clustered table: rows in, unique rows and row numbers out."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

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


HISTORY = "select * from (values (1, [7, 8], 2), (2, [9], 3), (3, [10], 4)) as t(user, history, age)"
SAMPLES = "select * from (values (1, 1, 1), (1, 2, 0), (2, 2, 0), (3, 1, 0)) as t(session, user, clicked)"


def own_query(path: Path, sql: str = HISTORY, samples: str = SAMPLES, key: object = "user") -> Source:
    groups = {"history": {"sql": sql, "key": key}}
    keys = {"session": "session"}
    return Source.from_dict(
        {"path": str(path), "samples": samples, "keys": keys, "labels": ["clicked"], "groups": groups}
    )


def test_a_group_with_its_own_query_is_linked_by_key(tmp_path):
    made = etl(own_query(tmp_path), tmp_path / "out", progress=False)["train"]
    table = tmp_path / "out" / "train"
    # users 1, 2, 2, 1 in order of sessions: user 3 has no sample and is not stored
    assert columns(table, "history") == {"row": [0, 1, 2], "history": [[7, 8], [9], [7, 8]], "age": [2, 3, 2]}
    assert columns(table, "samples")["history_row"] == [0, 1, 1, 2]
    assert [f.name for f in made.schema.features] == ["history", "age"]  # the key is a link, no feature
    assert made.features["history"].num_values_expanded == 6
    assert made.features["history"].stay_rate == 0.0  # the one pair of neighbours in a session differs


def test_samples_without_a_row_get_empty_lists_and_are_counted(tmp_path, caplog):
    sql = "select * from (values (1, [7, 8], 2, 0.5), (null, [1], 1, 0.5)) as t(user, history, age, score)"
    made = etl(own_query(tmp_path, sql), tmp_path / "out", progress=False)["train"]
    rows = columns(tmp_path / "out" / "train", "history")
    assert rows == {
        "row": [0, 1, 2],
        "history": [[7, 8], [], [7, 8]],
        "age": [[2], [], [2]],
        "score": [0.5, 0, 0.5],
    }
    assert made.features["history"].num_null == 2
    assert "group 'history': 2 of 4 samples have no row in the group's query" in caplog.text
    assert "skipped 1 rows without a key" in caplog.text


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (f"{HISTORY} union all select 2, [5], 1", "1 keys come with more than one row (the first is 2"),
        ("select 99 as user, [1] as history", "none of the 4 samples finds its row among the 1 of the group's query"),
        ("select [error('boom')::int] as history, 1 as user", "query of group 'history': Invalid Input Error: boom"),
    ],
)
def test_a_groups_query_that_does_not_fit(tmp_path, sql, message):
    with pytest.raises(DataError) as caught:
        etl(own_query(tmp_path, sql), tmp_path / "out", progress=False)
    assert message in str(caught.value)


def test_several_key_columns_link_together(tmp_path):
    sql = "select user, clicked, [user * 10 + clicked] as history from (select distinct user, clicked from t)"
    with_t = f"with t as ({SAMPLES}) {sql}"
    etl(own_query(tmp_path, with_t, key=["user", "clicked"]), tmp_path / "out", progress=False)
    assert columns(tmp_path / "out" / "train", "history")["history"] == [[11], [20], [10]]


def test_missing_values(tmp_path):
    rows = {
        "session": [1, 1, 1],
        "t": [1, 2, 3],
        "city": ["Oslo", None, "Oslo"],
        "history": [[1, None, 2], None, [3]],
        "clicked": [1, 0, 1],
    }
    made = etl(source(tmp_path, rows, groups={}), tmp_path / "out", progress=False)["train"]
    samples = columns(tmp_path / "out" / "train", "samples")
    assert samples["history"] == [[1, 2], [], [3]]
    assert [len(city) for city in samples["city"]] == [1, 0, 1]
    assert (made.features["city"].num_null, made.features["history"].num_null) == (1, 2)
    assert made.schema["city"].kind == "ids"


def test_the_narrowest_type_holds_the_ids_of_all_splits(tmp_path):
    rows = {"session": [1, 2], "t": [1, 2], "a": [0, 2**31 - 1], "b": [0, 2**31], "clicked": [1, 0]}
    etl(source(tmp_path, rows, groups={}, split="t = 1"), tmp_path / "out", progress=False)
    for split in ("train", "test"):
        schema = pq.read_schema(tmp_path / "out" / split / "samples" / "part-00000.parquet")
        assert (schema.field("a").type, schema.field("b").type) == (pa.int32(), pa.int64())


def test_automatic_groups_are_the_features_that_repeat(tmp_path):
    rows = {
        "session": [1] * 4 + [2] * 4,
        "t": list(range(8)),
        "device": [1] * 4 + [2] * 4,
        "samples": [5] * 8,
        "item": list(range(8)),
        "flag": [0, 1, 0, 1, 0, 1, 0, 0],
        "clicked": [0, 1] * 4,
    }
    made = etl(source(tmp_path, rows), tmp_path / "out", progress=False)["train"]
    assert {f.name: f.group for f in made.schema.features} == {
        "device": "device",
        "samples": "device",  # changes only where the device does
        "item": "sample",
        "flag": "sample",
    }
    assert made.group_rows == {"device": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clicked": [1.0, None, 0.0, 0.0, 0.0]}, "label 'clicked' is null in row 1"),
        ({"clicked": [1.0, 0.0, float("nan"), 0.0, 0.0]}, "label 'clicked' is nan in row 2"),
        ({"session": [1, 2, None, 4, 5]}, "row 2 (and perhaps more) has no session id (null or empty)"),
        ({"session": ["a", "b", "c", "", "e"]}, "row 3 (and perhaps more) has no session id (null or empty)"),
        ({"t": [1, None, 3, 4, 5]}, "row 1 (and perhaps more) has no timestamp"),
        ({name: pa.array([], pa.int64()) for name in ROWS}, "the samples query returned no rows"),
        (
            {"item": pa.array([2**70, 1, 2, 3, 4], pa.decimal128(38, 0))},
            f"samples query: {2**70} does not fit into 64 bits; cast that column to text in the SQL",
        ),
    ],
)
def test_bad_rows_end_the_run_and_leave_nothing(tmp_path, change, message):
    with pytest.raises(DataError) as caught:
        etl(source(tmp_path, ROWS | change, groups={}), tmp_path / "out", progress=False)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.parquet"]


def test_a_truncated_file_is_named(tmp_path):
    made = source(tmp_path, groups={})
    file = tmp_path / "raw.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"raw\.parquet"):
        etl(made, tmp_path / "out", progress=False)


def test_a_split_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match="no sample is in 'test'"):
        etl(source(tmp_path, groups={}, split="t > 1000"), tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="no sample is in 'train'"):
        etl(source(tmp_path, groups={}, split="t > 0"), tmp_path / "out", progress=False)
