"""What an option may hold, as its type says: names below it, a value's shape, and the words for both.

A type here is what ``job/options.py`` declares, such as ``dict[str, FeatureOptions]``. A dataclass is a map of its
fields; a tuple of dataclasses that have names is a map by name.
"""

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]

from recd_dist.errors import ConfigError, nearest

_TRUE, _FALSE = ("true", "on", "yes"), ("false", "off", "no")
_SHOWN = 60  # letters of a wrong value
_MISSING = "???"
_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
_WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
"""The words for single values."""


@dataclass(frozen=True, eq=False)
class Kind:
    """The ways in which one option may be written.

    Attributes:
        scalars: the types of single values: ``str``, ``int``, ``float``, ``bool``.
        element: the type of a list's elements; None where it may not be a list.
        entries: the type of a map's values whose names the user chooses; None where it may not be such a map.
        names: the types of a section's options by name; None where it may not be a section.
        optional: whether it may be null.
        free: whether anything may stand there.
    """

    scalars: tuple[Any, ...] = ()
    element: Any = None
    entries: Any = None
    names: Mapping[str, Any] | None = None
    optional: bool = False
    free: bool = False

    @property
    def is_map(self) -> bool:
        """Whether it may be a map, of names that the user chooses or of options."""
        return self.entries is not None or self.names is not None

    def __str__(self) -> str:
        """What may be written, in words."""
        ways = []
        if self.element is not None:
            ways.append("a list such as [a, b]")
        ways += [_WORDS[scalar] for scalar in self.scalars]
        if self.names is not None:
            ways.append(f"a map of {', '.join(self.names)}")
        if self.entries is not None:
            ways.append(f"a map of names, each {kind_of(self.entries)}")
        return " or ".join([*ways, *(["null"] if self.optional else [])])


def section(of: type) -> dict[str, Any]:
    """The types of a dataclass's fields by name.

    Args:
        of: a dataclass.
    """
    hints = get_type_hints(of, include_extras=True)
    return {field.name: hints[field.name] for field in fields(of)}


@cache
def kind_of(hint: Any) -> Kind:
    """The ways in which an option of a type may be written.

    Args:
        hint: a type of ``job/options.py``, or a kind, which is returned.
    """
    if isinstance(hint, Kind):
        return hint
    if get_origin(hint) is Annotated:
        return kind_of(get_args(hint)[1])
    if hint is Any:
        return Kind(free=True)
    if get_origin(hint) in (Union, types.UnionType):
        return _either([kind_of(way) for way in get_args(hint)])
    if get_origin(hint) is not None:
        return _collection(get_origin(hint), get_args(hint))
    if is_dataclass(hint) and isinstance(hint, type):
        return Kind(names=section(hint))
    return Kind(optional=True) if hint is type(None) else Kind(scalars=(hint,))


def _collection(origin: Any, inner: tuple[Any, ...]) -> Kind:
    """The kind of a dict, a list or a tuple of types."""
    if origin is dict:
        return Kind(entries=inner[1])
    if is_dataclass(inner[0]) and isinstance(inner[0], type):
        options = {name: of for name, of in section(inner[0]).items() if name != "name"}
        return Kind(element=str, entries=Kind(names=options))
    return Kind(element=inner[0])


def _either(ways: list[Kind]) -> Kind:
    """What may be written in any of these ways; there is at most one kind of list, of map and of section."""
    return Kind(
        tuple(sorted((scalar for way in ways for scalar in way.scalars), key=(bool, int, float, str).index)),
        next((way.element for way in ways if way.element is not None), None),
        next((way.entries for way in ways if way.entries is not None), None),
        next((way.names for way in ways if way.names is not None), None),
        any(way.optional for way in ways),
        any(way.free for way in ways),
    )


def fit(value: Any, kind: Kind, name: str) -> Any:
    """Checks the shape of a value, and of all below it, and converts what is written in another way than it is kept.

    Interpolations and missing values pass: they are resolved later.

    Args:
        value: plain data, as YAML holds it.
        kind: what may stand there.
        name: the option's dotted name.

    Returns:
        The value: one name as a list of one, numbers and truth values as such.

    Raises:
        ConfigError: an unknown option, or a value of another shape.
    """
    if kind.free or value == _MISSING or (isinstance(value, str) and _INTERPOLATION.search(value)):
        return value
    if value is None:
        return _fit_nothing(kind, name)
    if isinstance(value, Mapping) and kind.names is not None:
        return {key: fit(inner, kind_of(_known(key, kind, name)), below(name, key)) for key, inner in value.items()}
    if isinstance(value, Mapping) and kind.entries is not None:
        return {_name(key, name): fit(inner, kind_of(kind.entries), below(name, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple) and kind.element is not None:
        return [fit(inner, kind_of(kind.element), f"{name}[{at}]") for at, inner in enumerate(value)]
    if not isinstance(value, Mapping | list | tuple):
        for scalar in (*kind.scalars, *(kind_of(kind.element).scalars if kind.element is not None else ())):
            if (found := _convert(value, scalar, name)) is not None:
                return found if scalar in kind.scalars else [found]
    raise ConfigError(f"{name}={show(value)}: must be {kind}")


def below(name: str, key: Any) -> str:
    """The dotted name of an option of a section.

    Args:
        name: the section's name; empty for the whole config.
        key: the option's name in it.
    """
    return f"{name}.{key}" if name else str(key)


def _fit_nothing(kind: Kind, name: str) -> Any:
    """What an option without a value is: null where it may be, else an empty map or list."""
    if kind.optional:
        return None
    if kind.is_map:
        return {}
    if kind.element is not None:
        return []
    raise ConfigError(f"{name}=null: must be {kind}")


def _name(key: Any, name: str) -> str:
    """A name in a map of the user's own, as text; YAML reads ``on`` as a truth value."""
    if isinstance(key, bool) or key is None:
        taken, example = ("null", "null") if key is None else (str(key).lower(), "on")
        raise ConfigError(f"{name}: a name that YAML takes for {taken}; put it in quotes, as '{example}'")
    return str(key)


def _known(key: Any, kind: Kind, name: str) -> Any:
    """The type of an option of a section."""
    if key not in (kind.names or {}):
        raise UnknownOption(below(name, key))
    return (kind.names or {})[key]


def _convert(value: Any, scalar: Any, name: str) -> Any:
    """A single value as the type that is wanted; None where it is none of them."""
    if scalar is str and isinstance(value, bool):
        raise ConfigError(
            f"{name}={str(value).lower()}: must be text; YAML takes on, off, yes, no, true and false for truth values: "
            "put the text in quotes"
        )
    if scalar is str:
        return str(value)
    if scalar is bool:
        return {**dict.fromkeys((*_TRUE, "1"), True), **dict.fromkeys((*_FALSE, "0"), False)}.get(str(value).lower())
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return scalar(value) if isinstance(value, str) or scalar(value) == value else None
    except ValueError:
        return None


class UnknownOption(ConfigError):
    """An option that does not exist.

    Attributes:
        name: its dotted name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown option '{name}'")
        self.name = name


def explain_unknown(name: str, known: Kind, command: str) -> str:
    """Says that an option does not exist, and which one was most likely meant.

    An option beside it comes first, then one of the same last name in another section, then any.

    Args:
        name: its dotted name.
        known: the options that exist.
        command: the command whose options they are.
    """
    parent, _, last = name.rpartition(".")
    place = known
    for part in parent.split(".") if parent else ():
        place = _under(place, part) or Kind()
    beside = nearest(last, place.names or {}).replace("mean '", f"mean '{parent}." if parent else "mean '")
    others = [n for n in (*_all_names(known, leaves=True), *_all_names(known, leaves=False)) if n != name]
    tails = [n for n in others if n.rpartition(".")[2] == last]
    others = [n for n in others if n.rpartition(".")[0] != parent and not name.startswith(f"{n}.")]
    for hint in (beside, f"; did you mean '{tails[0]}'?" if tails else "", nearest(name, others)):
        if "did you mean" in hint:
            return f"unknown option '{name}'{hint}"
    if parent and place.names:
        return f"unknown option '{name}'; there are: {', '.join(place.names)}"
    return f"unknown option '{name}'; every option: recd {command} --options"


def _under(kind: Kind, part: str) -> Kind | None:
    """What may stand under a name of a map; None where there is no such name."""
    if kind.free:
        return kind
    if kind.names is not None and part in kind.names:
        return kind_of(kind.names[part])
    return kind_of(kind.entries) if kind.entries is not None else None


def kind_at(path: tuple[str, ...], known: Kind) -> Kind:
    """The ways in which the option at a path may be written.

    Args:
        path: the parts of its name.
        known: the options that exist.

    Raises:
        UnknownOption: there is none.
    """
    place = known
    for at, part in enumerate(path):
        under = _under(place, part)
        if under is None:
            raise UnknownOption(".".join(path[: at + 1]))
        place = under
    return place


def _all_names(kind: Kind, *, leaves: bool, prefix: str = "") -> Iterator[str]:
    """The dotted names of all options below: of single values, or of sections."""
    for name, hint in (kind.names or {}).items():
        kind_below = kind_of(hint)
        if leaves != (kind_below.names is not None):
            yield f"{prefix}{name}"
        yield from _all_names(kind_below, leaves=leaves, prefix=f"{prefix}{name}.")


def show(value: Any) -> str:
    """A value as YAML on one line, cut where it is long.

    Args:
        value: plain data.
    """
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10_000)
    text = text.removesuffix("...\n").strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
