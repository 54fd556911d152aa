"""One rank: its exit code, and the error that it writes for the launcher."""

import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recd_dist.errors import DataError
from recd_dist.ranks import quiet, rank
from recd_dist.ranks.failures import Failure


def run(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, error_file: Path | None = None
) -> tuple[int, list[str]]:
    """Runs rank.main on a module that raises `error`; the exit code, and the overrides that the module got."""
    seen: list[str] = []

    def main(overrides: list[str]) -> None:
        seen.extend(overrides)
        if error:
            raise error

    module = ModuleType("some_module")
    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_module", module)
    monkeypatch.setattr(rank, "die_with_parent", lambda: None)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    if error_file:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file))
    return rank.main(["some_module", "a=1", "+b={x: 2}"]), seen


def test_overrides_reach_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, None) == (0, ["a=1", "+b={x: 2}"])


def test_user_error_is_one_line_and_exits_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, DataError("column x: missing"), tmp_path / "error.json")[0] == 2
    failure = Failure.read(tmp_path / "error.json")
    assert (failure.rank, failure.message, failure.user, failure.lost_peer) == (3, "column x: missing", True, False)


def test_bug_keeps_its_traceback_and_exits_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, KeyError("k"), tmp_path / "error.json")[0] == 1
    failure = Failure.read(tmp_path / "error.json")
    assert failure.message.startswith("Traceback")
    assert failure.message.endswith("KeyError: 'k'")
    assert "raise error" in failure.message
    assert not failure.user


def test_ctrl_c_prints_nothing_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, KeyboardInterrupt(), tmp_path / "error.json")[0] == 130
    assert not (tmp_path / "error.json").exists()
    assert capsys.readouterr().err == ""


def test_without_an_agent_the_error_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, DataError("column x: missing"))[0] == 2
    assert capsys.readouterr().err == "recd: error: column x: missing\n"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (ConnectionResetError("Connection reset by peer"), True),
        (DataError("column connection closed: missing"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_lost_peer_is_not_a_failure_of_its_own(error: Exception, lost: bool) -> None:
    assert Failure.of(error, rank=0).lost_peer is lost


def test_warnings_of_libraries_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torchrec.some.module")
    logger.setLevel(logging.WARNING)
    quiet.quiet_libraries()
    logger.warning("not for the user")
    logger.error("for the user")
    logging.getLogger("torchrecommended").warning("another library")
    assert [record.getMessage() for record in caplog.records] == ["for the user", "another library"]
