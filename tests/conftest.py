"""Settings that all tests share."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("house")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets beside the checkout, or under RECD_SHARED; the test is skipped where there are none."""
    path = Path(os.environ.get("RECD_SHARED", ROOT.parent / "shared")) / "data"
    if not path.is_dir():
        pytest.skip(f"no data at {path}; set RECD_SHARED")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a clustered table of 3,000 synthetic samples, which nobody changes."""
    from recd_dist.cli import main

    root = tmp_path_factory.mktemp("tiny")
    overrides = ["data=tiny", f"data.path={root / 'raw'}", f"data.table={root / 'table'}"]
    sizes = ["data.synthetic.num_samples=3000", "data.synthetic.num_users=200", "row_group_samples=256"]
    assert main(["etl", *overrides, *sizes]) == 0
    return overrides


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Commands set up logging for a process of their own: undone at the end of a test."""
    names = [None, "recd_dist", "torch", "torchrec", "fbgemm_gpu", "torchmetrics"]
    before = [(name, logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
    yield
    for name, level, handlers in before:
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers
