"""Command lines for copying, and how text is written in them: as it is, or in quotes.

A value of a text option is taken as it is: ``data.path=d/dt=2026-11-25/clicks (1).parquet``. Quotes around the whole
of it are for what would mean something else: ``'null'`` is a word, ``null`` no value; ``["a, b", c]`` has two elements.
"""

import re
import shlex
from collections.abc import Iterable

_NO_VALUE = "null"
_BARE = re.compile(r"[^.=\"'\s+~-][^.=]*")
_DOLLARS = re.compile(r"(\\*)\$\{")


def unquote(text: str) -> str | None:
    """The text inside quotes, where they are around the whole; None where they are not.

    Before a quote of the same kind and at the end a backslash stands for itself only when it is doubled.

    Args:
        text: as it was typed.
    """
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return None
    quote, inner = text[0], text[1:-1]
    plain, at = [], 0
    for found in re.finditer(rf"(\\*)({quote}|\Z)", inner):
        slashes = len(found[1])
        if slashes % 2 != bool(found[2]):
            return None  # a quote inside ends the quoted part, or the last one does not end it
        plain += [inner[at : found.start()], "\\" * (slashes // 2), found[2]]
        at = found.end()
    return "".join(plain)


def quote(text: str) -> str:
    """The text in double quotes, so that ``unquote`` gives it back.

    Args:
        text: any text.
    """
    doubled = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text, flags=re.DOTALL)
    return f'"{doubled}"'


def read_text(text: str) -> str | None:
    """The value of a text option: without the quotes around it, None for ``null``.

    Args:
        text: as it was typed.
    """
    if text.lower() == _NO_VALUE:
        return None
    inner = unquote(text)
    return text if inner is None else inner


def split_list(text: str) -> list[str]:
    """The elements of ``[a, b c, "d, e"]``; brackets, braces and parentheses in an element must be in pairs.

    Args:
        text: what stands between the brackets.

    Returns:
        The elements as they were typed, without the spaces around them.

    Raises:
        ValueError: a quote or a bracket is not closed, or an element is empty.
    """
    parts, start, depth, at = [], 0, 0, 0
    while at < len(text):
        letter = text[at]
        if letter in "\"'" and not text[start:at].strip(" "):
            closing = re.compile(rf"(?:\\.|[^\\{letter}])*{letter}", re.DOTALL).match(text, at + 1)
            if closing is None:
                raise ValueError(f"the quote {letter} is not closed")
            at = closing.end()
            continue
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip(" "))
            start = at + 1
        at += 1
    if depth:
        raise ValueError("brackets are not in pairs")
    last = text[start:].strip(" ")
    if last or parts:
        parts.append(last)
    if not all(parts):
        raise ValueError("an element is empty")
    return parts


def escape_dollars(text: str) -> str:
    r"""The text with ``\${`` in place of ``${``, which in a config stands for another option's value.

    Args:
        text: any text.
    """
    return _DOLLARS.sub(lambda found: rf"{found[1] * 2}\${{", text)


def override(name: str | Iterable[str], value: str | Iterable[str] | int | float | bool | None) -> str:
    """An override that sets an option to a value whatever letters it has, not quoted for the shell.

    Args:
        name: a dotted name, or its parts, which may hold any letters.
        value: text, a list of texts, a number, a truth value or None.
    """
    return f"{name if isinstance(name, str) else name_override(name)}={_write(value)}"


def name_override(parts: Iterable[str]) -> str:
    """The dotted name of an option; parts with a dot or an equals sign in them stand in quotes.

    Args:
        parts: the parts of the name.
    """
    return ".".join(part if _BARE.fullmatch(part) else quote(part) for part in parts)


def _write(value: str | Iterable[str] | int | float | bool | None) -> str:
    if value is None:
        return _NO_VALUE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        text = escape_dollars(value)
        return text if read_text(text) == text and not text.startswith("~") else quote(text)
    return f"[{', '.join(map(_write_element, value))}]"


def _write_element(value: str) -> str:
    text = escape_dollars(value)
    plain = text and text == text.strip() and not re.search(r"[,\[\]{}()\"']", text)
    return text if plain else quote(text)


def command_line(*words: str) -> str:
    """A line that a shell can run: each word is quoted where the shell would change it.

    Args:
        words: the program, its command and arguments.
    """
    return shlex.join(words)
