"""Schema: features in groups; every mistake found in one message."""

import json

import pytest

from recd_dist.errors import ConfigError
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema(
    (
        Feature("c", Kind.id, "sample", "item"),
        Feature("h", Kind.ids, "user", "item"),
        Feature("age", Kind.dense, "user"),
        Feature("p", Kind.id, "page", "page"),
        Feature("price", Kind.dense),
    ),
    ("click", "buy"),
)


def test_parts() -> None:
    assert SCHEMA.groups == ("user", "page", "sample")
    assert SCHEMA.dedup_groups == ("user", "page")
    assert SCHEMA.sparse_of("user") == ("h",)
    assert SCHEMA.dense_of("user") == ("age",)
    assert [f.name for f in SCHEMA.sparse] == ["c", "h", "p"]
    assert [f.name for f in SCHEMA.dense] == ["age", "price"]
    assert SCHEMA.tables == ("item", "page")
    assert SCHEMA["h"].kind is Kind.ids
    assert "h" in SCHEMA
    assert "x" not in SCHEMA


def test_sample_is_a_group_even_without_features() -> None:
    assert Schema((Feature("u", Kind.id, "user", "u"),)).groups == ("user", "sample")


def test_json_and_back() -> None:
    assert Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA


def test_without() -> None:
    assert SCHEMA.without(["h", "age"]).groups == ("page", "sample")
    with pytest.raises(ConfigError, match=r"no feature 'prise'; did you mean 'price'\?"):
        SCHEMA.without(["prise"])


def test_unknown_feature() -> None:
    with pytest.raises(ConfigError, match=r"no feature 'x'; there are: age, c, h, p, price"):
        SCHEMA["x"]


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ((), ("y",), r"no features"),
        ((Feature("a", Kind.dense),), (), r"no label"),
        ((Feature("a", Kind.dense), Feature("a", Kind.dense)), ("y",), r"'a' is named 2 times"),
        ((Feature("y", Kind.dense),), ("y",), r"'y' is named 2 times"),
        ((Feature("session_id", Kind.dense),), ("y",), r"'session_id' is a reserved column name"),
        ((Feature("user_row", Kind.dense, "user"),), ("y",), r"'user_row' is a reserved column name"),
        ((Feature("a b", Kind.dense),), ("y",), r"'a b' is no plain name"),
        ((Feature("a", Kind.id),), ("y",), r"feature 'a' holds ids but names no table"),
        ((Feature("a", Kind.dense, "sample", "t"),), ("y",), r"feature 'a' is dense but names table 't'"),
    ],
)
def test_mistakes(features: tuple[Feature, ...], labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schema(features, labels)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Schema((Feature("a", Kind.id), Feature("b c", Kind.dense)), ())
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        "schema: no label; name the label column",
        "'b c' is no plain name; use letters, digits and _ (rename it in the SQL)",
        "feature 'a' holds ids but names no table; give it one (its own name will do)",
    ]


def test_expanded_groups_stand_before_the_features_of_samples() -> None:
    schema = Schema(
        (
            Feature("history", Kind.ids, "user", "item"),
            Feature("candidate", Kind.id, "sample", "item"),
            Feature("page", Kind.id, "request", "page"),
        )
    )
    assert schema.expand(["request"]).groups == ("user", "sample")
    assert schema.expand(["request"]).sparse_of("sample") == ("page", "candidate")
    assert schema.expand([]) is schema


def test_an_expanded_feature_remembers_its_group() -> None:
    schema = Schema((Feature("history", Kind.ids, "user", "item"), Feature("candidate", Kind.id, "sample", "item")))
    moved = schema.expand(["user"])
    assert (moved["history"].group, moved["history"].home, moved["candidate"].home) == ("sample", "user", "sample")
    assert Schema.from_json(moved.to_json()) == moved


def test_weights_are_left_out_by_their_column() -> None:
    schema = Schema(
        (
            Feature("history", Kind.ids, "user", "item", weights="heat"),
            Feature("tags", Kind.ids, "sample", "tag", weights="near"),
            Feature("price", Kind.dense),
        )
    )
    assert schema.weights == {"history": "heat", "tags": "near"}
    assert schema.expand(["user"]).weights == schema.weights
    assert schema.without(["heat"]).weights == {"tags": "near"}
    assert [f.name for f in schema.without(["heat", "tags"]).features] == ["history", "price"]
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(ConfigError, match="no feature 'heet'"):
        schema.without(["heet"])
    with pytest.raises(ConfigError, match="feature 'a' is id but has weights 'w'; only lists of ids have weights"):
        Schema((Feature("a", Kind.id, table="a", weights="w"),))
