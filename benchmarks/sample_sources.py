"""What the jobs of exactly_once.py train on, and by what their batches are cut."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EPOCHS = 2
MOST_IDS = 1500


@dataclass(frozen=True)
class Source:
    """Samples to train on.

    Attributes:
        name: what they are, for people.
        overrides: of the job, for a directory with the raw logs and the table.
        orders: the orders that it can be read in.
        rules: by what batches can be cut.
        readings: who reads: a thread of the rank, worker processes, or servers.
    """

    name: str
    overrides: Callable[[Path], list[str]]
    orders: tuple[str, ...]
    rules: tuple[str, ...]
    readings: tuple[str, ...]


_FLAT = ["data.keys.session=session_id", "data.keys.request=request_id", "data.keys.timestamp=timestamp"]
SOURCES = (
    Source(
        "clustered table",
        lambda root: ["data=tiny", f"data.path={root / 'raw'}", f"data.table={root / 'table'}"],
        ("sessions", "partitions", "table", "time"),
        ("samples", "work", "ids", "whole sessions"),
        ("thread", "workers", "servers"),
    ),
    Source(
        "flat files, read directly",
        lambda root: [
            *("data=parquet", "data.reader=direct", f"data.path={root / 'raw'}", "data.labels=[label]"),
            *(f"data.table={root / 'none'}", "data.split=null", *_FLAT),
        ],
        ("sessions", "table"),
        ("samples",),
        ("thread", "workers"),
    ),
)
"""A further kind of source is an entry here; everything below takes it as it comes."""

RULES = {
    "samples": [],
    "work": ["reader.batches=work", "reader.work.id=1"],
    "ids": [f"reader.batch_ids={MOST_IDS}"],
    "whole sessions": ["reader.whole=sessions"],
}


def make_logs(root: Path, num_samples: int) -> None:
    """Makes the raw logs and the clustered table of them, a partition a day."""
    sizes = [f"data.synthetic.num_samples={num_samples}", f"data.synthetic.num_users={num_samples // 20}"]
    options = [*sizes, "row_group_samples=128", "data.partition=day", "data.split=null"]
    command = [sys.executable, "-m", "recd_dist.cli", "etl", *SOURCES[0].overrides(root), *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
