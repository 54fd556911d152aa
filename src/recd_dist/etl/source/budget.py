"""How an ETL run shares out its memory: one limit is for the whole process."""

import ctypes
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from recd_dist.errors import ConfigError
from recd_dist.etl.raw.duckdb_memory import parse_size
from recd_dist.ranks.health.machine_share import usable_cores, usable_memory

_BASE_BYTES = 380_000_000  # what Python, Arrow, DuckDB and numba take for themselves, measured
_LEAST_BYTES = 500_000_000
_MOST_BUFFER, _MOST_SHARD = 1 << 29, 1 << 31  # Arrow's lists count their values in 31 bits
_SMALL_SHARD = 70_000_000
_SHARE_OF_CONTAINER = 0.9  # the rest is for the shell that started the run, and for what the kernel counts as well
_WORKING = 2.2  # memory of a thread that writes a part, in shards: the shard, rows taken from it, encoded pages


@dataclass(frozen=True)
class Budget:
    """The bytes that each step may take.

    Attributes:
        limit: the most bytes of the whole process.
        num_threads: the number of threads that write parts at once.
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

        The size of shards follows from the memory alone, so that the same command writes the same parts on any
        machine: the more memory, the larger shards are and the more of them are written at once, both with the square
        root of the memory (1GB: 2 of 140 MB; 4GB: 4 of 340 MB; 16GB: 10 of 710 MB).

        Args:
            memory_limit: the most memory of the process, such as ``1GB``. Where the machine or the container has less,
                that counts.
            num_threads: the most threads that write parts. None takes one for every core that this process may use.

        Raises:
            ConfigError: the limit is no size, or too small to work with.
        """
        limit = _lower_to_machine(parse_size(memory_limit))
        if limit < _LEAST_BYTES:
            raise ConfigError(
                f"memory_limit={memory_limit}: {limit // 1_000_000} MB are too little; "
                f"{_LEAST_BYTES // 1_000_000}MB is the least, of which Python and its libraries take "
                f"{_BASE_BYTES // 1_000_000}MB"
            )
        free = limit - _BASE_BYTES
        together = free / _WORKING
        shard = min(together, (together * _SMALL_SHARD) ** 0.5, _MOST_SHARD)
        return Budget(
            limit,
            max(1, min(num_threads or usable_cores(), int(together / shard))),
            int(free * 0.5),
            min(int(free * 0.1), _MOST_BUFFER),
            int(shard),
        )


def _lower_to_machine(limit: int) -> int:
    """The limit, or nearly all that this process may use where that is less."""
    usable = usable_memory()
    return limit if limit <= usable else max(int(_SHARE_OF_CONTAINER * usable), min(usable, _LEAST_BYTES))


def release_memory() -> None:
    """Gives free memory back to the system, since allocators keep the memory of one shard, in pieces, for the next."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
