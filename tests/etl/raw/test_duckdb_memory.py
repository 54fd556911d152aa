"""DuckDB that runs out of memory reads again with fewer threads, and says what to do where one is too many."""

from pathlib import Path

import duckdb
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_memory import retry_with_fewer_threads
from recd_dist.etl.raw.duckdb_sql import connect, read_batches

ROW_GROUP_ROWS = 100_000


@pytest.fixture(scope="module")
def wide_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight row groups, of 8 MB each in memory."""
    path = tmp_path_factory.mktemp("raw") / "wide.parquet"
    values = ", ".join(f"hash(i + {k}) as c{k}" for k in range(10))
    duckdb.sql(
        f"copy (select i, {values} from range({8 * ROW_GROUP_ROWS}) t(i)) to '{path}' (row_group_size {ROW_GROUP_ROWS})"
    )
    return path


def count_rows(path: Path, limit: str, threads: int) -> tuple[int, int, int]:
    """The rows that were read at last, the number of tries, and the threads at the end."""
    with connect(limit) as connection:
        connection.execute(f"set threads = {threads}")
        tries = []

        def read() -> int:
            tries.append(1)
            return sum(b.num_rows for b in read_batches(connection, f"select * from '{path}'", "samples query"))

        num_rows = retry_with_fewer_threads(connection, read)
        left = connection.execute("select current_setting('threads')").fetchone()
        return num_rows, len(tries), int(left[0])


def test_it_reads_again_with_fewer_threads(wide_groups: Path) -> None:
    num_rows, tries, threads = count_rows(wide_groups, "50MB", 64)
    assert num_rows == 8 * ROW_GROUP_ROWS
    assert tries > 1
    assert threads == 64 >> (tries - 1)


def test_enough_memory_is_one_try(wide_groups: Path) -> None:
    assert count_rows(wide_groups, "1GB", 4) == (8 * ROW_GROUP_ROWS, 1, 4)


def test_too_little_for_one_thread_names_the_remedy(wide_groups: Path) -> None:
    message = (
        r"^samples query: Out of Memory Error.* share of memory_limit is 10.2 MiB, and one thread needs more: raise"
    )
    with pytest.raises(DataError, match=message):
        count_rows(wide_groups, "8MB", 4)
