"""Errors that the user can mend.

Each message names the thing, the value found and the remedy. Commands print these errors as one line and exit with 2;
any other exception is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

from recd_dist.redaction.credentials import redact


class UserError(ValueError):
    """Something is wrong with an input, an option or the environment; the message says how to mend it.

    Args:
        message: one line; credentials in it, also in the words of a library, are hidden.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class ConfigError(UserError):
    """A config value is unknown, contradicts another one, or does not fit the data."""


class DataError(UserError):
    """Data cannot be read as the config describes it; the message names file, column, value and remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: ``; did you mean 'x'?``, or the known names where no name is similar.

    Args:
        name: the unknown name.
        known: the names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"; there are: {shown}" if names else "; there are none"
