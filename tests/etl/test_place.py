"""A table is whole or absent: what is there already, full disks, no permission, killed runs."""

import errno
import os
import socket
from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.etl.place import built


def table(path: Path, text: str) -> Path:
    (path / "train").mkdir(parents=True)
    (path / "train" / "manifest.json").write_text(text)
    return path


def fail(out: Path, error: Exception) -> None:
    with built(out, overwrite=True) as partial:
        table(partial, "half")
        raise error


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_what_was_built_takes_its_place_without_the_work(tmp_path):
    with built(tmp_path / "deep" / "out", overwrite=False) as partial:
        (partial / "work").mkdir()
        table(partial / "x", "new")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == {"out"}
    assert names(tmp_path / "deep" / "out") == {"x"}


def test_a_failure_leaves_the_old_table(tmp_path):
    out = table(tmp_path / "out", "old")
    with pytest.raises(KeyError):
        fail(out, KeyError())
    assert (out / "train" / "manifest.json").read_text() == "old"
    assert names(tmp_path) == {"out"}


def test_a_table_is_replaced_only_with_overwrite(tmp_path):
    out = table(tmp_path / "out", "old")
    with pytest.raises(DataError, match="a table is already there; overwrite=true replaces it"), built(out, False):
        pass
    with built(out, overwrite=True) as partial:
        table(partial, "new")
    assert (out / "train" / "manifest.json").read_text() == "new"
    assert names(tmp_path) == {"out"}


def test_nothing_but_a_table_is_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(DataError, match="something else than a clustered table"), built(tmp_path / "thesis", True):
        pass
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full; nothing was left there"), (errno.EACCES, "no permission to write")],
)
def test_errors_of_the_disk_are_the_users_to_mend(tmp_path, number, message):
    with pytest.raises(DataError, match=message):
        fail(tmp_path / "out", OSError(number, os.strerror(number), "x"))
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DataError, match="no permission to write"), built(tmp_path / "closed" / "out", False):
        pass


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"), built(tmp_path / "file" / "out", False):
        pass


def test_what_a_killed_run_left_is_removed(tmp_path):
    dead = tmp_path / f".out.partial-{socket.gethostname()}-999999999"
    alive = tmp_path / f".out.partial-elsewhere-{os.getpid()}"
    dead.mkdir()
    alive.mkdir()
    with built(tmp_path / "out", False) as partial:
        table(partial, "new")
    assert names(tmp_path) == {"out", alive.name}
