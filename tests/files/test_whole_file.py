"""A file is the old one or the new one, whatever stops the writer."""

import errno
import os
import stat
from pathlib import Path

import pytest

from recd_dist.files.whole_file import flush_directory, flush_file, write_whole


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_text_and_bytes_replace_what_is_there(tmp_path: Path, durable: bool) -> None:
    write_whole(tmp_path / "a.json", "größer", durable=durable)
    assert (tmp_path / "a.json").read_bytes() == b"gr\xc3\xb6\xc3\x9fer"
    write_whole(tmp_path / "a.json", b"\x00\xff", durable=durable)
    assert (tmp_path / "a.json").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.json"]


def test_only_a_durable_file_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    rename = Path.replace
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append("rename"), rename(self, target))[1])
    write_whole(tmp_path / "a", "1")
    write_whole(tmp_path / "a", "2", durable=True)
    assert calls == ["rename", "fsync", "rename"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: int) -> None:
        raise error

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_whole(tmp_path / "a", "new", durable=True)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        write_whole(tmp_path / "absent" / "a", "new")


def test_two_processes_may_write_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_process_writes(_: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            write_whole(tmp_path / "a", "theirs")

    monkeypatch.setattr(os, "fsync", another_process_writes)
    write_whole(tmp_path / "a", "ours", durable=True)
    assert (tmp_path / "a").read_text() == "ours"
    assert names(tmp_path) == ["a"]


def refuse_to_flush(monkeypatch: pytest.MonkeyPatch, number: int, *, files: bool = True) -> None:
    """A file system that answers fsync with an error, for directories, or for files too."""

    def fsync(descriptor: int) -> None:
        if files or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync_takes_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_to_flush(monkeypatch, number)
    write_whole(tmp_path / "a", "1", durable=True)
    flush_directory(tmp_path)
    assert names(tmp_path) == ["a"]


def test_data_that_cannot_be_written_are_an_error_and_a_directory_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_whole(tmp_path / "a", "1")
    refuse_to_flush(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        flush_file(tmp_path / "a")
    flush_directory(tmp_path)
    flush_directory(tmp_path / "gone")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
