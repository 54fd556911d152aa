"""What texts look like: numbers, numbers with a decimal comma, several ids in one text.

::

    price    '1.5' '2' 'NULL' '7.25'   numbers, that become ids by the hash of their text
    price    '1,5' '2' '7,25'          numbers with a decimal comma
    history  'N1 N2 N3' 'N4 N1'        ids with a separator, that become one id for each whole text
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier, string_literal

NULL_TEXTS = ("NULL", "null", "Null", "\\N", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "None", "<NA>", "#N/A", "<null>")
"""What databases, pandas, R and spreadsheets write where a value is missing."""

_NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_FRACTION = r"[+-]?\d*(\.\d+|\d[eE][+-]?\d+|\.)"
_COMMA = r"[+-]?\d+,\d+"
_SEPARATORS = {
    " ": r"\S*\d\S*( +\S*\d\S*)+",  # each piece holds a digit, or names and titles would be lists
    "|": r"[^|]+(\|[^|]+)+",
    ";": r"[^;\s]+(;\s?[^;\s]+)+",
    ",": r"[^,\s]+(,\s?[^,\s]+){2,}",
    "[]": r"\[.*\]",
}
_DIGITS = r"[\d\s|;,\[\]]+"
_MOST = 0.9
_SOME = 0.2


@dataclass(frozen=True)
class TextShapes:
    """How many texts of a column have each look.

    Attributes:
        num: the texts that are neither missing nor empty nor one of :data:`NULL_TEXTS`.
        num_numbers: those that are a number, with a decimal point or none.
        num_fractions: those that are a number with a decimal point or an exponent.
        num_commas: those that are a number with a decimal comma.
        num_lists: those that are several ids, by separator.
        num_digits: those that are whole numbers, one or several.
        other: the smallest text that is no number at all.
    """

    num: int
    num_numbers: int
    num_fractions: int
    num_commas: int
    num_lists: Mapping[str, int]
    num_digits: int
    other: str | None

    def announcements(self, column: str, where: str) -> Iterable[Announcement]:
        """What people may not expect of the column.

        Args:
            column: the name of the column.
            where: the rows that were looked at, such as ``the first 50,000 rows``.
        """
        numbers = self.num_numbers + self.num_commas
        if not self.num:
            return
        if self.num_commas and numbers >= _MOST * self.num:
            yield Announcement(
                f"column '{column}' is text and hashed: in {where}, {self.num_commas:,} of {self.num:,} texts are "
                "numbers with a decimal comma",
                self.num_commas,
                f"'data.csv.decimal=\",\"' reads them from CSV, replace({column}, ',', '.')::double as {column} in "
                "data.samples from anything",
            )
        elif numbers >= _MOST * self.num and (self.num_fractions or numbers < self.num):
            others = f", one is '{self.other}'" if self.other is not None else ""
            missing = f"data.null_values=['{self.other}'] where that means missing, and " if others else ""
            number = "double" if self.num_fractions else "bigint"
            yield Announcement(
                f"column '{column}' is hashed text; {numbers:,} of {self.num:,} texts in {where} are numbers{others}",
                numbers,
                f"{missing}try_cast({column} as {number}) as {column} in data.samples makes numbers of them, "
                f"data.features.{column}.kind=id says that they are texts",
            )
        elif numbers < _MOST * self.num:
            yield from self._announce_lists(column, where)

    def _announce_lists(self, column: str, where: str) -> Iterable[Announcement]:
        separator, num = max(self.num_lists.items(), key=lambda item: item[1])
        if num < _SOME * self.num:
            return
        whole = self.num_digits == self.num
        split = f"string_split({column}, {string_literal(separator)})" + ("::bigint[]" if whole else "")
        if separator == "[]":
            split = f"{column}::{'bigint' if whole else 'varchar'}[]"
        yield Announcement(
            f"column '{column}' is text, and each whole text is one id: in {where}, {num:,} of {self.num:,} texts look "
            f"like several ids {'in brackets' if separator == '[]' else f'with {separator!r} between them'}",
            num,
            f"{split} as {column} in data.samples makes lists of them, data.features.{column}.kind=id says that they "
            "are one id",
        )


def shapes_sql(column: str) -> tuple[str, str]:
    """The SQL aggregates that look at a text column, whose values :func:`read_shapes` reads."""
    text = f"trim({identifier(column)}::varchar)"
    missing = ", ".join(map(string_literal, ("", *NULL_TEXTS)))
    some = f"(case when {text} not in ({missing}) then {text} end)"

    def count(pattern: str, of: str = some) -> str:
        return f"count(*) filter (regexp_full_match({of}, {string_literal(pattern)}))"

    no_time = f"case when try_cast({some} as timestamptz) is null then {some} end"
    lists = [count(pattern, no_time if separator in " ," else some) for separator, pattern in _SEPARATORS.items()]
    no_number = f"not regexp_full_match({some}, {string_literal(f'{_NUMBER}|{_COMMA}')})"
    counts = [f"count({some})", count(_NUMBER), count(_FRACTION), count(_COMMA), *lists, count(_DIGITS)]
    return f"[{', '.join(counts)}]", f"min({some}) filter ({no_number})"


def read_shapes(counts: list[int], other: Any) -> TextShapes:
    """What :func:`shapes_sql` counted."""
    num, numbers, fractions, commas, *lists, digits = counts
    return TextShapes(num, numbers, fractions, commas, dict(zip(_SEPARATORS, lists, strict=True)), digits, other)
