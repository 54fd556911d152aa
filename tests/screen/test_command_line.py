"""Text in command lines: what is written is what is read, whatever letters it has."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.screen.command_line import command_line, escape_dollars, override, quote, read_text, split_list, unquote

WILD = st.text(alphabet=st.one_of(st.sampled_from("\"'\\[]{}(),=#$:~ ab"), st.characters(exclude_categories=["Cs"])))


@given(WILD)
def test_quotes_give_back_the_text(text: str) -> None:
    assert unquote(quote(text)) == text


@given(st.lists(WILD.filter(bool)))
def test_a_list_gives_back_its_elements(texts: list[str]) -> None:
    line = override("x", texts).removeprefix("x=[").removesuffix("]")

    read = [(part, unquote(part)) for part in split_list(line)]
    assert [part if inner is None else inner for part, inner in read] == [escape_dollars(text) for text in texts]


@given(WILD)
def test_a_shell_hands_on_the_same_words(text: str) -> None:
    line = command_line("recd", "etl", override("data.path", text))

    assert read_text(shlex.split(line)[2].removeprefix("data.path=")) == escape_dollars(text)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("d/dt=2026-11-25/clicks (1).parquet", "d/dt=2026-11-25/clicks (1).parquet"),
        ("'price > 3'", "price > 3"),
        ("null", None),
        ("'null'", "null"),
        ("'a' = 'b'", "'a' = 'b'"),
        ("'it\\'s'", "it's"),
        ('"a\\d"', "a\\d"),
        ("'open", "'open"),
        ("'", "'"),
        ("", ""),
    ],
)
def test_text_is_taken_as_it_is_unless_it_stands_in_quotes(typed: str, text: str | None) -> None:
    assert read_text(typed) == text


@pytest.mark.parametrize(
    ("inner", "parts"),
    [
        ("", []),
        (" a, b c ,d", ["a", "b c", "d"]),
        ("price (usd, net), x=1", ["price (usd, net)", "x=1"]),
        ("'a, b',it's", ["'a, b'", "it's"]),
    ],
)
def test_commas_outside_quotes_and_brackets_divide(inner: str, parts: list[str]) -> None:
    assert split_list(inner) == parts


@pytest.mark.parametrize("inner", ["a,", ",a", "a,,b", "'a", "(a", "a]"])
def test_a_list_that_is_not_closed_is_refused(inner: str) -> None:
    with pytest.raises(ValueError, match=r"empty|closed|pairs"):
        split_list(inner)
