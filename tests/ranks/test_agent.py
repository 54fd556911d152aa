"""The launcher's agent with real ranks: a hang is told from something slow, and what is restarted from what is not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = """
import ctypes, os, signal, sys, time
from recd_dist.errors import DataError
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.stop import Stop
from recd_dist.ranks.timeouts import Timeouts

def forever():
    while True:
        time.sleep(0.1)

def main(overrides):
    action, again = overrides[0], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    progress.start(Timeouts(step_s=2.0, slow_s=60.0))
    with process_group("cpu") as ranks, Stop() as stop:
        if action == "deaf" and ranks.rank == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("deaf", flush=True)
            forever()
        for step in range(1, 6):
            stop.agree(step, now=True)
            if step == 3 and ranks.rank == 1 and not again:
                if action == "hang":
                    forever()
                if action == "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                if action == "hold":
                    hold()
                if action == "data":
                    raise DataError("part-0.parquet: column clicked: NaN")
                if action == "read":
                    list(progress.reading(slow()))
            if action == "server" and step == 3 and not again:
                time.sleep(600)
    print("done", flush=True)

def hold():
    libc, rank = ctypes.CDLL(None), os.getpid()
    libc.prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)  # anyone may trace it
    if not os.fork():
        libc.ptrace(0x4206, rank, None, None)  # PTRACE_SEIZE
        libc.ptrace(0x4207, rank, None, None)  # PTRACE_INTERRUPT
        time.sleep(6)
        os._exit(0)
    time.sleep(0.5)

def slow():
    time.sleep(5)
    yield 1
"""
LAUNCH = """
import sys
from recd_dist.ranks import agent, launcher
from recd_dist.ranks.timeouts import Timeouts
agent.LOOK_S, agent.NOTICE_S = 0.2, 2.0
launcher.Timeouts = lambda **given: Timeouts(step_s=2.0, stopped_s=2.0, slow_s=60.0, end_s=1.0)
sys.exit(launcher.main())
"""
AGAIN = "all ranks start again, from the newest checkpoint where there is one (restarts left: 0)\n"


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts two ranks of MODULE that may start again once."""
    (tmp_path / "stepping.py").write_text(MODULE)
    paths = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", LAUNCH, "--nproc-per-node", "2", "--max-restarts", "1", "--checked"]
    command += ["--module", "stepping", "--"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return lambda action: subprocess.Popen([*command, action], env=env, **pipes)


def test_a_rank_that_is_stuck_is_named_with_its_line(start: Callable[[str], subprocess.Popen[str]]) -> None:
    out, err = communicate(process := start("hang"))
    assert (process.returncode, out) == (0, "done\n"), err
    assert err.startswith("recd: rank 1 hangs: a step after step 3, in stepping.py:11 in forever, takes ")
    assert err.endswith(AGAIN)
    assert err.count("\n") == 1


def test_a_rank_that_a_debugger_holds_does_not_hang(start: Callable[[str], subprocess.Popen[str]]) -> None:
    out, err = communicate(process := start("hold"))
    assert (process.returncode, out, err) == (0, "done\n", "")


def test_ctrl_c_does_not_wait_for_ranks_that_do_not_see_it(start: Callable[[str], subprocess.Popen[str]]) -> None:
    process = start("deaf")
    assert process.stdout is not None
    assert process.stdout.readline() == "deaf\n"
    process.send_signal(signal.SIGINT)  # rank 1 waits for rank 0 inside torch; checkpoint.grace_s would be 30 s
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("recd: stopped by SIGINT; ")


def test_a_rank_that_is_stopped_is_named(start: Callable[[str], subprocess.Popen[str]]) -> None:
    out, err = communicate(process := start("stop"))
    assert (process.returncode, out) == (0, "done\n"), err
    assert err.startswith("recd: rank 1 hangs: its process was stopped ")
    assert err.endswith(AGAIN)


def test_a_slow_reader_is_noticed_and_left_alone(start: Callable[[str], subprocess.Popen[str]]) -> None:
    out, err = (process := start("read")).communicate(timeout=90)
    assert (process.returncode, out) == (0, "done\n"), err
    assert "recd: rank 1: a batch of the reader after step 3 takes " in err
    assert "start again" not in err


def test_an_error_that_the_user_can_mend_is_not_repeated(start: Callable[[str], subprocess.Popen[str]]) -> None:
    out, err = communicate(process := start("data"))
    assert (process.returncode, out, err) == (2, "", "recd: error: part-0.parquet: column clicked: NaN\n")


def test_ranks_start_again_when_the_process_that_forks_them_has_died(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = start("server")
    deadline = time.monotonic() + 60
    while not (servers := children(process.pid)) or len(children(servers[0])) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)  # the ranks run
    os.kill(servers[0], signal.SIGKILL)
    out, err = communicate(process)
    assert (process.returncode, out) == (0, "done\n"), err
    assert "was killed by SIGKILL" in err
    assert err.endswith(AGAIN)


def communicate(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Output and errors; without what a busy machine is announced to be slow with, as start and end of the ranks."""
    out, err = process.communicate(timeout=90)
    return out, "".join(line for line in err.splitlines(keepends=True) if not line.endswith(" so far\n"))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
