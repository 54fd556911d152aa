"""When ranks ask each other whether to stop: once a second of steps, all after the same step."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from recd_dist.ranks import stop as stop_module
from recd_dist.ranks.failures import Failure
from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.stop import MOST_STEPS, Stop, Stopped


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with process_group("cpu"):
        yield


def asked_after(monkeypatch: pytest.MonkeyPatch, step_seconds: list[float], start: int = 0) -> list[int]:
    """The steps after which the ranks ask, given how long each step takes."""
    now, asked, all_reduce = [100.0], [], dist.all_reduce
    monkeypatch.setattr(stop_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dist, "all_reduce", lambda *a, **k: (asked.append(step), all_reduce(*a, **k)))
    stop = Stop(start)
    for step, seconds in enumerate(step_seconds, start + 1):
        now[0] += seconds
        stop.agree(step)
    return asked


def test_slow_steps_ask_each_time_whatever_step_the_run_goes_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_after(monkeypatch, [8.0, 2.0, 1.5, 3.0], start=5000) == [5001, 5002, 5003, 5004]


def test_steps_of_a_tenth_ask_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_after(monkeypatch, [4.0] + [0.125] * 40)
    assert asked[:5] == [1, 2, 10, 18, 26]


def test_fast_steps_ask_often_enough_for_a_sudden_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_after(monkeypatch, [4.0] + [0.0001] * 100 + [5.0] * 40)
    assert asked[2] - asked[1] == MOST_STEPS
    assert asked[-2:] == [140, 141]


def test_sigterm_is_known_at_the_next_agreement_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        stop.agree(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stop.asked
        stop.agree(1, now=True)
        assert stop.asked
    assert signal.getsignal(signal.SIGTERM) is before


def test_votes_are_known_where_ranks_ask_and_nowhere_else() -> None:
    stop = Stop()
    stop.agree(1, now=True, votes=(True, False))
    assert (stop.votes, stop.asked) == ((True, False), False)
    stop.agree(1, votes=(True, True))  # not asked: nobody may act on what it alone knows
    assert stop.votes == ()


def test_a_stop_is_no_bug_and_no_error() -> None:
    failure = Failure.of(Stopped("stopped by SIGTERM after step 7"), rank=1)
    assert (failure.stopped, failure.user, failure.lost_peer, failure.exit_code) == (True, False, False, 143)
    assert failure.message == "stopped by SIGTERM after step 7"
