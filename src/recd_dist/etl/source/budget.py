"""How an ETL run shares out its memory: one limit is for the whole process."""

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from recd_dist.errors import ConfigError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\Z", re.IGNORECASE)
_BASE_BYTES = 380_000_000  # what Python, Arrow, DuckDB and numba take for themselves, measured
_LEAST_BYTES = 500_000_000
_MOST_BUFFER, _MOST_SHARD = 1 << 29, 1 << 31  # Arrow's lists count their values in 31 bits
_WORKING = 2.2  # memory of a thread that writes a part, in shards: the shard, rows taken from it, encoded pages


@dataclass(frozen=True)
class Budget:
    """The bytes that each step may take.

    Attributes:
        limit: the most bytes of the whole process.
        num_threads: the number of threads that write parts.
        engine_bytes: the most bytes of DuckDB, which spills to disk beyond them.
        buffer_bytes: the bytes of samples that make a run file. At the worst moment three times as much is held.
        shard_bytes: the most bytes of samples that a piece of a shard may take in memory.
    """

    limit: int
    num_threads: int
    engine_bytes: int
    buffer_bytes: int
    shard_bytes: int

    @staticmethod
    def of(memory_limit: str, num_threads: int | None = None) -> "Budget":
        """Shares out a memory limit.

        Args:
            memory_limit: the most memory of the process, such as ``1GB``.
            num_threads: the number of threads that write parts. None takes one for every core.

        Raises:
            ConfigError: the limit is no size, or too small to work with.
        """
        limit = parse_size(memory_limit)
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


def release_memory() -> None:
    """Gives free memory back to the system, since allocators keep the memory of one shard, in pieces, for the next."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def parse_size(size: str) -> int:
    """The bytes of a memory limit such as ``1GB``, ``512MB`` or ``1.5GiB``.

    Raises:
        ConfigError: the text is no size.
    """
    match = _SIZE.match(str(size).strip())
    if not match:
        raise ConfigError(f"memory_limit={size}: no size; write it as 1GB or 512MB")
    power = " KMGT".index(match[2].upper() or " ")
    return round(float(match[1]) * (1024 if match[3] else 1000) ** power)
