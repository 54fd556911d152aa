"""Values that JSON can hold: no nan, and only strings as keys."""

import math
from typing import Any


def to_json_value(value: Any) -> Any:
    """A value of dicts, lists, tuples and scalars as JSON can hold it.

    ::

        {512: (1.5, nan)}  ->  {"512": [1.5, None]}

    Args:
        value: what ``dataclasses.asdict`` returns, for example.

    Returns:
        The value with strings as keys, lists for tuples, and None for nan and infinity.
    """
    if isinstance(value, dict):
        return {str(key): to_json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
