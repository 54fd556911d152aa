"""Values as JSON that every reader of JSON takes."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = 1) -> str:
    """Formats a value as JSON; a number that is undefined or infinite becomes null.

    JSON knows neither NaN nor Infinity. Python writes both all the same, and then jq, browsers and DuckDB refuse the
    whole file.

    Args:
        value: dicts, lists, tuples, texts, numbers, booleans and None, inside each other.
        indent: spaces of an inner level; None writes one line.

    Returns:
        The text, without a line end after it.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError):  # a mapping that is no dict, or a number that JSON has no word for
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with null in place of every number that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
