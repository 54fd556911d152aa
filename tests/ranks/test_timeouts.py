"""The table of timeouts: each is longer than what it waits for, and it stands in the docs as it is in the code."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job import preflight
from recd_dist.ranks.timeouts import GRACE_S, ORDER, TIMEOUTS_FILE, Timeouts

FAULTS = Path(__file__).parents[2] / "docs/faults.md"


def test_the_defaults_fit_each_other() -> None:
    Timeouts().check(GRACE_S)


def shortened(longer: str, shorter: str) -> Timeouts:
    """The defaults, but for a timeout that is as long as another one."""
    name, other = (text.partition(".")[2] for text in (longer, shorter))
    return replace(Timeouts(), **{name: getattr(Timeouts(), other)})


@pytest.mark.parametrize(("longer", "shorter", "why"), ORDER)
def test_a_timeout_below_what_it_waits_for_is_refused_and_both_are_named(longer: str, shorter: str, why: str) -> None:
    wrong = Timeouts(exit_s=GRACE_S) if shorter == "checkpoint.grace_s" else shortened(longer, shorter)
    with pytest.raises(ConfigError) as refused:
        wrong.check(GRACE_S)
    # Another pair may break first: every message names two timeouts with their values.
    assert str(refused.value).count("_s=") == 2
    assert why


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_no_timeout_is_no_time_at_all(value: float) -> None:
    with pytest.raises(ConfigError, match=r"timeouts.step_s=.*at least 1 second"):
        replace(Timeouts(), step_s=value).check(GRACE_S)


def test_the_check_before_the_job_refuses_them_and_tells_the_launcher(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "timeouts.json"
    monkeypatch.setenv(TIMEOUTS_FILE, str(told))
    given = [*tiny, f"run_dir={tmp_path / 'run'}"]
    assert preflight.main([*given, "timeouts.step_s=60", "timeouts.join_s=900"]) == 0
    assert Timeouts(**json.loads(told.read_text())["timeouts"]) == Timeouts(step_s=60.0, join_s=900.0)
    assert preflight.main([*given, "timeouts.collective_s=300"]) == 2
    assert "timeouts.collective_s=300 must be longer than timeouts.slow_s=1800: ranks wait" in capsys.readouterr().err


def test_the_page_on_faults_says_who_waits_for_what() -> None:
    text = FAULTS.read_text()
    for field in fields(Timeouts):
        assert f"| `timeouts.{field.name}` | " in text, field.name
