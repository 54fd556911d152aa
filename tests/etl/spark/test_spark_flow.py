"""Tables made on Spark are those of the DuckDB path, byte for byte."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.etl.spark.on_spark import SHARED, data_config, etl_on_spark, shipped, spark

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.etl.spark.spark_flow import plain
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


def clicks(path: Path, first: int = 0, last: int = 600) -> Path:
    path.mkdir(exist_ok=True)
    duckdb.sql(CLICKS.format(first=first, last=last)).write_parquet(str(path / f"{first}.parquet"))
    return path


def source(path: Path, **options: Any) -> Source:
    given = {"path": str(path), "keys": KEYS, "labels": ["clicked"], "split": "held_out", "drop": ["held_out"]}
    return Source.from_dict({"name": "clicks"} | given | options)


def files(out: Path) -> dict[str, bytes]:
    """Every file of some tables; of a manifest all but the run, whose name the output directory is part of."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith("manifest.json")]:
        manifest = json.loads(found[name])
        assert len(manifest.pop("runs")) == 1
        found[name] = json.dumps(manifest).encode()
    return found


def assert_same(one: Path, other: Path) -> None:
    here, there = files(one), files(other)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


def both(made: Source, tmp_path: Path, session: Any, **options: Any) -> dict[str, Any]:
    options = {"row_group_samples": 64, "shard_bytes": 20_000, "progress": False} | options
    etl(made, tmp_path / "duckdb", **options)
    manifests = etl_on_spark(made, tmp_path / "spark", spark=session, **options)
    assert_same(tmp_path / "duckdb", tmp_path / "spark")
    assert not list(tmp_path.glob(".*"))  # no work is left
    return manifests


def test_sessions_by_gap(tmp_path, spark):
    manifests = both(source(clicks(tmp_path / "raw")), tmp_path, spark)
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
    raw = clicks(tmp_path / "raw")
    if name == "policies":
        clicks(raw, 300, 900)  # half of them twice
    shard_bytes = 2000 if name == "shards without a part" else 20_000
    both(source(raw, **OPTIONS[name]), tmp_path, spark, compression="lz4", shard_bytes=shard_bytes)


@pytest.mark.slow
def test_append(tmp_path, spark):
    options = {"row_group_samples": 64, "shard_bytes": 20_000, "progress": False, "append": True}
    for first in (0, 600):
        raw = clicks(tmp_path / f"raw{first}", first, first + 600)
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
    both(shipped(name, tmp_path / "raw"), tmp_path, spark, shard_bytes=1 << 20, row_group_samples=512)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ebnerd_small").is_dir(), reason="no shared data")
def test_ebnerd_small(tmp_path, spark):
    made = shipped("ebnerd", SHARED / "ebnerd_small")
    manifests = both(made, tmp_path, spark, shard_bytes=100_000, row_group_samples=512)
    assert len(manifests["train"].parts) > 3


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "expedia").is_dir(), reason="no shared data")
def test_expedia(tmp_path, spark):
    both(shipped("expedia", SHARED / "expedia" / "train.csv"), tmp_path, spark, shard_bytes=200_000)


BAD = {
    "null label": ("case when i = 77 then null else clicked end as clicked", "label 'clicked' is null"),
    "no number": ("('x' || i)::int as n", "Could not convert string 'x"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_end_it_with_nothing_left(name, tmp_path, spark):
    expression, said = BAD[name]
    raw = clicks(tmp_path / "raw")
    samples = f"select * exclude (clicked), {expression} from '{{path}}/*.parquet'"
    samples = samples if "clicked" in expression else samples.replace(" exclude (clicked)", "")
    with pytest.raises(DataError, match=said) as error:
        etl_on_spark(source(raw, samples=samples), tmp_path / "out", spark=spark, progress=False)
    assert "Traceback" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_run_that_was_stopped_goes_on(tmp_path, spark, monkeypatch):
    from recd_dist.etl import flow

    raw = clicks(tmp_path / "raw")
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
    assert_same(tmp_path / "duckdb", tmp_path / "spark")


STACK = """An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "worker.py", line 4207, in invoke_udf
"""
SAID = {
    "recd_dist.errors.DataError: two things:\n  one\n  two\n\tat org.apache.spark": (
        DataError,
        "two things:\n  one\n  two",
    ),
    "recd_dist.errors.ConfigError: row_group=0": (ConfigError, "row_group=0"),
    "_duckdb.ConversionException: Conversion Error: no number\n\nLINE 1": (
        DataError,
        "samples query: Conversion Error",
    ),
    "OSError: [Errno 28] No space left on device": (DataError, "Spark: a disk is full"),
    "KeyError: 'x'\n SQLSTATE: 38000": (DataError, "Spark: KeyError: 'x'"),
    "": (DataError, "Spark: An exception was thrown"),
}


@pytest.mark.parametrize("said", SAID)
def test_stacks_become_a_line(said):
    error = plain(STACK + said)
    assert type(error) is SAID[said][0]
    assert str(error).startswith(SAID[said][1])
    assert "org.apache" not in str(error)


@pytest.mark.parametrize("keys", [{"session": "visitor"}, {}], ids=["sessions", "none"])
def test_without_a_time_order_is_by_place(keys, tmp_path, spark):
    for first, last in ((0, 300), (300, 320), (320, 900)):  # Spark begins with the largest
        clicks(tmp_path / "raw", first, last)
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4000")
    try:
        both(source(tmp_path / "raw", keys=keys, drop=["held_out", "time"]), tmp_path, spark)
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
        made = both(shipped("criteo", tmp_path / "train.txt"), tmp_path, spark)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    assert (made["train"].num_samples, made["test"].num_samples) == (360, 40)
    view = f"select min(i2), max(i2) from ({flat_view(tmp_path / 'spark' / 'test')})"
    assert duckdb.sql(view).fetchall() == [(360, 399)]


def test_rows_in_order_cannot_be_joined(tmp_path, spark):
    raw = clicks(tmp_path / "raw")
    samples = "select a.* exclude (time), b.item as other from '{path}/*.parquet' a join '{path}/*.parquet' b using (i)"
    made = source(raw, keys={"session": "visitor"}, samples=samples, drop=["held_out"])
    with pytest.raises(ConfigError, match=r"a join without keys\.timestamp"):
        etl_on_spark(made, tmp_path / "out", spark=spark, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
