"""Real exports, for the tests of a service that has one."""

from tests.exported.conftest import alone, exported, trained

__all__ = ["alone", "exported", "trained"]
