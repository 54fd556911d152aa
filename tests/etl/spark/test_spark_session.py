"""Without PySpark the engine says what to install, and everything else works."""

import sys
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.spark_flow import etl_on_spark


def test_without_pyspark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pyspark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    source = Source.from_dict({"name": "x", "path": str(tmp_path), "labels": ["y"]})
    with pytest.raises(ConfigError, match=r"pip install 'recd-dist\[spark\]', and Java 17"):
        etl_on_spark(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
