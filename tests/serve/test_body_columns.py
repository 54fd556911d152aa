"""A request on its way: JSON to columns in the front, columns to values in a worker."""

from typing import Any

import numpy as np
import orjson
import pytest

from recd_dist.serve.body_columns import read_body, read_candidates, read_user, write_candidates, write_user
from recd_dist.serve.refused import RefusedError

MOST = 100


def user_of(**features: Any) -> dict[str, Any]:
    return read_user(write_user(features, MOST))


def candidates_of(**columns: Any) -> dict[str, Any]:
    return read_candidates(write_candidates(columns, MOST, MOST)[0])


def test_values_of_a_user_arrive_as_they_were_sent() -> None:
    found = user_of(
        region=3, name="Åse", age=1.5, none=None, history=[7, 8], empty=[], words=["a", "b"], holes=[1, None]
    )

    assert {name: found[name] for name in ("region", "name", "age", "none", "empty", "words", "holes")} == {
        "region": 3, "name": "Åse", "age": 1.5, "none": None, "empty": [], "words": ["a", "b"], "holes": [1, None],
    }  # fmt: skip
    assert found["history"].dtype == np.int64
    assert found["history"].tolist() == [7, 8]
    assert user_of() == {}


def test_columns_of_candidates_arrive_as_arrays() -> None:
    found = candidates_of(
        item=[5, 6], price=[1, 2.5], tags=[[1], [2, 3]], word=["a", None], hole=[1, None], of=[[], [1]]
    )

    assert (found["item"].dtype, found["item"].tolist()) == (np.int64, [5, 6])
    assert (found["price"].dtype, found["price"].tolist()) == (np.float64, [1.0, 2.5])
    assert found["tags"].to_pylist() == [[1], [2, 3]]
    assert found["of"].to_pylist() == [[], [1]]
    assert (found["word"].to_pylist(), found["hole"].to_pylist()) == (["a", None], [1, None])


def test_a_model_without_features_of_candidates_has_one_candidate() -> None:
    columns, num = write_candidates({}, MOST, MOST)
    assert (read_candidates(columns), num) == ({}, 1)


def test_ids_keep_all_their_bits() -> None:
    assert candidates_of(item=[2**63 - 1, -(2**63)])["item"].tolist() == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item": [1, 2], "price": [1]}, "feature 'price' has 1 candidates, and 'item' has 2"),
        ({"item": [1, "a"]}, "not of one kind"),
        ({"item": [1, [2]]}, "not of one kind"),
        ({"item": [True, 2]}, "not of one kind"),
        ({"item": [2**64 - 1]}, "beyond 64 bits"),
        ({"item": [{"id": 1}]}, "an object"),
        ({"item": "x"}, "a text, and has to be a list"),
        ({"tags": [[1], list(range(101))]}, "a list of 101 values, and one may have 100"),
        ({"item": list(range(101))}, "101 candidates, and a request may have 100"),
        ({"item": []}, "the list is empty"),
    ],
)
def test_columns_that_are_none(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        candidates_of(**columns)


def test_many_short_lists_are_no_long_one() -> None:
    assert len(candidates_of(tags=[[1, 2, 3]] * 50)["tags"]) == 50


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "the body is null"),
        ({"user": 3, "candidates": {}}, "user: a number"),
        ({"user": {}, "candidates": {}, "usr": {}}, "unknown field 'usr' of the body; did you mean 'user'"),
        ({"user": {}}, "candidates are missing"),
        ({"candidates": {}}, "user is missing"),
        ({"user": {}, "candidates": {}, "user_version": 1.5}, "user_version: a number"),
        ({"user": {}, "candidates": {}, "user_version": True}, "user_version: true or false"),
    ],
)
def test_bodies_that_are_no_request(body: Any, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        read_body(orjson.dumps(body))


def test_a_body() -> None:
    body = read_body(b'{"candidates": {"item": [1]}, "user_key": "u", "user_version": "3"}')

    assert (body.user, body.candidates, body.user_key, body.user_version) == (None, {"item": [1]}, "u", "3")
