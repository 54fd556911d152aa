"""How the memory of an ETL run is shared out: one limit for the whole process, not one for a part of it."""

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from recd_dist.errors import ConfigError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\Z", re.IGNORECASE)
_BASE_BYTES = 380_000_000  # Python, Arrow, DuckDB, numba and what they keep to themselves, measured
_LEAST_BYTES = 500_000_000
_MOST_BUFFER, _MOST_SHARD = 1 << 29, 1 << 31  # Arrow's lists count their values in 31 bits
_WORKING = 2.2  # memory of a thread that writes a part, in shards: the shard, rows taken from it, pages being encoded


@dataclass(frozen=True)
class Budget:
    """Bytes that each step may take.

    Attributes:
        limit: of the process.
        num_threads: that write parts.
        engine_bytes: of DuckDB, which spills beyond.
        buffer_bytes: of samples before a run is written; three times that is held at the worst moment.
        shard_bytes: of a shard.
    """

    limit: int
    num_threads: int
    engine_bytes: int
    buffer_bytes: int
    shard_bytes: int

    @staticmethod
    def of(memory_limit: str, num_threads: int | None = None) -> "Budget":
        """Shares out a limit such as ``1GB``.

        Raises:
            ConfigError: no size, or one that is too small to work with.
        """
        limit = parsed(memory_limit)
        if limit < _LEAST_BYTES:
            raise ConfigError(
                f"memory_limit={memory_limit}: too small; {_LEAST_BYTES // 1_000_000}MB is the least, of which Python "
                f"and its libraries take {_BASE_BYTES // 1_000_000}MB"
            )
        threads = num_threads or len(os.sched_getaffinity(0))
        free = limit - _BASE_BYTES
        shard = free / _WORKING / threads
        return Budget(
            limit,
            threads,
            int(free * 0.5),
            min(int(free * 0.1), _MOST_BUFFER),
            min(max(int(shard), 1 << 20), _MOST_SHARD),
        )


def released() -> None:
    """Gives memory that is free back to the system: allocators keep what a shard took, in pieces, for the next one."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # glibc's only
        ctypes.CDLL(None).malloc_trim(0)


def parsed(size: str) -> int:
    """Bytes of ``1GB``, ``512MB``, ``1.5GiB``.

    Raises:
        ConfigError: no size.
    """
    found = _SIZE.match(str(size).strip())
    if not found:
        raise ConfigError(f"memory_limit={size}: no size; write it as 1GB or 512MB")
    power = " KMGT".index(found[2].upper() or " ")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** power)
