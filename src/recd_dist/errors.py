"""Errors that are the user's to mend: each message names the thing, the value found and the remedy.

Commands print these as one line and exit with 2; anything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An input, option or environment that the user can mend; the message says how."""


class ConfigError(UserError):
    """A config value that is unknown, contradictory or does not fit the data."""


class DataError(UserError):
    """Data that cannot be read as described: file, column, value and remedy are in the message."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A suffix for an error message: ``; did you mean 'x'?``, or the known names where none is near.

    Args:
        name: what was asked for.
        known: the names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"; there are: {shown}" if names else "; there are none"
