"""The directory of an export: one command at a time, whole or absent, and nothing left of one that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.train.export_directory import new_directory


def fill(out: Path) -> None:
    with new_directory(out) as work:
        (work / "export.json").write_text("{}")


def test_two_at_once_are_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out") as work:
        (work / "one").write_text("")
        with pytest.raises(DataError, match="another `recd export` is writing there"):
            fill(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "one"]


def test_what_a_kill_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from recd_dist.train.export_directory import new_directory\n"
        "with new_directory(Path(sys.argv[1])) as work:\n"
        "    (work / 'half').write_text(''); print('begun', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / ".out.partial" / "half").exists()
    fill(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "export.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    fill(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "export.json").is_file()


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", Path("/proc/out")):
        with pytest.raises(DataError, match=r"out=.*cannot be written .*choose another out=") as refused:
            fill(out)
        assert "\n" not in str(refused.value)
