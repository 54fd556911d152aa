"""How text files are written, where their look does not tell it: ``data.null_values`` and ``data.csv``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from recd_dist.errors import nearest


@dataclass(frozen=True)
class ReadOptions:
    """What the user says of raw files.

    Attributes:
        null_values: the texts that mean a missing value.
        delimiter, quote: characters of CSV files; None lets DuckDB find them.
        header: whether the first line holds the names of the columns; None lets DuckDB find it.
        names: the names of the columns, in their order.
        decimal: the character before the fraction of a number.
        timestamp_format: how times are written, such as ``%d/%m/%Y %H:%M``; None for ISO.
        encoding: ``utf-8``, ``latin-1`` or ``utf-16``; None is utf-8.
        types: the DuckDB type of a column, where its values mislead.
    """

    null_values: tuple[str, ...] = ()
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()
    decimal: str = "."
    timestamp_format: str | None = None
    encoding: str | None = None
    types: tuple[tuple[str, str], ...] = ()


def read_text_options(null_values: Any, csv: Any, mistakes: list[str]) -> ReadOptions:
    """Reads ``null_values`` and ``csv`` of a data config.

    Args:
        null_values: a list of texts, or one text.
        csv: a mapping.
        mistakes: gets a message for each mistake.
    """
    if isinstance(null_values, str):
        null_values = [null_values]
    nulls = tuple(str(value) for value in null_values or ())
    if not isinstance(csv or {}, Mapping):
        mistakes.append(f"csv must map options to values, such as csv: {{delimiter: ';'}}, found {csv!r}")
        return ReadOptions(nulls)
    known = {field.name for field in fields(ReadOptions)} - {"null_values"}
    given = {name: value for name, value in (csv or {}).items() if value is not None}
    mistakes += [f"unknown csv.{name}{nearest(str(name), known)}" for name in given if name not in known]
    given = {name: value for name, value in given.items() if name in known}
    for name in ("delimiter", "quote", "decimal"):
        if name in given and (not isinstance(given[name], str) or len(given[name].replace("\\t", "\t")) > 1):
            mistakes.append(f"csv.{name}={given.pop(name)!r}: must be one character")
    given |= {"delimiter": given["delimiter"].replace("\\t", "\t")} if "delimiter" in given else {}
    if not isinstance(given.get("types", {}), Mapping):
        mistakes.append(f"csv.types must map columns to DuckDB types, found {given.pop('types')!r}")
    given["types"] = tuple((str(name), str(kind)) for name, kind in given.get("types", {}).items())
    given["names"] = tuple(map(str, given.get("names", ())))
    return ReadOptions(nulls, **given)
