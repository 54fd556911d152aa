"""A table is whole or absent: other files in its place, full disks, no permission, two runs at once, killed runs."""

import errno
import os
from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.etl.place.work_directory import (
    check_free,
    check_space,
    has_work_of,
    hold_work,
    work_directory,
)
from recd_dist.files.whole_directory import put_in_place

JOB = {"run": "a", "files": [["x", 1, 2]]}


def write_table(path: Path, text: str) -> Path:
    (path / "train").mkdir(parents=True)
    (path / "train" / "manifest.json").write_text(text)
    return path


def stop(work: Path, error: BaseException) -> None:
    with hold_work(work, JOB):
        (work / "runs").mkdir()
        raise error


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_work_lies_beside_the_table_and_vanishes_when_it_is_done(tmp_path):
    work = work_directory(tmp_path / "deep" / "out")
    assert work == tmp_path / "deep" / ".out.partial"
    with hold_work(work, JOB) as going_on:
        assert not going_on
        put_in_place(write_table(work / "table", "new"), tmp_path / "deep" / "out")
    assert names(tmp_path / "deep") == {"out"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_was_stopped_is_taken_up_by_the_same_job_only(tmp_path, error):
    work = work_directory(tmp_path / "out")
    with pytest.raises(type(error)):
        stop(work, error)
    assert has_work_of(work, JOB)
    with hold_work(work, JOB) as going_on:
        assert going_on
        assert (work / "runs").is_dir()
        assert not has_work_of(work, {**JOB, "files": []})
    (work / "runs").mkdir(parents=True)
    with hold_work(work, {**JOB, "files": []}) as going_on:
        assert not going_on
        assert names(work) == {"lock", "job.json"}


def test_two_runs_at_once(tmp_path):
    work = work_directory(tmp_path / "out")
    with hold_work(work, JOB):
        with pytest.raises(DataError, match="another `recd etl` is making this table"), hold_work(work, JOB):
            pass
        assert has_work_of(work, JOB)  # the one that was refused has not touched it


def test_a_failure_leaves_the_old_table_and_no_work(tmp_path):
    out = write_table(tmp_path / "out", "old")
    with pytest.raises(KeyError), hold_work(work_directory(out), JOB):
        raise KeyError
    assert (out / "train" / "manifest.json").read_text() == "old"
    assert names(tmp_path) == {"out"}


def test_nothing_but_a_table_is_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(DataError, match="something else than a clustered table"):
        check_free(tmp_path / "thesis", may_exist=True)
    out = write_table(tmp_path / "out", "old")
    with pytest.raises(DataError, match="a table is already there; overwrite=true replaces it, append=true adds"):
        check_free(out, may_exist=False)
    check_free(out, may_exist=True)
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty", may_exist=False)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full; nothing was left there"), (errno.EACCES, "no permission to write")],
)
def test_errors_of_the_disk_are_the_users_to_mend(tmp_path, number, message):
    with pytest.raises(DataError, match=message), hold_work(work_directory(tmp_path / "out"), JOB):
        raise OSError(number, os.strerror(number), "x")
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DataError, match="no permission to write"), hold_work(tmp_path / "closed" / ".out.partial", JOB):
        pass


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"), hold_work(tmp_path / "file" / ".out.partial", JOB):
        pass


def test_space_is_looked_at_before_anything_is_read(tmp_path):
    check_space(tmp_path / "not" / "there", 1000)
    with pytest.raises(DataError, match=r"are free on this disk, about [\d.]+ GB are needed"):
        check_space(tmp_path, 10**18)


def test_work_of_another_release_is_removed_with_a_message(tmp_path, caplog):
    work = tmp_path / ".out.partial"
    with pytest.raises(KeyboardInterrupt), hold_work(work, {"version": 2, "run": "a"}):  # noqa: PT012
        (work / "shards.json").write_text('{"tally": {"seen": {}}}')  # it lacks what this release notes
        raise KeyboardInterrupt
    with hold_work(work, {"version": 3, "run": "a"}) as going_on:
        assert not going_on
        assert not (work / "shards.json").exists()
    assert "work of another run or another release is there; it is removed, this run begins anew" in caplog.text
