"""Which failure caused the others, and what is read of those that ranks have written."""

import signal
from pathlib import Path

from recd_dist.ranks.failures import Failure, read_failures, root_cause


def test_root_cause_is_the_users_error_then_the_first_that_lost_no_peer() -> None:
    peer = Failure(0, "Connection closed by peer", lost_peer=True, time_s=1.0)
    bug = Failure(1, "KeyError", time_s=2.0)
    later = Failure(2, "KeyError", time_s=3.0)
    user = Failure(3, "column x: missing", user=True, time_s=4.0)
    assert root_cause([peer, later, bug]) == bug
    assert root_cause([peer, bug, user]) == user
    assert root_cause([peer]) == peer


def test_errors_of_earlier_attempts_are_not_read(tmp_path: Path) -> None:
    for attempt, message in [(9, "old"), (10, "new")]:
        path = tmp_path / "recd_x" / f"attempt_{attempt}" / "0"
        path.mkdir(parents=True)
        Failure(0, message).write(path / "error.json")
    assert [failure.message for failure in read_failures(tmp_path, {})] == ["new"]


def test_the_agents_sigterm_is_not_the_cause(tmp_path: Path) -> None:
    cause = root_cause(read_failures(tmp_path, {0: -signal.SIGTERM, 1: -signal.SIGKILL}))
    assert cause.message.startswith("rank 1 was killed by SIGKILL (out of memory?)")


def test_ranks_that_the_launcher_has_killed_are_no_cause(tmp_path: Path) -> None:
    assert read_failures(tmp_path, {0: -signal.SIGKILL, 1: -signal.SIGKILL}, ended_by_us=True) == []


def test_a_failure_travels_to_the_other_hosts_as_it_is() -> None:
    failure = Failure(3, "Traceback ...\nKeyError: 'k'", time_s=1.5, host="host1")
    assert Failure.parse(failure.to_json()) == failure
    assert failure.summary == "KeyError: 'k'"
