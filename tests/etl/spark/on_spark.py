"""What the tests on Spark share: a session, the sources of the configs, a comparison of rows.

Tests import everything that needs Spark from here, so that they are skipped where Spark is missing.
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

from recd_dist.etl.spark.normalise import NormalisedSource, normalise_on_spark  # noqa: E402
from recd_dist.etl.spark.spark_flow import etl_on_spark  # noqa: E402
from recd_dist.etl.spark.spark_session import start_session  # noqa: E402
from recd_dist.etl.spark.sql.query import to_data_frame, translate_query  # noqa: E402
from recd_dist.etl.spark.sql.query_context import QueryContext  # noqa: E402

__all__ = [
    "NormalisedSource",
    "PySparkException",
    "QueryContext",
    "SparkSession",
    "etl_on_spark",
    "normalise_on_spark",
    "start_session",
    "to_data_frame",
    "translate_query",
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    session = start_session("local[2]")
    session.conf.set("spark.sql.shuffle.partitions", "2")
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def data_config(name: str) -> dict[str, object]:
    """A data config, merged with the configs that it names as its defaults."""

    def merge(one: object, other: object) -> object:
        if isinstance(one, dict) and isinstance(other, dict):
            return one | {key: merge(one.get(key), value) for key, value in other.items()}
        return other

    config = yaml.safe_load((ROOT / "configs" / "data" / f"{name}.yaml").read_text())
    base = {}
    for other in config.pop("defaults", []):
        base = base if other == "_self_" else merge(base, data_config(other))
    return merge(base, config)


def shipped_source(name: str, path: Path, **options: object) -> Source:
    """A source of a config that comes with the project, over other files."""
    return Source.from_dict(data_config(name) | {"path": str(path)} | options)


def assert_same_rows(actual: pa.Table, expected: pa.Table) -> None:
    """Asserts that two tables hold the same rows, each as often, in any order."""
    with duckdb.connect() as connection:
        connection.register("actual", actual)
        connection.register("expected", expected)
        assert actual.num_rows == expected.num_rows
        for one, other in (("actual", "expected"), ("expected", "actual")):
            assert connection.sql(f"select * from {one} except all select * from {other}").fetchall() == []
