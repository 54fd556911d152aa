"""Tables fit any width, cut nothing, and have no blanks at the ends of their lines."""

import io

import pytest
from rich.console import Console

from recd_dist.screen.plain_table import PlainTable

LONG = "a_name_of_a_feature_that_is_much_too_long_for_any_column_of_a_table"


def shown(table: PlainTable, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table, crop=False)
    return stream.getvalue()


def numbers(num_columns: int) -> PlainTable:
    table = PlainTable("numbers", ["name", *(f"batch\n{i}" for i in range(num_columns))])
    table.add_row("short", *(f"{i}.25" for i in range(num_columns)))
    table.add_row(LONG, *(f"{i}.75" for i in range(num_columns)))
    table.add_row("категория", *(f"{i}.50" for i in range(num_columns)))
    return table


def test_a_table_as_it_is() -> None:
    table = PlainTable("groups", ["group", "samples\na row", "why"], left=["why"], caption="of a batch")
    table.add_row("history", "4.96", "it repeats within a session, and nowhere else at all")
    table.add_section()
    table.add_row("all")
    assert shown(table, 46).splitlines() == [
        "groups",
        "         samples",
        "group      a row  why",
        "──────────────────────────────────────────────",
        "history     4.96  it repeats within a session,",
        "                  and nowhere else at all",
        "──────────────────────────────────────────────",
        "all",
        "",
        "of a batch",
        "",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("num_columns", [1, 6, 9, 30])
def test_nothing_is_cut_at_any_width(width: int, num_columns: int) -> None:
    text = shown(numbers(num_columns), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, len(LONG))
    assert not any(line.endswith(" ") for line in lines)
    assert "…" not in text
    for i in range(num_columns):
        for decimals in ("25", "75", "50"):
            assert f" {i}.{decimals}" in text
    if 10 + 6 * num_columns <= width:
        assert text.count(LONG) == 1
