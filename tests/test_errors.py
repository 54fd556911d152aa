"""Errors that the user can mend, and the suggestion at the end of a message."""

import pytest

from recd_dist.errors import ConfigError, DataError, UserError, nearest


@pytest.mark.parametrize(
    ("name", "known", "suffix"),
    [
        ("histroy", ["history", "candidate"], "; did you mean 'history'?"),
        ("xyz", ["b", "a"], "; there are: a, b"),
        ("xyz", [], "; there are none"),
        ("zz", [f"f{n:02}" for n in range(25)], "; there are: " + ", ".join(f"f{n:02}" for n in range(20)) + ", ..."),
    ],
)
def test_nearest(name: str, known: list[str], suffix: str) -> None:
    assert nearest(name, known) == suffix


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_user_errors_are_value_errors(kind: type[UserError]) -> None:
    assert issubclass(kind, UserError)
    assert issubclass(kind, ValueError)
