"""What a server has served, as numbers and as text."""

import threading
import time
from collections.abc import Mapping
from typing import Any

COUNTS = ("batches", "samples", "bytes", "decode_s", "trainer_waited_s", "batch_waited_s", "send_s")
"""What is counted of a session, and of all of them.

``trainer_waited_s``: trainers waited for batches; the server is the slower side. ``batch_waited_s``: batches that were
read ahead waited for trainers; the server is the faster side.
"""


class ServedCounts:
    """Counts of one session, or of a server; any thread may add to them.

    Args:
        total: further counts, which get the same.
    """

    def __init__(self, total: "ServedCounts | None" = None) -> None:
        self._values = dict.fromkeys(COUNTS, 0.0)
        self._lock, self._total = threading.Lock(), total
        self._start = time.monotonic()

    def add(self, **counts: float) -> None:
        """Adds to some of ``COUNTS``."""
        with self._lock:
            for name, value in counts.items():
                self._values[name] += value
        if self._total is not None:
            self._total.add(**counts)

    def to_json(self) -> dict[str, float]:
        """The counts so far, with the seconds in which they came together."""
        with self._lock:
            return {"seconds": time.monotonic() - self._start, **self._values}


def describe_counts(counts: Mapping[str, float], before: Mapping[str, float] | None = None) -> str:
    """Counts in one line, as rates.

    Args:
        counts: what ``to_json`` gave.
        before: what it gave earlier; the line then tells of the time between.
    """
    since = {name: value - (before or {}).get(name, 0.0) for name, value in counts.items()}
    seconds = max(since["seconds"], 1e-9)
    return (
        f"{since['batches']:,.0f} batches, {since['samples'] / seconds:,.0f} samples/s, "
        f"{since['bytes'] / seconds / 1e6:,.1f} MB/s; decoding {since['decode_s']:.1f} s, trainers waited "
        f"{since['trainer_waited_s']:.1f} s for batches, batches {since['batch_waited_s']:.1f} s for trainers"
    )


def describe_stats(stats: Mapping[str, Any]) -> str:
    """What a server tells of itself, as lines for people.

    Args:
        stats: its answer to ``stats``.
    """
    lines = [
        f"{stats['address']}: recd_dist {stats['version']}, up {stats['total']['seconds']:,.0f} s, "
        f"{len(stats['sessions'])} of at most {stats['max_sessions']} sessions",
        f"  tables: {', '.join(stats['tables'])}",
        f"  all: {describe_counts(stats['total'])}",
    ]
    lines += [f"  {s['client']}, {s['table']}: {describe_counts(s['counts'])}" for s in stats["sessions"]]
    return "\n".join(lines)
