"""Dotted names of nested dicts, such as ``optim.dense.lr``, and the values under them."""

from collections.abc import Iterator, Mapping
from typing import Any


def dotted_names(value: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all values of nested dicts; an empty dict counts as a value.

    Args:
        value: nested dicts.
        prefix: the text with which every name begins.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, Mapping) and inner:
                yield from dotted_names(inner, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"


def value_at(config: object, name: str) -> Any:
    """The value under a dotted name in nested dicts; None where there is none.

    Args:
        config: nested dicts.
        name: such as ``optim.dense.lr``.
    """
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
