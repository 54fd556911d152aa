"""``network``: lab.py as a module, for tests that need several hosts; they are skipped where there can be none."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def network() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("lab.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab"] = module
    spec.loader.exec_module(module)
    if reason := module.unavailable():
        pytest.skip(reason)
    return module


@pytest.fixture(scope="module")
def two_hosts(network: ModuleType) -> Iterator[Any]:
    """Two hosts and a link as fast as the kernel."""
    with network.Lab(num_hosts=2) as lab:
        yield lab
