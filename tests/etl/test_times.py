"""Timestamps of every form end as the same microseconds, whatever time zone the machine has."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source

NUM_ROWS = 40
MOMENTS = [datetime(2026, 11, 25, 23, 0, tzinfo=UTC) + timedelta(minutes=3 * i) for i in range(NUM_ROWS)]
MICROSECONDS = [round(moment.timestamp()) * 1_000_000 for moment in MOMENTS]
EAST = timezone(timedelta(hours=2))


def source(path: Path, times: object, **options: object) -> Source:
    rows = {
        "session": [i // 8 for i in range(NUM_ROWS)],
        "t": times,
        "item": list(range(NUM_ROWS)),
        "y": [i % 2 for i in range(NUM_ROWS)],
    }
    pq.write_table(pa.table(rows), path / "raw.parquet")
    keys = {"session": "session", "timestamp": "t"}
    named = {"name": "shop", "path": str(path / "raw.parquet"), "keys": keys, "labels": ["y"], "groups": {}}
    return Source.from_dict(named | options)


def stored(path: Path, logs: Source) -> list[int]:
    etl(logs, path / "out", progress=False, overwrite=True)
    return pq.read_table(path / "out" / "train" / "samples")["timestamp"].to_pylist()


@pytest.mark.parametrize(
    "times",
    [
        pa.array([m.replace(tzinfo=None) for m in MOMENTS], pa.timestamp("us")),
        pa.array([m.replace(tzinfo=None) for m in MOMENTS], pa.timestamp("ns")),
        pa.array(MOMENTS, pa.timestamp("us", "UTC")),
        pa.array(MOMENTS, pa.timestamp("ns", "UTC")),
        pa.array(MOMENTS, pa.timestamp("ms", "America/New_York")),
    ],
    ids=["naive", "naive ns", "UTC", "UTC ns", "New York"],
)
def test_columns_of_times(tmp_path, times):
    assert stored(tmp_path, source(tmp_path, times)) == MICROSECONDS


@pytest.mark.parametrize(
    ("times", "sql"),
    [
        ([m.replace(tzinfo=None).isoformat() for m in MOMENTS], "t::timestamptz"),
        ([m.isoformat() for m in MOMENTS], "t::timestamptz"),
        ([m.astimezone(EAST).isoformat() for m in MOMENTS], "t::timestamptz"),
        ([us // 1_000_000 for us in MICROSECONDS], "to_timestamp(t)"),
        ([us // 1_000 for us in MICROSECONDS], "make_timestamp_ms(t)"),
        (MICROSECONDS, "make_timestamp(t)"),
        ([us * 1_000 for us in MICROSECONDS], "make_timestamp_ns(t)"),
    ],
    ids=["text", "text UTC", "text +02:00", "s", "ms", "us", "ns"],
)
def test_what_messages_advise_makes_times(tmp_path, times, sql):
    logs = source(tmp_path, times, samples=f"select * replace ({sql} as t) from read_parquet('{{path}}')")
    assert stored(tmp_path, logs) == MICROSECONDS


def test_the_zone_of_the_machine_does_not_matter():
    code = "from recd_dist.etl.raw.duckdb_sql import connect\nconnection = connect()\n"
    code += "print(connection.sql(\"select hour('2026-11-25 23:00:00+00:00'::timestamptz)\").fetchall()[0][0])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TZ": "America/New_York"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["23"]


def test_nanoseconds_are_cut_off_and_still_order_a_session(tmp_path):
    last = 1_795_651_199_999_999_000  # 23:59:59.999999
    nanoseconds = [last + (999 - 7 * i) for i in range(NUM_ROWS)]
    logs = source(tmp_path, pa.array(nanoseconds, pa.timestamp("ns")), partition="day")
    assert stored(tmp_path, logs) == [last // 1000] * NUM_ROWS
    assert [part.partition for part in etl(logs, tmp_path / "b", progress=False)["train"].parts] == ["2026-11-25"]
    items = pq.read_table(tmp_path / "out" / "train" / "samples").sort_by("session_id")["item"].to_pylist()
    assert [items[8 * s : 8 * s + 8] for s in range(5)] == [list(range(8 * s + 7, 8 * s - 1, -1)) for s in range(5)]


def test_times_before_1970_are_cut_off_too(tmp_path):
    logs = source(tmp_path, pa.array([-1500] * NUM_ROWS, pa.timestamp("ns")), policy={"time": "keep"})
    assert set(stored(tmp_path, logs)) == {-2}


def test_integers_in_two_units_are_refused(tmp_path):
    times = [us // (1_000_000 if i % 2 else 1_000) for i, us in enumerate(MICROSECONDS)]
    message = r"'t' has times in seconds \(\d{10}\) and in milliseconds \(\d{13}\); .*then t \* 1000 else t end as t"
    with pytest.raises(DataError, match=message):
        etl(source(tmp_path, times), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_integers_are_announced_with_what_makes_times_of_them(tmp_path):
    named = {"features": {"item": {"kind": "id"}}}
    (said,) = etl(source(tmp_path, [us // 1_000 for us in MICROSECONDS], **named), tmp_path / "a", progress=False)[
        "train"
    ].announcements
    assert "milliseconds since 1970" in said.found
    assert said.cure.startswith("make_timestamp_ms(t)")
    assert not said.suspicious
    manifest = etl(source(tmp_path, [0, *MICROSECONDS[1:]], **named), tmp_path / "b", progress=False)["train"]
    (said,) = [one for one in manifest.announcements if "as integers" in one.found]
    assert "goes from 0 to" in said.found
    assert said.suspicious
