"""JSON of ours is JSON everywhere: no NaN, no Infinity."""

import json

import pytest

from recd_dist.files.json_text import json_text


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"auc": float("nan"), "ne": 0.5}, {"auc": None, "ne": 0.5}),
        ([float("inf"), -float("inf"), 1, True, None, "NaN"], [None, None, 1, True, None, "NaN"]),
        ({"a": {"b": (1.5, float("nan"))}}, {"a": {"b": [1.5, None]}}),
    ],
)
def test_what_json_has_no_word_for_is_null(value: object, wanted: object) -> None:
    assert json.loads(json_text(value), parse_constant=refuse) == wanted


def test_one_line_or_many() -> None:
    assert json_text({"a": [1]}, indent=None) == '{"a": [1]}'
    assert json_text({"a": 1}) == '{\n "a": 1\n}'
