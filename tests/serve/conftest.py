"""Real exports, for the tests of a service that has one."""

from tests.exported.conftest import alone, exported, known, trained

__all__ = ["alone", "exported", "known", "trained"]
