"""The sources of the configs have the same normalised rows, with the same types, on Spark and on DuckDB."""

import duckdb
import pyarrow as pa
import pytest
from tests.etl.spark.on_spark import (
    SHARED,
    SparkSession,
    assert_same_rows,
    data_config,
    normalise_on_spark,
    shipped_source,
    spark,
)

from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.source import Source
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec

__all__ = ["spark"]  # the fixture


def plain_types(schema: pa.Schema) -> list[tuple[str, str]]:
    """Name and type of each column, without the differences of names inside lists and of 64-bit offsets."""
    return [(f.name, str(f.type).replace("list<element:", "list<l:").replace("large_", "")) for f in schema]


def assert_normalised(source: Source, session: SparkSession, num_rows: dict[str, int]) -> None:
    normalised = normalise_on_spark(source, session)
    queries = {"samples": normalised.inspection.samples, **normalised.inspection.groups}
    tables = {name: df.toArrow() for name, df in {"samples": normalised.samples, **normalised.groups}.items()}
    assert {name: table.num_rows for name, table in tables.items()} == num_rows
    with engine.connect() as connection:
        for name, table in tables.items():
            expected = connection.sql(queries[name]).to_arrow_table()
            assert plain_types(table.schema) == plain_types(expected.schema)
            assert_same_rows(table, expected)


def test_criteo(tmp_path, spark):
    lines = []
    for i in range(20):
        numbers, words = [str(i) if n else "" for n in range(13)], [f"{i:08x}" if n else "" for n in range(26)]
        lines.append("\t".join([str(i % 2), *numbers, *words]))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    assert_normalised(shipped_source("criteo", tmp_path / "train.txt"), spark, {"samples": 20})


def test_any_parquet(tmp_path, spark):
    duckdb.sql(
        "select i // 4 as visit, timestamp '2024-01-01' + i * interval 1 minute as time, i % 4 = 0 as clicked, "
        "[i // 4, 7] as history, 'u' || i // 8 as member, ['a', null, 'u' || i] as words, i / 2 as price "
        "from range(80) t(i)"
    ).write_parquet(str(tmp_path / "x.parquet"))
    keys = {"session": "visit", "timestamp": "time", "request": "member"}
    assert_normalised(shipped_source("parquet", tmp_path, keys=keys, labels=["clicked"]), spark, {"samples": 80})


@pytest.mark.parametrize("name", ["tiny", pytest.param("rm1", marks=pytest.mark.slow)])
def test_synthetic(name, tmp_path, spark):
    config = data_config(name)
    spec = SyntheticSpec.from_dict(config["synthetic"] | {"num_samples": 5000, "num_users": 500})
    generate(spec, tmp_path / "raw", progress=False)
    assert_normalised(shipped_source(name, tmp_path / "raw"), spark, {"samples": 5000})


@pytest.mark.skipif(not (SHARED / "expedia").is_dir(), reason="no shared data")
def test_expedia(spark):
    assert_normalised(shipped_source("expedia", SHARED / "expedia" / "train.csv"), spark, {"samples": 5058})


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ebnerd_small").is_dir(), reason="no shared data")
def test_ebnerd_small(spark):
    num_rows = {"samples": 10_848, "history": 44, "recent": 1085}
    assert_normalised(shipped_source("ebnerd", SHARED / "ebnerd_small"), spark, num_rows)
