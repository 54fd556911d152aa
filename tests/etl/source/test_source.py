"""What a data config may say, and the one error that lists what it says wrongly."""

import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_groups import GroupSource
from recd_dist.table.schema import Kind


def test_a_data_config_becomes_a_source():
    source = Source.from_dict(
        {
            "name": "shop",
            "path": "x.parquet",
            "table": "tables/shop",
            "keys": {"session": "visit", "request": None, "timestamp": "t"},
            "labels": ["clicked"],
            "split": "0.25",
            "groups": {
                "history": {"sql": "select 1", "key": "user"},
                "request": ["device", "hour"],
                "user": {"features": ["age"]},
            },
            "features": {"item": {"table": "article", "transforms": ["hash"]}, "age": {"kind": "dense"}, "hour": None},
            "tables": {"article": {"dim": 8}},
            "drop": ["x"],
        }
    )
    assert source.keys == {"session": "visit", "timestamp": "t"}
    assert source.split == 0.25
    assert source.splits == ("train", "test")
    assert source.groups == {
        "history": GroupSource((), "select 1", ("user",)),
        "request": GroupSource(("device", "hour")),
        "user": GroupSource(("age",)),
    }
    assert source.features["item"].table == "article"
    assert source.features["age"].kind is Kind.dense


def test_every_mistake_is_in_one_error():
    with pytest.raises(ConfigError) as caught:
        Source.from_dict(
            {
                "name": "shop",
                "path": "x",
                "lables": ["clicked"],
                "keys": {"sesion": "visit"},
                "split": 1.5,
                "groups": {"a": {"sql": "select 1"}, "b": ["x"], "c": ["x"], "d": {"featuers": ["x"]}},
                "features": {"item": {"kind": "id_list", "tabel": "t"}},
            }
        )
    for part in (
        "data source 'shop'",
        "unknown option 'lables'; did you mean 'labels'?",
        "unknown keys.sesion; did you mean 'session'?",
        "split must be an SQL predicate or a share between 0 and 1, found 1.5",
        "groups.a.key is missing; name the column that links a sample to its row",
        "'x' is in groups 'b' and 'c'; a feature has one group",
        "unknown groups.d.featuers; did you mean 'features'?",
        "groups.d has neither features nor sql",
        "no kind 'id_list'; did you mean 'ids'?",
        "unknown features.item.tabel; did you mean 'table'?",
        "labels is empty; name the label column",
    ):
        assert part in str(caught.value), part


def test_a_group_may_not_take_the_directory_of_the_samples():
    with pytest.raises(ConfigError, match="'samples' is the table's own directory"):
        Source.from_dict({"path": "x", "labels": ["y"], "groups": {"samples": ["a"]}})
