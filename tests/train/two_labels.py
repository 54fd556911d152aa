"""A log of two labels over days, for tests that choose among labels and partitions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.cli import main

NUM_SAMPLES = 800
"""Samples of a day."""


def write_day(path: Path, day: str, first_item: int = 0) -> None:
    """Writes a day of samples: every second is clicked, every eighth loved; items are 50 ids from ``first_item`` on."""
    number = np.arange(NUM_SAMPLES)
    session = number // 8
    pq.write_table(
        pa.table(
            {
                "session": session + 1000 * int(day[-2:]),
                "request": number // 4,
                "t": np.datetime64(day) + number * np.timedelta64(60_000_000, "us"),
                "clicked": (number % 2).astype(np.int32),
                "loved_it": (number % 8 == 7).astype(np.int32),
                "item": first_item + number % 50,
                "history": pa.array([[first_item + i % 50, first_item + (i + 1) % 50] for i in session]),
                "price": number.astype(np.float32) / NUM_SAMPLES,
            }
        ),
        path,
    )


def described(root: Path) -> list[str]:
    """The overrides that name the table below a directory."""
    keys = "data.keys={session: session, request: request, timestamp: t}"
    return ["data=parquet", f"data.table={root / 'table'}", keys, "data.labels=[clicked,loved_it]", "data.split=null"]


def add_day(root: Path, day: str, first_item: int = 0, *overrides: str) -> None:
    """Adds a day to the table below a directory, which has partitions and no test split."""
    write_day(root / f"{day}.parquet", day, first_item)
    more = [f"data.path={root / day}.parquet", "data.partition=day", "row_group_samples=128", "append=true"]
    assert main(["etl", *described(root), *more, *overrides]) == 0
