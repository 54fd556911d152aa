"""Spark writes the tables that DuckDB writes, byte for byte."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.etl.spark.on_spark import SHARED, data_config, etl_on_spark, shipped_source, spark

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.flat import flat_view

__all__ = ["spark"]  # the fixture

CLICKS = """
select i, 'u' || (i * 7919 % 13) as visitor, timestamp '2024-03-01' + interval (i * i % 977) minute as time,
  i % 4 = 0 as clicked, [i // 40, 7, i % 3] as history, i % 11 as item, case when i % 9 > 0 then i / 8 end as price,
  i % 5 = 4 as held_out, i // 2 as request
from range({first}, {last}) t(i)
"""
KEYS = {"user": "visitor", "timestamp": "time", "request": "request"}


def write_clicks(path: Path, first: int = 0, last: int = 600) -> Path:
    path.mkdir(exist_ok=True)
    duckdb.sql(CLICKS.format(first=first, last=last)).write_parquet(str(path / f"{first}.parquet"))
    return path


def source(path: Path, **options: Any) -> Source:
    basic = {"path": str(path), "keys": KEYS, "labels": ["clicked"], "split": "held_out", "drop": ["held_out"]}
    return Source.from_dict({"name": "clicks"} | basic | options)


def read_files(out: Path) -> dict[str, bytes]:
    """Every file of some tables, without the name of the run in a manifest, which depends on the output directory."""
    contents = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in [name for name in contents if name.endswith("manifest.json")]:
        manifest = json.loads(contents[name])
        assert len(manifest.pop("runs")) == 1
        contents[name] = json.dumps(manifest).encode()
    return contents


def assert_same_files(one: Path, other: Path) -> None:
    here, there = read_files(one), read_files(other)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


def write_both(described: Source, tmp_path: Path, session: Any, **options: Any) -> dict[str, Any]:
    """Writes a source's tables with DuckDB and with Spark, and compares their files."""
    options = {"row_group_samples": 64, "shard_bytes": 20_000, "progress": False} | options
    etl(described, tmp_path / "duckdb", **options)
    manifests = etl_on_spark(described, tmp_path / "spark", spark=session, **options)
    assert_same_files(tmp_path / "duckdb", tmp_path / "spark")
    assert not list(tmp_path.glob(".*"))  # no work is left
    return manifests


def test_sessions_by_gap(tmp_path, spark):
    manifests = write_both(source(write_clicks(tmp_path / "raw")), tmp_path, spark)
    assert sum(manifest.num_samples for manifest in manifests.values()) == 600
    assert len(manifests["train"].parts) > 3
    rows = f"select label_sum from (select sum(clicked) as label_sum from ({flat_view(tmp_path / 'spark' / 'train')}))"
    expected = duckdb.sql("select sum((i % 4 = 0)::int) from range(600) t(i) where i % 5 <> 4").fetchall()
    assert duckdb.sql(rows).fetchall() == expected


OPTIONS = {
    "share": {"split": 0.2, "partition": "day", "drop": ["held_out", "i"]},
    "policies": {
        "sample": 0.7,
        "policy": {"duplicates": "drop"},
        "drop": ["i", "price", "request", "item", "held_out"],
    },
    "shards without a part": {"sample": 0.1, "sessions": {"by": "gap", "gap": "5m"}},
    "one table": {"split": None, "sessions": {"by": "request"}, "groups": {"h": ["history"]}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_source(name, tmp_path, spark):
    raw = write_clicks(tmp_path / "raw")
    if name == "policies":
        write_clicks(raw, 300, 900)  # half of them twice
    shard_bytes = 2000 if name == "shards without a part" else 20_000
    write_both(source(raw, **OPTIONS[name]), tmp_path, spark, compression="lz4", shard_bytes=shard_bytes)


@pytest.mark.slow
def test_append(tmp_path, spark):
    options = {"row_group_samples": 64, "shard_bytes": 20_000, "progress": False, "append": True}
    for first in (0, 600):
        raw = write_clicks(tmp_path / f"raw{first}", first, first + 600)
        etl(source(raw), tmp_path / "duckdb", **options)
        etl_on_spark(source(raw), tmp_path / "spark", spark=spark, **options)
    for split in ("train", "test"):
        here, there = (json.loads((tmp_path / e / split / "manifest.json").read_text()) for e in ("duckdb", "spark"))
        assert (len(here.pop("runs")), len(there.pop("runs"))) == (2, 2)
        assert here == there


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "rm1"])
def test_synthetic(name, tmp_path, spark):
    spec = SyntheticSpec.from_dict(data_config(name)["synthetic"] | {"num_samples": 5000, "num_users": 500})
    generate(spec, tmp_path / "raw", progress=False)
    write_both(shipped_source(name, tmp_path / "raw"), tmp_path, spark, shard_bytes=1 << 20, row_group_samples=512)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ebnerd_small").is_dir(), reason="no shared data")
def test_ebnerd_small(tmp_path, spark):
    described = shipped_source("ebnerd", SHARED / "ebnerd_small")
    manifests = write_both(described, tmp_path, spark, shard_bytes=100_000, row_group_samples=512)
    assert len(manifests["train"].parts) > 3


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "expedia").is_dir(), reason="no shared data")
def test_expedia(tmp_path, spark):
    write_both(shipped_source("expedia", SHARED / "expedia" / "train.csv"), tmp_path, spark, shard_bytes=200_000)


BAD = {
    "null label": ("case when i = 77 then null else clicked end as clicked", "label 'clicked' is null"),
    "no number": ("('x' || i)::int as n", "Could not convert string 'x"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_ends_the_run_and_leaves_nothing(name, tmp_path, spark):
    expression, message = BAD[name]
    raw = write_clicks(tmp_path / "raw")
    samples = f"select * exclude (clicked), {expression} from '{{path}}/*.parquet'"
    samples = samples if "clicked" in expression else samples.replace(" exclude (clicked)", "")
    with pytest.raises(DataError, match=message) as error:
        etl_on_spark(source(raw, samples=samples), tmp_path / "out", spark=spark, progress=False)
    assert "Traceback" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_run_that_was_stopped_continues(tmp_path, spark, monkeypatch):
    from recd_dist.etl import flow

    raw = write_clicks(tmp_path / "raw")
    options = {"row_group_samples": 64, "shard_bytes": 20_000, "progress": False, "spark": spark}
    with monkeypatch.context() as patch:
        patch.setattr(flow, "finish_tables", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            etl_on_spark(source(raw), tmp_path / "spark", **options)
    notes = sorted((tmp_path / ".spark.partial" / "parts").glob("*.json"))
    assert len(notes) > 2
    notes[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in notes[1:]}
    with monkeypatch.context() as patch:
        patch.setattr(flow, "finish_tables", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            etl_on_spark(source(raw), tmp_path / "spark", **options)
    assert notes[0].is_file()
    assert {path: path.stat().st_mtime_ns for path in notes[1:]} == before  # not written again
    etl_on_spark(source(raw), tmp_path / "spark", **options)
    etl(source(raw), tmp_path / "duckdb", row_group_samples=64, shard_bytes=20_000, progress=False)
    assert_same_files(tmp_path / "duckdb", tmp_path / "spark")


@pytest.mark.parametrize("keys", [{"session": "visitor"}, {}], ids=["sessions", "none"])
def test_without_a_time_rows_are_in_the_order_of_their_files(keys, tmp_path, spark):
    for first, last in ((0, 300), (300, 320), (320, 900)):  # Spark begins with the largest
        write_clicks(tmp_path / "raw", first, last)
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4000")
    try:
        write_both(source(tmp_path / "raw", keys=keys, drop=["held_out", "time"]), tmp_path, spark)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")


def test_lines_without_a_time_are_in_order(tmp_path, spark):
    lines = []
    for i in range(400):
        numbers, words = [str(i) if n else "" for n in range(13)], [f"{i:08x}" if n else "" for n in range(26)]
        lines.append("\t".join([str(i % 2), *numbers, *words]))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "20000")
    try:
        manifests = write_both(shipped_source("criteo", tmp_path / "train.txt"), tmp_path, spark)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    assert (manifests["train"].num_samples, manifests["test"].num_samples) == (360, 40)
    view = f"select min(i2), max(i2) from ({flat_view(tmp_path / 'spark' / 'test')})"
    assert duckdb.sql(view).fetchall() == [(360, 399)]


def test_rows_in_order_cannot_be_joined(tmp_path, spark):
    raw = write_clicks(tmp_path / "raw")
    samples = "select a.* exclude (time), b.item as other from '{path}/*.parquet' a join '{path}/*.parquet' b using (i)"
    joined = source(raw, keys={"session": "visitor"}, samples=samples, drop=["held_out"])
    with pytest.raises(DataError, match=r"rows of a join come in any order; name keys\.timestamp"):
        etl_on_spark(joined, tmp_path / "out", spark=spark, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
