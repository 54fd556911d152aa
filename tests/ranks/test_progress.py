"""What a rank tells: what it does, since when, and how long that may take."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recd_dist.ranks import progress
from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.progress import READING, START, STEP, Progress, innermost_place, phase, read_mark, reading
from recd_dist.ranks.stop import Stop
from recd_dist.ranks.timeouts import Timeouts


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of this process's progress, which has begun."""
    path = tmp_path / "0-0"
    monkeypatch.setenv(progress.FILE, str(path))
    monkeypatch.setenv("RANK", "3")
    progress.start(Timeouts(step_s=2.0, slow_s=100.0))
    yield path
    progress._current = Progress()


def mark(path: Path) -> progress.Mark:
    found = read_mark(path)
    assert found is not None
    return found


def test_the_start_and_the_first_step_may_take_long(told: Path) -> None:
    assert (mark(told).phase, mark(told).allowed_s, mark(told).step) == (START, 100.0, 0)
    assert list(reading(iter([1, 2]))) == [1, 2]
    assert mark(told).phase == START
    progress.count_step(1)
    assert (mark(told).phase, mark(told).allowed_s, mark(told).step) == (STEP, 2.0, 1)
    assert (mark(told).pid, mark(told).rank) == (os.getpid(), 3)


def test_what_follows_the_last_step_may_take_long(told: Path) -> None:
    """A rank that waits while another one writes the summary, on a slow disk, does not hang."""
    progress.count_step(1)
    progress.count_step(2)
    with Stop(2):
        assert mark(told).allowed_s == 2.0
    assert (mark(told).phase, mark(told).allowed_s, mark(told).step) == (progress.END, 100.0, 2)
    with phase("an evaluation"):
        pass
    assert (mark(told).phase, mark(told).allowed_s) == (progress.END, 100.0)


def test_a_step_may_take_ten_times_the_longest_so_far(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for seconds, allowed_s in ((70.0, 2.0), (0.1, 2.0), (0.5, 5.0), (0.1, 5.0)):  # the first one does not count
        now[0] += seconds
        progress.count_step(1)
        assert mark(told).allowed_s == pytest.approx(allowed_s)


def test_what_is_no_step_may_take_long_and_the_step_begins_anew(told: Path) -> None:
    progress.count_step(1)
    seen = []

    def batches() -> Iterator[int]:
        seen.append(mark(told))
        yield 1

    with phase("a checkpoint"):
        assert (mark(told).phase, mark(told).allowed_s) == ("a checkpoint", 100.0)
    before = mark(told)
    assert list(reading(batches())) == [1]
    assert (seen[0].phase, seen[0].allowed_s) == (READING, 100.0)
    assert (before.phase, mark(told).phase) == (STEP, STEP)
    assert mark(told).since_s > before.since_s


def test_a_phase_that_fails_is_over_too(told: Path) -> None:
    progress.count_step(1)
    with pytest.raises(OSError, match="full"), phase("a checkpoint"):
        raise OSError("full")
    assert mark(told).phase == STEP


def test_nothing_is_written_without_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(progress.FILE, raising=False)
    progress.start(Timeouts())
    progress.count_step(1)
    assert read_mark(tmp_path / "0-0") is None


def test_a_heartbeat_counts_collectives_and_a_signal_shows_the_line(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import torch.distributed as dist

    monkeypatch.setattr(progress, "BEAT_S", 0.01)
    monkeypatch.delenv("RANK")
    with process_group("cpu"):
        for _ in range(3):
            dist.all_reduce(torch.ones(1))
        deadline = time.monotonic() + 20
        while mark(told).num_begun != 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark(told).num_begun == 3
        os.kill(os.getpid(), progress.STACK_SIGNAL)
        assert innermost_place(told).startswith("test_progress.py:")
    signal.signal(progress.STACK_SIGNAL, signal.SIG_DFL)
