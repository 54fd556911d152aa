"""DuckDB under a memory limit: the number of threads that fits it, and another try with fewer.

Each thread of a scan holds a row group of the raw files, packed and unpacked, so that what DuckDB needs grows with the
number of threads and not with the data. How large row groups are, and what else a query holds, is known when it runs.
"""

import logging
import re
from collections.abc import Callable
from typing import TypeVar

import duckdb

from recd_dist.errors import ConfigError, DataError
from recd_dist.ranks.health.machine_share import usable_cores

logger = logging.getLogger(__name__)

_THREAD_BYTES = 128_000_000  # rm1: a row group of 29 MB takes 50 MB; DuckDB's own groups have 15 times as many rows
_LAST_RESORT = 1.35  # times DuckDB's share; with the buffers of samples this is just below the limit of the run
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\Z", re.IGNORECASE)
_OUT_OF_MEMORY = "Out of Memory Error"

_Result = TypeVar("_Result")


class EngineMemoryError(DataError):
    """DuckDB needs more memory than its share."""


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


def fitting_threads(memory_bytes: int, wanted: int | None = None) -> int:
    """The number of threads with which DuckDB begins.

    Args:
        memory_bytes: the memory that DuckDB may take.
        wanted: the most threads. None takes one for every core that this process may use.
    """
    return max(1, min(wanted or usable_cores(), memory_bytes // _THREAD_BYTES))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is DuckDB's for a lack of memory; Arrow hands it on as an error of its own."""
    return isinstance(error, duckdb.OutOfMemoryException) or _OUT_OF_MEMORY in str(error)


def retry_with_fewer_threads(connection: duckdb.DuckDBPyConnection, read: Callable[[], _Result]) -> _Result:
    """Reads, and reads again with half the threads as often as DuckDB runs out of memory.

    Where one thread is too many, a last try fetches a column at a time instead of whole row groups, and takes the
    memory that is otherwise kept in hand for what DuckDB does not count.

    Args:
        connection: the connection that is read from; it keeps what the last try has set.
        read: reads everything from the beginning.

    Raises:
        EngineMemoryError: the last try runs out of memory, too.
    """
    while True:
        try:
            return read()
        except EngineMemoryError as error:
            threads, limit = int(_setting(connection, "threads")), _setting(connection, "memory_limit")
            if threads > 1:
                connection.execute(f"set threads = {threads // 2}")
            elif _setting(connection, "disable_parquet_prefetching") == "False":
                connection.execute("set disable_parquet_prefetching = true")
                connection.execute(f"set memory_limit = '{int(parse_size(limit) * _LAST_RESORT)}B'")
            else:
                raise EngineMemoryError(
                    f"{error}. DuckDB's share of memory_limit is {limit}, and one thread needs more: raise "
                    "memory_limit, or write the raw files with smaller row groups"
                ) from error
            logger.info("DuckDB runs out of memory with %d threads and %s; reading again", threads, limit)


def _setting(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    row = connection.execute(f"select current_setting('{name}')").fetchone()
    return str(row[0]) if row else ""
