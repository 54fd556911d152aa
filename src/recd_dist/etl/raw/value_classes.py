"""What the texts of a column look like, over all rows, and the type that follows.

::

    '12' '7' ''             whole only                       BIGINT
    '12' '2.5'              whole, fraction                  DOUBLE
    '12' 'n/a'              whole but for a few              refused: the value, its line and the cure are named
    '25/11/2026 10:00'      day first, for 25 is no month    TIMESTAMP, and the log says how it is read
    '11/09/2026'            11 September or November 9?      refused until `data.csv.timestamp_format` says it

DuckDB itself looks at the first 20,480 rows of a file and rounds what comes later (2.5 becomes 3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from recd_dist.etl.raw.common_types import NOTHING
from recd_dist.table.flat import string_literal


class Look(IntEnum):
    """What one value looks like."""

    missing = 0
    whole = 1
    whole_unsigned = 2
    whole_huge = 3
    fraction = 4
    boolean = 5
    date = 6
    time = 7
    time_with_zone = 8
    day_or_month_first = 9
    day_first = 10
    month_first = 11
    given_time = 12
    perhaps_missing = 13
    text = 14


Counts = Mapping[Look, int]
"""How many values of a column look like what."""

_MISSING = ("null", "\\n", "na", "n/a", "nan", "none", "nil", "#n/a", "<na>", "-", "?", "missing")
"""What people write for a missing value, in lower case."""
_DATE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}"
_CLOCK = r"[ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?"
_ZONE = r" ?(Z|[-+]\d{2}(:?\d{2})?| ?UTC)"
_SLASHED = r"\s*\d{1,2}[/.-]\d{1,2}[/.-]\d{4}([ T].*)?"
FEW = 0.05
"""Up to this share, values that do not fit the others are taken for faults of a column of numbers, not for text."""

WHOLE = (Look.whole, Look.whole_unsigned, Look.whole_huge)
"""What whole numbers look like."""

_NUMBERS = (*WHOLE, Look.fraction)
_TIMES = (Look.date, Look.time, Look.time_with_zone, Look.given_time)
_SLASHES = (Look.day_or_month_first, Look.day_first, Look.month_first)
_ORDERS = {"day": "%d{0}%m{0}%Y", "month": "%m{0}%d{0}%Y"}
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")


@dataclass(frozen=True)
class Found:
    """The type of a column, and how its texts become values of it.

    Attributes:
        type_name: DuckDB type.
        formats: the formats by which times are read; none where DuckDB's own reading is the right one.
        order: ``day`` or ``month``, whichever comes first in these times; empty where it does not matter.
    """

    type_name: str
    formats: tuple[str, ...] = ()
    order: str = ""


class Misfit(Exception):
    """Some values do not fit the rest of their column.

    Args:
        what: what is wrong, without file and line.
        wanted: the type that the other values have; empty where no single value is at fault.
        cure: what to do.
    """

    def __init__(self, what: str, wanted: str, cure: str) -> None:
        super().__init__(what)
        self.what, self.wanted, self.cure = what, wanted, cure


def look_sql(text: str, decimal: str = ".", time_format: str | None = None) -> str:
    """SQL for the :class:`Look` of a text.

    Args:
        text: SQL of the text.
        decimal: the character before the fraction of a number.
        time_format: how times are written; None for ISO, or day and month in either order.
    """
    point = r"\." if decimal == "." else decimal
    number = rf"\s*[-+]?(\d+{point}?\d*|{point}\d+)([eE][-+]?\d+)?\s*"
    missing = ", ".join(map(string_literal, _MISSING))
    given = f"when try_strptime({text}, {string_literal(time_format)}) is not null then 12" if time_format else ""
    first = {order: f"try_strptime({text}, {_sql_list(_slash_formats(order))}) is not null" for order in _ORDERS}
    return f"""case when {text} is null then 0 {given}
        when regexp_full_match({text}, '\\s*[-+]?\\d{{1,18}}\\s*') then 1
        when regexp_full_match({text}, '\\s*[-+]?\\d+\\s*') then case when try_cast({text} as bigint) is not null then 1
            when try_cast({text} as ubigint) is not null then 2 when try_cast({text} as hugeint) is not null then 3
            else 4 end
        when lower(trim({text})) in ({missing}) then 13
        when lower({text}) in ('true', 'false') then 5
        when not regexp_matches({text}, '^\\s*[-+.,\\d]') then 14
        when regexp_full_match({text}, {string_literal(number)}) then 4
        when regexp_full_match({text}, '{_DATE}') and try_cast({text} as date) is not null then 6
        when regexp_full_match({text}, '{_DATE}{_CLOCK}') and try_cast({text} as timestamp) is not null then 7
        when regexp_full_match({text}, '{_DATE}{_CLOCK}{_ZONE}') then 8
        when regexp_full_match({text}, '{_SLASHED}') then case
            when {first["day"]} then case when {first["month"]} then 9 else 10 end
            when {first["month"]} then 11 else 14 end
        else 14 end"""


def count_looks_sql(texts: Iterable[str], table: str, file: str, decimal: str, time_format: str | None) -> str:
    """SQL that counts what the texts of columns look like: file, number of the column, look, count.

    All columns go through one expression, as one for each of 300 columns takes DuckDB minutes to plan.

    Args:
        texts: SQL of each column's text.
        table: SQL of the rows.
        file: the column that holds the file.
        decimal: the character before the fraction of a number.
        time_format: how times are written; None for ISO, or day and month in either order.
    """
    columns = list(texts)
    return (
        f"select {file}, place, {look_sql('text', decimal, time_format)} as look, count(*) from (select {file}, "
        f"unnest([{', '.join(columns)}]) as text, unnest(range({len(columns)})) as place from {table}) group by all"
    )


def type_of(column: str, counts: Counts, time_format: str | None = None) -> Found:
    """The type that all values of a column have.

    Args:
        column: its name, for messages.
        counts: how many values look like what.
        time_format: the format of times that the user gave, if any.

    Raises:
        Misfit: few values do not fit the others, or times can be read in two ways.
    """
    present: dict[Look, int] = {look: count for look, count in counts.items() if count and look is not Look.missing}
    total = sum(present.values())
    if not total:
        return Found(NOTHING)
    for looks, found in ((_NUMBERS, _number), ((Look.boolean,), _boolean), (_TIMES, _time), (_SLASHES, _slashed)):
        fitting = sum(present.get(look, 0) for look in looks)
        strange = total - fitting
        if fitting and not strange:
            return found(column, present, time_format)
        only_missing = strange == present.get(Look.perhaps_missing, 0)
        if fitting and (strange <= FEW * total or only_missing):
            kept: dict[Look, int] = {look: count for look, count in present.items() if look in looks}
            wanted = found(column, kept, time_format).type_name
            raise Misfit(f"{strange:,} of {total:,} values of column '{column}' are no {wanted}", wanted, "")
    return Found("VARCHAR")


def slash_conversion(column_sql: str, found: Found) -> str:
    """SQL that reads the texts of a column whose times have formats."""
    formats = found.formats[0] if len(found.formats) == 1 else None
    given = string_literal(formats) if formats else _sql_list(found.formats)
    return f"strptime({column_sql}, {given})" + ("" if found.type_name == "TIMESTAMP" else f"::{found.type_name}")


def _number(column: str, present: Counts, time_format: str | None) -> Found:
    del column, time_format
    if Look.fraction in present:
        return Found("DOUBLE")
    if Look.whole_huge in present:
        return Found("HUGEINT")
    return Found("UBIGINT" if Look.whole_unsigned in present else "BIGINT")


def _boolean(column: str, present: Counts, time_format: str | None) -> Found:
    del column, present, time_format
    return Found("BOOLEAN")


def _time(column: str, present: Counts, time_format: str | None) -> Found:
    if Look.given_time in present and time_format:
        if len(present) > 1:
            raise Misfit(
                f"column '{column}': not all times are written as {time_format}",
                "",
                "data.csv.timestamp_format= must fit every value of a column that holds times",
            )
        return Found("TIMESTAMP WITH TIME ZONE" if "%z" in time_format else "TIMESTAMP", (time_format,))
    if Look.time_with_zone in present:
        if len(present) > 1:
            raise Misfit(
                f"column '{column}' mixes {present[Look.time_with_zone]:,} times that name their zone with "
                f"{sum(present.values()) - present[Look.time_with_zone]:,} that do not",
                "",
                "write all of them with a zone (2026-11-25T10:00:00Z) or none",
            )
        return Found("TIMESTAMP WITH TIME ZONE")
    return Found("TIMESTAMP" if Look.time in present else "DATE")


def _slashed(column: str, present: Counts, time_format: str | None) -> Found:
    del time_format
    day, month = present.get(Look.day_first, 0), present.get(Look.month_first, 0)
    if day and month:
        raise Misfit(
            f"column '{column}': {day:,} dates can only be read day first and {month:,} only month first",
            "",
            "bring the dates to one form, best 2026-11-25",
        )
    if not day and not month:
        raise Misfit(
            f"column '{column}': every date can be read day first and month first (is 11/09 in September?)",
            "",
            "say which: data.csv.timestamp_format='%d/%m/%Y %H:%M:%S' or '%m/%d/%Y %H:%M:%S'",
        )
    order = "day" if day else "month"
    return Found("TIMESTAMP", tuple(_slash_formats(order)), order)


def _slash_formats(order: str) -> list[str]:
    return [_ORDERS[order].format(mark) + clock for mark in ("/", ".", "-") for clock in _CLOCKS]


def _sql_list(texts: tuple[str, ...] | list[str]) -> str:
    return f"[{', '.join(map(string_literal, texts))}]"
