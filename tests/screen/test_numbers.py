"""Numbers as short text: literals in, literals out."""

import math

import pytest

from recd_dist.screen.numbers import count, milliseconds, rate, ratio, shorten, size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (12.6, "13"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (99_949, "99.9k"),
        (100_000, "100k"),
        (999_499, "999k"),
        (1_000_000, "1.0M"),
        (123_456_789, "123M"),
        (1e9, "1.0G"),
        (123e9, "123G"),
    ],
)
def test_count(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (58_470, "57.1 KiB"),
        (100 << 10, "100 KiB"),
        ((1 << 20) - 600, "1023 KiB"),
        ((1 << 20) - 100, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (2048 << 30, "2048.0 GiB"),
    ],
)
def test_size(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


def test_size_without_a_gap_and_up_to_1024() -> None:
    assert size(58_470, gap="") == "57.1KiB"
    assert size((1 << 20) - 100, gap="", next_unit_from=1024) == "1024KiB"


@pytest.mark.parametrize(("value", "text"), [(0.9375, "0.938"), (1, "1.000"), (0, "0.000"), (math.nan, "-")])
def test_rate(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(49, 10, "4.90x"), (1, 2, "0.50x"), (99.9, 10, "9.99x"), (123, 10, "12.3x"), (5, 0, "-"), (0, 5, "-")],
)
def test_ratio(before: float, after: float, text: str) -> None:
    assert ratio(before, after) == text


def test_ratio_with_as_many_decimals_as_wanted() -> None:
    assert ratio(123.456, 10, 2) == "12.35x"
    assert ratio(49, 10, 1) == "4.9x"


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(0, "0"), (0.0123, "0.012"), (0.1, "0.10"), (3.4, "3.40"), (99.9, "99.90"), (1234.5, "1,234.5")],
)
def test_milliseconds(value_ms: float, text: str) -> None:
    assert milliseconds(value_ms) == text


@pytest.mark.parametrize(
    ("name", "max_letters", "text"),
    [
        ("item", 4, "item"),
        ("candidate_item", 9, "cand~item"),
        ("candidate_item", 8, "can~item"),
        ("a_very_long_feature_name_that_is_cut_in_the_middle", 27, "a_very_long_f~in_the_middle"),
    ],
)
def test_shorten(name: str, max_letters: int, text: str) -> None:
    assert shorten(name, max_letters) == text
    assert len(text) <= max_letters
