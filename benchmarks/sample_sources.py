"""What the jobs of exactly_once.py train on, and by what their batches are cut."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
EPOCHS = 2
MOST_IDS = 1500
NUM_PARTS, NUM_DAYS = 12, 4
LONG_AGO_S = 1
"""When parts of a stream were written: long ago, so that nobody waits to see whether they still change."""


@dataclass(frozen=True)
class Source:
    """Samples to train on.

    Attributes:
        name: what they are, for people.
        overrides: of the job, for a directory with the raw logs and the table, and for the job's own directory.
        orders: the orders that it can be read in.
        rules: by what batches can be cut.
        readings: who reads: a thread of the rank, worker processes, or servers.
        grows: the samples come part by part while the job trains, and are trained once; else they are trained
            ``EPOCHS`` times.
    """

    name: str
    overrides: Callable[[Path, Path], list[str]]
    orders: tuple[str, ...]
    rules: tuple[str, ...]
    readings: tuple[str, ...]
    grows: bool = False


def _direct(root: Path, path: Path) -> list[str]:
    """Options of a job that reads flat files."""
    keys = ["data.keys.session=session_id", "data.keys.request=request_id", "data.keys.timestamp=timestamp"]
    place = [f"data.path={path}", f"data.table={root / 'none'}"]
    return ["data=parquet", "data.reader=direct", "data.labels=[label]", "data.split=null", *place, *keys]


def _stream(root: Path, own: Path) -> list[str]:
    """Options of a job that follows a folder; ids that its first parts did not have are left out."""
    follow = ["reader.follow=true", "reader.follow_idle_s=5", "data.drop=[day]", "reader.on_bad_id=drop", "epochs=1"]
    return [*_direct(root, own / "stream"), *follow]


SOURCES = (
    Source(
        "clustered table",
        lambda root, _: ["data=tiny", f"data.path={root / 'raw'}", f"data.table={root / 'table'}", f"epochs={EPOCHS}"],
        ("sessions", "partitions", "table", "time"),
        ("samples", "work", "ids", "whole sessions"),
        ("thread", "workers", "servers"),
    ),
    Source(
        "flat files, read directly",
        lambda root, _: [*_direct(root, root / "raw"), f"epochs={EPOCHS}"],
        ("sessions", "table"),
        ("samples",),
        ("thread", "workers"),
    ),
    Source("stream of parts", _stream, ("sessions", "table"), ("samples",), ("thread", "workers"), grows=True),
)
"""A further kind of source is an entry here; everything else takes it as it comes."""

RULES = {
    "samples": [],
    "work": ["reader.batches=work", "reader.work.id=1"],
    "ids": [f"reader.batch_ids={MOST_IDS}"],
    "whole sessions": ["reader.whole=sessions"],
}


def make_logs(root: Path, num_samples: int) -> None:
    """Makes the raw logs, the clustered table of them, a partition a day, and the same samples in parts of a stream."""
    sizes = [f"data.synthetic.num_samples={num_samples}", f"data.synthetic.num_users={num_samples // 20}"]
    options = [*sizes, "row_group_samples=128", "data.partition=day", "data.split=null"]
    own = [option for option in SOURCES[0].overrides(root, root) if not option.startswith("epochs=")]
    command = [sys.executable, "-m", "recd_dist.cli", "etl", *own, *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    raw = pa.concat_tables(pq.read_table(path) for path in sorted((root / "raw").glob("*.parquet")))
    least = max(len(raw) // (2 * NUM_PARTS), 3)  # a sample for each rank
    cuts = np.sort(np.random.default_rng(0).integers(0, len(raw) - least * NUM_PARTS + 1, NUM_PARTS - 1))
    bounds = [0, *(cuts + least * np.arange(1, NUM_PARTS)).tolist(), len(raw)]
    for number in range(NUM_PARTS):
        path = root / "parts" / f"day={number * NUM_DAYS // NUM_PARTS}" / f"part-{number:02d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        start, end = bounds[number : number + 2]
        pq.write_table(raw.slice(start, end - start), path, row_group_size=max((end - start) // 2, 1))
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))


class GrowingFolder:
    """A folder into which the parts of a stream come one by one, mostly in order of their names.

    Args:
        root: where ``make_logs`` has put the parts.
        own: the directory of the job, which receives the folder.
        dice: decides which parts come late.
    """

    def __init__(self, root: Path, own: Path, dice: random.Random) -> None:
        self._from, self._to = root / "parts", own / "stream"
        self._left = sorted(self._from.rglob("*.parquet"))
        for number in range(1, len(self._left) - 1):
            if dice.random() < 0.15:
                self._left[number : number + 2] = reversed(self._left[number : number + 2])
        self.num_samples = 0
        """Samples of the parts that have come."""

    @property
    def is_complete(self) -> bool:
        """Whether all parts have come."""
        return not self._left

    def grow(self, num: int) -> None:
        """Adds some parts, each under a hidden name first."""
        for path in self._left[:num]:
            place = self._to / path.relative_to(self._from)
            place.parent.mkdir(parents=True, exist_ok=True)
            hidden = place.with_name(f".{place.name}")
            shutil.copy2(path, hidden)
            hidden.rename(place)
            self.num_samples += pq.read_metadata(place).num_rows
        del self._left[:num]
