"""``recd train``: what it hands to the launcher."""

import pytest

from recd_dist.cli import main
from recd_dist.ranks import launcher


def test_restarts_are_handed_to_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(launcher, "main", lambda words: given.extend(words) or 0)
    assert main(["train", "data=tiny", "--nproc", "2", "--max-restarts", "3"]) == 0
    options = launcher.parse_arguments(given)
    assert (options.nproc_per_node, options.max_restarts, options.overrides) == (2, 3, ["data=tiny"])


def test_restarts_below_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=tiny", "--max-restarts", "-1"]) == 2
    assert "--max-restarts -1: must be at least 0" in capsys.readouterr().err
