"""What the tests on Spark share: a session, sources that ship, rows compared.

Tests import all of Spark from here, so that they are skipped where there is none.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import yaml

from recd_dist.etl.source.source import Source

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("RECD_SHARED", ROOT.parent / "shared")) / "data"

pytest.importorskip("pyspark")
pytest.importorskip("pandas")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("no Java", allow_module_level=True)

from pyspark.errors import PySparkException  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from recd_dist.etl.spark.session import normalised, session  # noqa: E402
from recd_dist.etl.spark.spark_flow import etl_on_spark  # noqa: E402
from recd_dist.etl.spark.sql.query import as_stored, compiled  # noqa: E402
from recd_dist.etl.spark.sql.scope import Workshop  # noqa: E402

__all__ = [
    "PySparkException",
    "SparkSession",
    "Workshop",
    "as_stored",
    "compiled",
    "etl_on_spark",
    "normalised",
    "session",
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    made = session("local[2]", spark_sql_shuffle_partitions="2")
    made.sparkContext.setLogLevel("OFF")
    yield made
    made.stop()


def data_config(name: str) -> dict[str, object]:
    """A data config, with those that it builds on."""

    def merged(one: object, other: object) -> object:
        if isinstance(one, dict) and isinstance(other, dict):
            return one | {key: merged(one.get(key), value) for key, value in other.items()}
        return other

    config = yaml.safe_load((ROOT / "configs" / "data" / f"{name}.yaml").read_text())
    base = {}
    for other in config.pop("defaults", []):
        base = base if other == "_self_" else merged(base, data_config(other))
    return merged(base, config)


def shipped(name: str, path: Path, **options: object) -> Source:
    """A source that ships, over other files."""
    return Source.from_dict(data_config(name) | {"path": str(path)} | options)


def assert_same_rows(found: pa.Table, expected: pa.Table) -> None:
    """The same rows, each as often, in any order."""
    with duckdb.connect() as connection:
        connection.register("found", found)
        connection.register("expected", expected)
        assert found.num_rows == expected.num_rows
        for one, other in (("found", "expected"), ("expected", "found")):
            assert connection.sql(f"select * from {one} except all select * from {other}").fetchall() == []
