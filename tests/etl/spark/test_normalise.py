"""Normalised rows on Spark: queries in Spark's own SQL, and groups with a query of their own."""

from pathlib import Path

import duckdb
import pytest
from tests.etl.spark.on_spark import assert_same_rows, normalise_on_spark, spark

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.source import Source

__all__ = ["spark"]  # the fixture

LOGS = "select i, i // 3 as user, i % 3 = 0 as yes, [i % 5, 7] as ids from range(40) t(i)"
USERS = "select u as user, 'n' || u as name, [u, u + 1] as liked from range(2, 20) t(u)"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw")
    duckdb.sql(LOGS).write_parquet(str(path / "logs.parquet"))
    duckdb.sql(USERS).write_parquet(str(path / "users.parquet"))
    return path


def source(raw: Path, **options: object) -> Source:
    return Source.from_dict({"name": "s", "path": str(raw / "logs.parquet"), "labels": ["yes"]} | options)


DUCKDB_ONLY = {"samples": "select i, yes, random() as r from '{path}'", "split": "i % 2 = 1", "keys": {"session": "i"}}


def test_a_source_can_give_spark_sql(raw, spark):
    text = "select i, yes, cast(i as double) / 4 as r from parquet.`{path}`"
    normalised = normalise_on_spark(source(raw, **DUCKDB_ONLY, samples_spark=text), spark)
    assert normalised.groups == {}
    assert [f.name for f in normalised.inspection.schema.features] == ["r"]
    rows = [tuple(row) for row in normalised.samples.where("__session < 3").orderBy("__session").collect()]
    assert rows == [(0, 1.0, False, 0.0), (1, 0.0, True, 0.25), (2, 0.0, False, 0.5)]


def test_spark_sql_needs_a_time_to_order_its_rows(raw, spark):
    text = "select i, yes, cast(i as double) / 4 as r from parquet.`{path}`"
    with pytest.raises(ConfigError, match=r"samples_spark needs keys\.timestamp"):
        normalise_on_spark(source(raw, **DUCKDB_ONLY, samples_spark=text), spark, keep_place=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select i, yes from parquet.`{path}`", "no column 'r'"),
        ("select i, yes, 'x' as r from parquet.`{path}`", "column 'r' is string and must be double"),
        ("selec i", "samples_spark: "),
    ],
)
def test_spark_sql_must_have_the_columns_of_the_duckdb_query(text, message, raw, spark):
    with pytest.raises(DataError, match=message):
        normalise_on_spark(source(raw, **DUCKDB_ONLY, samples_spark=text), spark)


def test_groups_and_links_are_the_same(raw, spark):
    group = {"sql": f"select user, name, liked from '{raw}/users.parquet'", "key": ["user", "name"]}
    options = {"samples": "select i, yes, user, 'n' || user as name, ids from '{path}'", "groups": {"of": group}}
    normalised = normalise_on_spark(source(raw, **options, keys={"session": "user"}), spark)
    queries = normalised.inspection
    with engine.connect() as connection:
        assert_same_rows(normalised.samples.toArrow(), connection.sql(queries.samples).to_arrow_table())
        assert_same_rows(normalised.groups["of"].toArrow(), connection.sql(queries.groups["of"]).to_arrow_table())
