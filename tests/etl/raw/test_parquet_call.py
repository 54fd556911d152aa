"""Parquet files that are read together: the widest type of each column, or a refusal before anything is read."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw.pin_reads import pin_reads
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.sql_errors import WrittenSql


def read(path: Path, first: pa.Array, second: pa.Array, options: str = "") -> tuple[str, list[object]]:
    """The type and the values of a column that two files hold."""
    pq.write_table(pa.table({"x": first}), path / "a.parquet")
    pq.write_table(pa.table({"x": second}), path / "b.parquet")
    query = pin_reads(WrittenSql.of(f"select x from read_parquet('{path}/*.parquet'{options})"), ReadOptions())
    (column,) = duckdb.sql(f"describe {query.sql}").fetchall()
    return column[1], [row[0] for row in duckdb.sql(query.sql).fetchall()]


@pytest.mark.parametrize(
    ("first", "second", "wide"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), "BIGINT"),
        (pa.array([0.1], pa.float32()), pa.array([0.1]), "DOUBLE"),
        (pa.nulls(1), pa.array([7]), "BIGINT"),
        (pa.array([[]], pa.list_(pa.null())), pa.array([[1]]), "BIGINT[]"),
        (pa.array([[1]], pa.list_(pa.int32())), pa.array([[2**40]]), "BIGINT[]"),
        (pa.array([1], pa.uint32()), pa.array([-1], pa.int32()), "BIGINT"),
        (pa.array(["a"]), pa.array(["b"]).dictionary_encode(), "VARCHAR"),
        (pa.array([1_000], pa.timestamp("ms")), pa.array([1], pa.timestamp("us")), "TIMESTAMP"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_widest_type_of_all_files(tmp_path, first, second, wide, turned):
    pair = (second, first) if turned else (first, second)
    kind, values = read(tmp_path, *pair)
    assert kind == wide
    if not pa.types.is_timestamp(first.type):
        assert values == pair[0].to_pylist() + pair[1].to_pylist()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["a"], [1], "b.parquet: column 'x' is BIGINT, in .*a.parquet it is VARCHAR: .*x::varchar"),
        ([[1]], [1], r"column 'x' is BIGINT, in .*a.parquet it is BIGINT\[\]: .*lists and single values"),
        ([1], [0.5], "column 'x' is DOUBLE, in .* it is BIGINT: .*x::double"),
        (
            [datetime(2026, 11, 25)],
            [datetime(2026, 11, 25, tzinfo=UTC)],
            "column 'x' is TIMESTAMP WITH TIME ZONE, in .* it is TIMESTAMP: .*at time zone 'UTC'",
        ),
        ([True], [1], "column 'x' is BIGINT, in .* it is BOOLEAN"),
        ([b"a"], ["a"], "column 'x' is VARCHAR, in .* it is BLOB"),
    ],
)
def test_types_that_do_not_go_together_are_refused(tmp_path, first, second, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, pa.array(first), pa.array(second))


def test_a_query_that_unites_by_name_says_it_itself(tmp_path):
    assert read(tmp_path, pa.array([1]), pa.array([0.5]), ", union_by_name = true") == ("DOUBLE", [1.0, 0.5])


def test_texts_that_mean_missing_are_missing(tmp_path):
    pq.write_table(pa.table({"x": ["a", "n/a"], "y": [1, 2]}), tmp_path / "a.parquet")
    query = pin_reads(WrittenSql.of(f"from read_parquet('{tmp_path}/a.parquet')"), ReadOptions(null_values=("n/a",)))
    assert duckdb.sql(query.sql).fetchall() == [("a", 1), (None, 2)]


def test_columns_that_differ_in_case_alone_are_announced(tmp_path):
    pq.write_table(pa.table({"a": [1], "A": [2]}), tmp_path / "a.parquet")
    query = pin_reads(WrittenSql.of(f"from read_parquet('{tmp_path}/a.parquet')"), ReadOptions())
    (notice,) = query.notices
    assert "'a' and 'A' are one name in SQL, and the second is read as 'A_1'; data.drop=[A_1] leaves" in str(notice)
    assert duckdb.sql(query.sql).columns == ["a", "A_1"]
