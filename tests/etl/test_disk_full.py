"""A disk that fills up in the middle: one error, nothing left, and the same command succeeds once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl import flow
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def source(path: Path, num_samples: int) -> Source:
    rng = np.random.default_rng(0)
    rows = {
        "session": np.arange(num_samples) // 10,
        "t": np.arange(num_samples),
        "ids": list(rng.integers(0, 2**60, (num_samples, 30))),
        "clicked": np.zeros(num_samples),
    }
    raw = path / f"raw-{num_samples}.parquet"
    pq.write_table(pa.table(rows), raw)
    keys = {"session": "session", "timestamp": "t"}
    return Source.from_dict({"path": str(raw), "keys": keys, "labels": ["clicked"], "groups": {}})


@pytest.mark.parametrize("num_samples", [15_000, 60_000])  # full while parts are written, and while logs are read
def test_a_full_disk(tmp_path, small_disk, monkeypatch, num_samples):
    made = source(tmp_path, num_samples)
    with pytest.raises(DataError, match=r"are free on this disk, about .* are needed while the table is made"):
        etl(source(tmp_path, 60_000), small_disk / "out", progress=False)
    monkeypatch.setattr(flow, "check_space", lambda *_: None)
    made = source(tmp_path, num_samples)
    with pytest.raises(DataError, match="the disk is full; nothing was left there"):
        etl(made, small_disk / "out", shard_bytes=500_000, progress=False)
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    table = etl(made, small_disk / "out", shard_bytes=500_000, progress=False)["train"]
    assert table.num_samples == num_samples
    assert os.listdir(small_disk) == ["out"]


def test_a_full_disk_leaves_the_table_that_is_there(tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(flow, "check_space", lambda *_: None)
    etl(source(tmp_path, 2_000), small_disk / "out", progress=False)
    before = {path: path.read_bytes() for path in (small_disk / "out").rglob("*") if path.is_file()}
    for options in ({"overwrite": True}, {"append": True}):
        with pytest.raises(DataError, match="the disk is full"):
            etl(source(tmp_path, 60_000), small_disk / "out", progress=False, **options)
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
