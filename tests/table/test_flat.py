"""Nothing is lost: the table joined back is the flat table that went in, whatever it was."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.errors import ConfigError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.source.source import Source
from recd_dist.etl.write.stored_types import list_type
from recd_dist.etl.write.table_form import TableForm
from recd_dist.etl.write.write_one_part import write_part
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Feature, Kind, Schema

ids = st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1))
sample = st.fixed_dictionaries(
    {
        "session": st.integers(-3, 3),
        "t": st.integers(0, 5),
        "clicked": st.sampled_from([0.0, 1.0]),
        "device": st.one_of(st.none(), st.integers(0, 2)),
        "history": st.one_of(st.none(), st.lists(ids, max_size=3)),
        "price": st.one_of(st.none(), st.floats(width=32)),
        "item": ids,
    }
)
TYPES = pa.schema(
    {
        "session": pa.int64(),
        "t": pa.int64(),
        "clicked": pa.float32(),
        "device": pa.int32(),
        "history": pa.list_(pa.int64()),
        "price": pa.float32(),
        "item": pa.int64(),
        "place": pa.int64(),
    }
)


def expected(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The flat table in the order of its rows, with what is missing filled as documented."""
    has_none = any(row["device"] is None for row in rows)
    return [
        (
            row["session"],
            row["t"],
            row["clicked"],
            ([] if row["device"] is None else [row["device"]]) if has_none else row["device"],
            row["history"] or [],
            row["price"] if row["price"] is not None and math.isfinite(row["price"]) else 0.0,
            row["item"],
        )
        for row in rows
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(sample, min_size=1, max_size=40), st.sampled_from([None, {"a": ["device", "history"], "b": ["price"]}]))
def test_flat_view_equals_the_source(rows, groups):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.parquet"
        pq.write_table(pa.Table.from_pylist([row | {"place": i} for i, row in enumerate(rows)], TYPES), path)
        keys = {"session": "session", "timestamp": "t"}
        source = Source.from_dict({"path": str(path), "keys": keys, "labels": ["clicked"], "groups": groups})
        etl(source, Path(directory) / "out", row_group_samples=4, shard_bytes=300, progress=False)
        view = flat_view(Path(directory) / "out" / "train")
        names = "session_id, timestamp, clicked, device, history, price, item"
        found = duckdb.sql(f"select {names} from ({view}) order by place").fetchall()
    assert found == expected(rows)
    signs = [np.signbit(row[5]) for row in found]
    assert signs == [np.signbit(row[5]) for row in expected(rows)]


def test_the_view_of_a_table_without_groups_is_plain(tmp_path):
    duckdb.sql("select 1 as item, 0 as clicked").write_parquet(str(tmp_path / "x.parquet"))
    source = Source.from_dict({"path": str(tmp_path / "x.parquet"), "labels": ["clicked"], "groups": {}})
    etl(source, tmp_path / "out", progress=False)
    assert duckdb.sql(flat_view(tmp_path / "out" / "train")).fetchall() == [(0, 0, 0, 0, 0.0, 1)]


def parts_table(path: Path) -> tuple[Path, list[tuple[int, list[int], int]]]:
    """A windowed table of three parts in two partitions; the ids of the last one are int64, those before int32."""
    history = Feature("history", Kind.ids, "user", "item", window=True)
    features = (history, Feature("age", Kind.id, "user", "age"), Feature("item", Kind.id, "sample", "item"))
    schema, parts, expected = Schema(features), [], []
    for number, wide in ((0, False), (4, False), (5, True)):
        stored = pa.int64() if wide else pa.int32()
        types = {"history": list_type(stored), "age": pa.int32(), "item": stored}
        rows = [list(range(k, k + 8)) for k in range(6)]
        rows = [[i + number * 100 + wide * 2**40 for i in row] for row in rows]
        shard = pa.table(
            {
                SESSION: np.zeros(6, np.int64) + number,
                REQUEST: np.arange(6),
                TIMESTAMP: np.arange(6),
                "label": pa.array([1.0] * 6, pa.float32()),
                "history": pa.array(rows, pa.list_(pa.int64())),
                "age": np.arange(6) // 3,
                "item": np.array([row[0] for row in rows]),
            }
        )
        form = TableForm(schema, types, {}, 4, "zstd")
        result = write_part(shard, np.arange(6), form, path, number, len(expected), lambda _: None)
        parts.append(replace(result.part, partition=f"2026-11-{20 + (number > 0)}"))
        expected += [(number, row, row[0]) for row in rows]
    manifest = Manifest("t", "train", schema, 18, 3, 18, {"user": 18}, {}, {}, tuple(parts), partition="day")
    manifest.save(path)
    return path, expected


def test_only_the_manifest_s_files_are_read_and_ids_may_have_been_widened(tmp_path):
    table, expected = parts_table(tmp_path / "od[d] {ta,b}'le")
    (table / "samples/part-00006.parquet").write_bytes((table / "samples/part-00005.parquet").read_bytes())
    (table / "user/part-00006.parquet").write_bytes(b"left by a crash")
    select = "select session_id, history, item from ({}) order by sample_id"
    assert duckdb.sql(select.format(flat_view(table))).fetchall() == expected
    some = flat_view(table, partitions=["2026-11-21"])
    assert duckdb.sql(select.format(some)).fetchall() == expected[6:]


def test_columns_that_are_not_asked_for_cost_no_join(tmp_path):
    table, expected = parts_table(tmp_path)
    view = flat_view(table, columns=["item", "session_id"])
    assert "join" not in view
    assert duckdb.sql(f"select * from ({view}) order by item").fetchall() == [(s, item) for s, _, item in expected]
    view = flat_view(table, columns=["age"])
    assert "user.stream" not in view
    assert sorted(duckdb.sql(view).fetchall()) == [(0,)] * 9 + [(1,)] * 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "sparc"}, r"dialect 'sparc': unknown; did you mean 'spark'\?"),
        ({"columns": ["itme"]}, r"column 'itme': the table has none; did you mean 'item'\?"),
        ({"partitions": ["2026-11-22"]}, r"partition '2026-11-22': the table has none; did you mean '2026-11-2"),
    ],
)
def test_what_the_table_does_not_have(tmp_path, options, message):
    table, _ = parts_table(tmp_path)
    with pytest.raises(ConfigError, match=message):
        flat_view(table, **options)


def test_the_view_for_spark_as_text(tmp_path):
    table, _ = parts_table(tmp_path)
    view = flat_view(table, "spark", columns=["session_id", "history"])
    first, second = (f"parquet.`{table}/samples/{name}.parquet`" for name in ("{part-00000,part-00004}", "part-00005"))
    assert view.splitlines()[0] == (
        "select samples.`session_id` as `session_id`, "
        "slice(`user_streams`.`history`, `user_rows`.`history_start` + 1, `user_rows`.`history_length`) as `history`"
    )
    scans = f"select * from {first} union all select * from {second}"
    assert view.splitlines()[1] == f"from ({scans}) as samples"


@pytest.mark.slow
def test_the_view_in_spark(tmp_path):
    sql = pytest.importorskip("pyspark.sql")
    table, expected = parts_table(tmp_path / "od[d] {ta,b}le")
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        view = flat_view(table, "spark")
        rows = spark.sql(f"select session_id, history, item from ({view}) order by sample_id").collect()
    finally:
        spark.stop()
    assert [(row.session_id, row.history, row.item) for row in rows] == expected
