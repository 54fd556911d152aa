"""Flat Parquet files of samples whose histories, texts and numbers repeat inside sessions."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.job.config import load

KEYS = ["data.keys.session=visit", "data.keys.timestamp=at", "data.labels=[clicked]"]


def samples(num_sessions: int = 120, seed: int = 0) -> list[dict[str, Any]]:
    """Samples in order of their sessions."""
    rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
    for session in range(num_sessions):
        history = rng.integers(0, 300, rng.integers(0, 20)).tolist()
        region, age = ["Oslo", "Rome", "Bonn"][rng.integers(3)], float(rng.integers(20, 60))
        for _ in range(rng.integers(1, 12)):
            if rng.random() < 0.1:
                history = [*history, int(rng.integers(0, 300))]
            rows.append(
                {
                    "visit": f"v{session:06d}",
                    "at": 1_700_000_000_000_000 + len(rows) * 1000,
                    "clicked": int(rng.random() < 0.3),
                    "history": history,
                    "region": region,
                    "age": age,
                    "item": int(rng.integers(0, 300)),
                    "price": float(rng.random()),
                }
            )
    return rows


def flat_table(rows: list[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    """The samples as Arrow has them, with other types for some columns."""
    known = {"at": pa.timestamp("us"), "history": pa.list_(pa.int32()), "item": pa.uint16()} | types
    return pa.table({name: pa.array([row[name] for row in rows], known.get(name)) for name in rows[0]})


def recd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs recd as a process of its own: the launcher starts ranks, and sets environment variables for them."""
    command = [sys.executable, "-m", "recd_dist.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples to a file below the test's folder."""

    def write_file(rows: list[dict[str, Any]] | pa.Table, name: str = "flat.parquet", **options: Any) -> Path:
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows if isinstance(rows, pa.Table) else flat_table(rows), path, **options)
        return path

    return write_file


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Any]:
    """The config of a run that reads files directly."""

    def config(path: Path | str, *overrides: str) -> Any:
        given = [f"data.path={path}", "data.reader=direct", "data.split=null", f"run_dir={tmp_path / 'run'}"]
        return load("train", ["data=parquet", *KEYS, *given, *overrides])

    return config
