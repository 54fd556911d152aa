"""The process that forks ranks, and the launcher's side of it."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd_dist.ranks.forked_ranks import RankServer

MANY = 1100
"""More files than ``select()`` can tell apart, which are 1,024."""


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """This process has so many files open that the next one has a number above 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * MANY:
        pytest.skip(f"needs {2 * MANY} open files, `ulimit -Hn` is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MANY), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(MANY)]
    try:
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_open_files")
def test_ranks_start_and_end_however_many_files_the_launcher_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "little_rank.py").write_text(
        "from recd_dist.errors import DataError\n"
        "def main(overrides):\n    if overrides == ['fails']:\n        raise DataError('no')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    server = RankServer("little_rank")
    try:
        assert server._connection.fileno() > 1023
        ranks = [server.fork(["little_rank", word], dict(os.environ), None, os.devnull) for word in ("", "fails")]
        assert [rank.wait(30) for rank in ranks] == [0, 2]
    finally:
        server.close()
