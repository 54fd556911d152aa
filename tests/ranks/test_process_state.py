"""What the kernel says of a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from recd_dist.ranks.process_state import STOPPED, CoreWaits, state_of

SPIN = "import os; os.sched_setaffinity(0, {CORE})\nwhile True: pass"


def test_a_stopped_process_is_told_from_one_that_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert state_of(process.pid) == ""
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert state_of(process.pid) == STOPPED
        process.kill()
    assert state_of(process.pid) == ""


@pytest.fixture
def two_on_one_core() -> Iterator[list[int]]:
    code = SPIN.replace("CORE", str(min(os.sched_getaffinity(0))))
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this kernel counts no waits")
def test_waiting_for_a_core_is_counted(two_on_one_core: list[int]) -> None:
    waits, waited_s = CoreWaits(), 0.0
    while waited_s < 0.3:  # each of them has the core half of the time; a test that never ends fails by its timeout
        time.sleep(0.1)
        waited_s += waits.look(two_on_one_core)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        waits.look([idle.pid])
        idle.kill()
    assert waits.look([idle.pid]) == 0.0
