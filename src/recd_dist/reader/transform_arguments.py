"""Readers of the arguments of transforms: from what a config says to arguments by name, or a ValueError."""

from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.errors import nearest
from recd_dist.reader import vocabulary_file


def parse_count(name: str, argument: Any) -> dict[str, Any]:
    """Reads a whole number above 0, given alone or by name.

    Args:
        name: the argument's name.
        argument: what the config says.
    """
    value = argument[name] if isinstance(argument, Mapping) and set(argument) == {name} else argument
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"wanted a whole number above 0, found {argument}")
    return {name: value}


def parse_nothing(argument: Any) -> dict[str, Any]:
    """Refuses any argument."""
    if argument not in (None, {}):
        raise ValueError(f"takes no argument, found {argument}")
    return {}


def parse_numbers(argument: Any, names: Sequence[str], needed: int) -> dict[str, Any]:
    """Reads numbers, given by name or as a list.

    Args:
        argument: what the config says.
        names: the names, in the order of a list.
        needed: how many of them must be there.
    """
    if isinstance(argument, Sequence) and not isinstance(argument, str) and len(argument) <= len(names):
        argument = dict(zip(names, argument, strict=False))
    if not isinstance(argument, Mapping) or set(argument) - set(names):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {argument}")
    numbers = {name: value for name, value in argument.items() if value is not None}
    if len(numbers) < needed or any(isinstance(v, bool) or not isinstance(v, int | float) for v in numbers.values()):
        raise ValueError(f"wanted {{{', '.join(f'{n}: number' for n in names)}}}, found {dict(argument)}")
    return numbers


def parse_fitted(argument: Any, names: Sequence[str]) -> dict[str, Any]:
    """Reads some numbers: all of them, or none where they are to be fitted.

    Args:
        argument: what the config says.
        names: the names, in the order of a list.
    """
    return {} if argument in (None, {}) else parse_numbers(argument, names, len(names))


def parse_boundaries(argument: Any) -> dict[str, Any]:
    """Reads a rising list of numbers, given alone or by name."""
    value = argument["boundaries"] if isinstance(argument, Mapping) and set(argument) == {"boundaries"} else argument
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    if not is_list or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise ValueError(f"wanted a rising list of numbers, found {argument}")
    if list(value) != sorted(set(value)):
        raise ValueError(f"wanted a rising list of numbers, found {argument}")
    return {"boundaries": list(value)}


def parse_fill(argument: Any) -> dict[str, Any]:
    """Reads the number that stands where there is none."""
    value = argument["value"] if isinstance(argument, Mapping) and set(argument) == {"value"} else argument
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"wanted a number to put where there is none, found {argument}")
    return {"value": value}


WAYS = ("sum", "l2", "max")
"""What the weights of a list are divided by."""


def parse_way(argument: Any) -> dict[str, Any]:
    """Reads what weights are divided by; the sum where nothing is said."""
    value = argument["by"] if isinstance(argument, Mapping) and set(argument) == {"by"} else argument or WAYS[0]
    if value not in WAYS:
        raise ValueError(f"no way '{value}' to normalise weights{nearest(str(value), WAYS)}")
    return {"by": value}


_OF_FILE = ("file", "column", "text", "column_name", "sha256", "size")


def parse_vocabulary(argument: Any) -> dict[str, Any]:
    """Reads which file holds the values, and looks at it: alone its path, or ``{file: , column: , text: }``."""
    given = {"file": argument} if isinstance(argument, str) else argument
    if not isinstance(given, Mapping) or not isinstance(given.get("file"), str) or set(given) - set(_OF_FILE):
        raise ValueError(f"wanted a file, or {{file: PATH, column: NAME, text: true or false}}, found {argument}")
    text = given.get("text")
    if text is not None and not isinstance(text, bool):
        raise ValueError(f"text: wanted true or false, found {text}")
    column = given.get("column", given.get("column_name"))
    return vocabulary_file.describe(given["file"], column, text, given.get("sha256"))


def parse_copy(argument: Any) -> dict[str, Any]:
    """Reads the one input of ``copy``."""
    of = argument["of"] if isinstance(argument, Mapping) and set(argument) == {"of"} else argument
    if isinstance(of, list | tuple) and len(of) != 1:
        raise ValueError(f"wanted one feature, found {argument}")
    return {"of": _inputs(of if isinstance(of, list | tuple) else [of], argument)}


def parse_cross(argument: Any) -> dict[str, Any]:
    """Reads ``{of: [two or more], n: rows}``."""
    wanted = f"wanted {{of: [FEATURE, FEATURE], n: ROWS}}, found {argument}"
    if (
        not isinstance(argument, Mapping)
        or set(argument) != {"of", "n"}
        or not isinstance(argument["of"], list | tuple)
    ):
        raise ValueError(wanted)
    if len(argument["of"]) < 2:
        raise ValueError(f"crosses two features or more, found {argument['of']}")
    return {"of": _inputs(argument["of"], argument), **parse_count("n", argument["n"])}


def parse_one_hot(argument: Any) -> dict[str, Any]:
    """Reads ``{of: FEATURE, value: ID}``, one column of the several that a config declares together."""
    if not isinstance(argument, Mapping) or set(argument) != {"of", "value"}:
        raise ValueError(
            f"wanted {{of: FEATURE, num: NUMBER OF IDS}} or {{of: FEATURE, values: [...]}}, found {argument}"
        )
    of, value = argument["of"], argument["value"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"value: wanted an id, found {value}")
    return {"of": _inputs(of if isinstance(of, list | tuple) else [of], argument), "value": value}


def _inputs(of: Sequence[Any], argument: Any) -> list[Any]:
    """The inputs of a transform that makes a feature: names, or {name: transforms}."""
    for one in of:
        is_mapping = isinstance(one, Mapping) and len(one) == 1 and isinstance(next(iter(one.values())), list | tuple)
        if not isinstance(one, str) and not is_mapping:
            raise ValueError(f"wanted features, each NAME or {{NAME: [transforms]}}, found {argument}")
    return list(of)
