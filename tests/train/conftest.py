"""What the tests of this room share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recd_dist.job import preflight
from recd_dist.job.config import load
from recd_dist.job.job import Job


@pytest.fixture
def checked(tiny: list[str], tmp_path: Path) -> Callable[..., Job]:
    """A job on the tiny table with some overrides, checked for one rank."""

    def check(*overrides: str) -> Job:
        return preflight.check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *overrides]), world_size=1)

    return check
