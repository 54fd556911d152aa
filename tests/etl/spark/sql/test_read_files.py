"""Files whose types differ, and what only the last rows tell: Spark reads what DuckDB reads, or refuses it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.etl.spark.on_spark import (
    QueryContext,
    SparkSession,
    assert_same_rows,
    spark,
    to_data_frame,
    translate_query,
)

from recd_dist.errors import ConfigError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.raw.pin_reads import pin_reads
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.sql_errors import WrittenSql

__all__ = ["spark"]  # the fixture


def run_both(query: str, session: SparkSession, **options: object) -> pa.Table:
    """The rows of a query on DuckDB, which are those on Spark."""
    pinned = pin_reads(WrittenSql.of(query), ReadOptions(**options)).sql
    with engine.connect() as connection:
        context = QueryContext(session, connection, "samples_spark")
        actual = to_data_frame(translate_query(context, context.trees.parse(pinned), {})).toArrow()
        expected = connection.sql(pinned).to_arrow_table()
    assert_same_rows(actual, expected.rename_columns(actual.column_names))
    return expected


def test_parquet_files_are_widened(tmp_path: Path, spark: SparkSession) -> None:
    narrow = {"x": pa.array([1, 2], pa.int32()), "f": pa.array([0.1, None], pa.float32()), "l": [[1], []]}
    pq.write_table(pa.table(narrow), tmp_path / "a.parquet")
    pq.write_table(pa.table({"f": [0.1], "l": [[2**40]], "x": [2**40]}), tmp_path / "b.parquet")
    assert run_both(f"select * from read_parquet('{tmp_path}/*.parquet')", spark)["x"].to_pylist()[-1] == 2**40


def test_a_files_own_column_wins(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "x=9").mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "x=9/a.parquet")
    assert run_both(f"from read_parquet('{tmp_path}/*/*.parquet')", spark)["x"].to_pylist() == [1, 2]
    pq.write_table(pa.table({"y": [1, 2]}), tmp_path / "x=9/a.parquet")
    with pytest.raises(ConfigError, match="hive_partitioning"):
        run_both(f"from read_parquet('{tmp_path}/*/*.parquet')", spark)


def test_csv_has_the_types_of_all_rows(tmp_path: Path, spark: SparkSession) -> None:
    lines = [f"{i},{i},{i % 28 + 1}/09/2026 10:00:00" for i in range(21_000)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,t", *lines, "n/a,2.5,3/09/2026 10:00:00", ""]))
    rows = run_both(f"select * from read_csv('{tmp_path}/a.csv')", spark, null_values=("n/a",))
    assert (rows["a"].null_count, rows["b"][-1].as_py(), str(rows["t"][-1])[:10]) == (1, 2.5, "2026-09-03")


def test_json_lines_are_refused(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="read_json"):
        run_both(f"select * from read_json('{tmp_path}/a.jsonl')", spark)
