"""Overrides of the command line, ``name=value``: parsed by the type of the option, and set in a config of plain data.

Text is taken as it is, up to the end of the argument, unless it stands in quotes as a whole; ``screen/command_line.py``
writes such lines. Lists are ``[a, b]``, maps are what YAML writes in braces.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.job.option_types import Kind, UnknownOption, fit, kind_at, kind_of
from recd_dist.screen.command_line import (
    command_line,
    escape_dollars,
    name_override,
    override,
    read_text,
    split_list,
    unquote,
)

_SIGNS = ("", "+", "++", "~")
_PART = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^.=]+)([.=]?)""", re.DOTALL)
_SWEEP = re.compile(r"(range|choice|interval|glob|tag|sort|shuffle)\((.*)\)|[^\[{].*,.*", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)((?:\\\\)*)\$\{([^{}]*)\}|(?<!\\)((?:\\\\)*)\$\{")
_RESOLVER = re.compile(r"oc\.\w+(\.\w+)*:")


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        typed: the argument as it was typed.
        sign: ``+``, ``++``, ``~`` or nothing; Hydra's signs for adding and removing.
        path: the parts of the option's name.
        text: what stands behind the equals sign.
    """

    typed: str
    sign: str
    path: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """The option's dotted name."""
        return ".".join(self.path)


def parse_override(typed: str) -> Override:
    """Takes an override apart.

    A part of the name that has a dot or an equals sign in it stands in quotes: ``data.features."a.b".table=item``.

    Args:
        typed: the argument.

    Raises:
        ConfigError: it is no override.
    """
    if typed.startswith("-"):
        raise ConfigError(f"'{typed}' is no override; options of the config are written name=value")
    rest = typed.lstrip("+~")
    path, at = [], 0
    while part := _PART.match(rest, at):
        inner = unquote(part[1])
        path.append(part[1] if inner is None else inner)
        at = part.end()
        if part[2] != ".":
            break
    sign = typed[: len(typed) - len(rest)]
    if sign not in _SIGNS or not path or not (rest[at - 1 : at] == "=" or (sign == "~" and at == len(rest))):
        raise ConfigError(f"'{typed}' is no override; write name=value")
    return Override(typed, sign, tuple(path), rest[at:])


def apply_overrides(
    values: dict[str, Any], overrides: Iterable[Override], known: Kind, read_flow: Callable[[str], Any]
) -> None:
    """Sets options of a config.

    Args:
        values: the config as plain data; changed in place.
        overrides: what to set, in order.
        known: the options that exist.
        read_flow: reads a list or a map that is written as YAML; raises ValueError.

    Raises:
        ConfigError: an option does not exist, or a value does not fit it.
    """
    for given in overrides:
        kind = _kind_of(given, known)
        if given.sign == "~":
            _remove(values, given)
            continue
        value = _keep_text(_read(given, kind, read_flow), values, given.path)
        _put(values, given.path, fit(value, kind, given.name))


def _kind_of(given: Override, known: Kind) -> Kind:
    """What may be written there; where a part of the name has a dot in it, an error that shows the quotes."""
    try:
        return kind_at(given.path, known)
    except UnknownOption as error:
        for start, end in combinations(range(1, len(given.path)), 2):
            path = (*given.path[:start], ".".join(given.path[start:end]), *given.path[end:])
            with suppress(UnknownOption):
                kind_at(path, known)
                line = command_line(f"{name_override(path)}={given.text}")
                raise ConfigError(f"{given.typed}: a name with a dot in it stands in quotes: {line}") from error
        raise


def _remove(values: dict[str, Any], given: Override) -> None:
    """Takes an entry out of a map; an option itself cannot go."""
    place: Any = values
    for part in given.path[:-1]:
        place = place.get(part) if isinstance(place, Mapping) else None
    if not isinstance(place, dict) or given.path[-1] not in place:
        raise ConfigError(f"'{given.typed}': there is no {given.name} to take out")
    del place[given.path[-1]]


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Sets a value; maps are merged, and a list that stands for a group's features gives way to a map."""
    place = values
    for part in path[:-1]:
        inner = place.get(part)
        if isinstance(inner, list):
            inner = {"features": inner}
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    was = place.get(path[-1])
    if isinstance(value, Mapping) and isinstance(was, Mapping):
        place[path[-1]] = dict(was)
        for name, inner in value.items():
            _put(place[path[-1]], (name,), inner)
    else:
        place[path[-1]] = value


def _read(given: Override, kind: Kind, read_flow: Callable[[str], Any]) -> Any:
    """The value of an override, as the type of its option says."""
    text, element = given.text, kind_of(kind.element) if kind.element is not None else Kind()
    if text.lower() == "null":
        _refuse_unclear_null(given, kind)
        return None
    if text[:1] == "[" and kind.element is not None and str in element.scalars:
        return _read_names(given)
    if text[:1] in "[{" and (kind.element is not None or kind.is_map or kind.free):
        return _read_yaml(given, read_flow)
    if kind.free:
        return _read_yaml(given, read_flow)
    if str in element.scalars and str not in kind.scalars and "," in text and unquote(text) is None:
        listed = f"{given.name}=[{text}]"
        raise ConfigError(
            f"{given.typed}: several names stand in brackets: {command_line(listed)}; one name with a comma in it in "
            f"quotes: {command_line(override(given.path, [text]))}"
        )
    if str not in (*kind.scalars, *element.scalars):
        inner = unquote(text)
        return text if inner is None else inner
    if float in kind.scalars:
        try:
            return float(text)
        except ValueError:
            pass
    if text.startswith("~") and text[1:2] in ("", "/"):
        return f"{Path.home()}{text[1:]}"
    return read_text(text)


def _refuse_unclear_null(given: Override, kind: Kind) -> None:
    """Asks what NULL means where a list of texts is wanted, which is never without a value.

    Raises:
        ConfigError: it may be no element, or one of that text.
    """
    if str in (kind_of(kind.element).scalars if kind.element is not None else ()) and not kind.optional:
        empty, one = (command_line(override(given.path, texts)) for texts in ([], [given.text]))
        raise ConfigError(f"{given.typed}: no element is written {empty}, the text {given.text} {one}")


def _read_names(given: Override) -> list[str]:
    """The elements of a list of texts, each as it is."""
    try:
        if not given.text.endswith("]"):
            raise ValueError("the bracket is not closed")
        parts = split_list(given.text[1:-1])
    except ValueError as error:
        example = command_line(override(given.path, ["a, b (c", "d"]))
        raise ConfigError(
            f"{given.typed}: {error}; a list is written [a, b], and an element with such a sign in quotes: {example}"
        ) from error
    plain = [(part, unquote(part)) for part in parts]
    return [part if inner is None else inner for part, inner in plain]


def _read_yaml(given: Override, read_flow: Callable[[str], Any]) -> Any:
    try:
        return read_flow(given.text)
    except ValueError as error:
        raise ConfigError(
            f"{given.typed}: neither a list [a, b] nor a map {{a: b}} nor a value ({error}); put text with commas, "
            "brackets, braces, colons, # or quotes in double quotes"
        ) from error


def _keep_text(value: Any, values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value, where ``${name}`` that names no option stays text."""
    if isinstance(value, Mapping):
        return {name: _keep_text(inner, values, (*path, name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [_keep_text(inner, values, path) for inner in value]
    if not isinstance(value, str):
        return value

    def escape(found: re.Match[str]) -> str:
        return found[0] if found[2] and _names_option(found[2], values, path) else escape_dollars(found[0])

    return _DOLLAR.sub(escape, value)


def _names_option(inner: str, values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether what stands in ``${...}`` is another option's name, or a function of OmegaConf's."""
    if _RESOLVER.match(inner):
        return True
    name = inner.lstrip(".")
    dots = len(inner) - len(name)
    place: Any = values
    for part in (*path[: len(path) - dots], *name.split(".")) if dots else name.split("."):
        if not isinstance(place, Mapping) or part not in place:
            return False
        place = place[part]
    return True


def find_sweep(given: Override, known: Kind | None) -> list[str]:
    """The values of an override that asks for several runs, as ``optim.dense.lr=0.01,0.02`` does in Hydra.

    Args:
        given: the override.
        known: the options that exist; None: it is the name of a config.
    """
    with suppress(UnknownOption):
        kind = kind_at(given.path, known) if known else Kind()
        wanted = _SWEEP.fullmatch(given.text)
        if wanted is None or str in kind.scalars or kind.element is not None or kind.is_map:
            return []
        values = [value.strip() for value in (wanted[2] if wanted[1] else given.text).split(",")]
        return values if wanted[1] in (None, "choice") else ["VALUE1", "VALUE2"]
    return []


def no_sweeps(command: str, overrides: Sequence[str], variable: str, values: Iterable[str], line: str) -> str:
    """Says how to make several runs.

    Args:
        command: the command that was typed, such as ``train``.
        overrides: all that was typed.
        variable: a name for the shell.
        values: what it stands for, one after the other.
        line: the command of one run.
    """
    if command == "train":
        return f"one command makes one run; `{command_line('recd', 'sweep', *overrides)}` makes one of each value"
    loop = f"for {variable} in {' '.join(map(command_line, values))}; do {line}; done"
    return f"one command takes one value; `recd sweep` is for training, here a loop of the shell serves: {loop}"
