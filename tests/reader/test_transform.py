import json
from dataclasses import replace

import numpy as np
import pytest

from recd_dist.errors import ConfigError
from recd_dist.reader import transform as t
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Column


def lists(*rows, dtype=np.int64):
    return Column(np.array([i for r in rows for i in r], dtype), np.cumsum([0, *map(len, rows)]))


def rows(column):
    return [column.values[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]


def dense(*values):
    return Column(np.array(values, np.float32))


def test_first_x():
    assert rows(t.first_x(lists([1, 2, 3], [], [4]), 2)) == [[1, 2], [], [4]]


def test_last_x():
    assert rows(t.last_x(lists([1, 2, 3], [], [4]), 2)) == [[2, 3], [], [4]]


def test_weights_are_cut_as_their_ids_are():
    column = replace(lists([1, 2, 3], [], [4]), weights=np.array([0.5, -1, 2, 3], np.float32))
    assert t.first_x(column, 2).weights.tolist() == [0.5, -1, 3]
    assert t.last_x(column, 1).weights.tolist() == [2, 3]
    for kept in (t.hash_ids(column, 9), t.clamp(column, max=2), t.bucketize(column, [2]), t.first_x(column, 9)):
        assert kept.weights.tolist() == [0.5, -1, 2, 3]


def test_first_x_of_short_lists_copies_nothing():
    column = lists([1], [2])
    assert t.first_x(column, 2) is column


def test_clamp():
    assert t.clamp(dense(-1, 5, 20), min=0, max=10).values.tolist() == [0, 5, 10]
    assert rows(t.clamp(lists([7, 99], dtype=np.int32), max=50)) == [[7, 50]]
    assert t.clamp(lists([7, 99], dtype=np.int32), max=50).values.dtype == np.int32


def test_log_keeps_the_sign():
    np.testing.assert_allclose(t.log(dense(0, np.e - 1, 1 - np.e)).values, [0, 1, -1], rtol=1e-6)


def test_bucketize():
    assert t.bucketize(dense(0.5, 1, 9), [1, 5]).values.tolist() == [0, 1, 2]
    assert rows(t.bucketize(lists([0, 5], [7]), [1, 5])) == [[0, 2], [2]]


def test_standardize():
    assert t.standardize(dense(1, 3), mean=2, std=0.5).values.tolist() == [-2, 2]
    assert t.standardize(dense(4, 4), mean=4, std=0).values.tolist() == [0, 0]


def test_hash_spreads_any_integer_over_all_rows():
    ids = np.array([-(2**63), -1, 0, 1, 2**63 - 1, *range(1000)])
    hashed = t.hash_ids(Column(ids), 100).values
    assert hashed.min() >= 0
    assert set(hashed.tolist()) == set(range(100))
    assert hashed[:5].tolist() == t.hash_ids(Column(ids[:5]), 100).values.tolist()


def test_hash_never_changes():
    assert t.hash_ids(Column(np.array([-1, 0, 1, 2**40])), 1000).values.tolist() == [936, 535, 465, 641]


SPECS = {
    "history": [{"last_x": 3}, {"hash": 50}],
    "age": [{"clamp": {"min": 20, "max": 60}}, "log"],
    "price": ["log", "standardize"],
}


def test_parse_is_the_inverse_of_to_json(small):
    fitted = Transforms.parse(small.schema, SPECS).fit(small.clustered)
    again = Transforms.parse(small.schema, json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.is_fitted
    assert not Transforms.parse(small.schema, SPECS).is_fitted


def test_standardize_after_log_is_fitted_on_logs(small):
    fitted = Transforms.parse(small.schema, SPECS).fit(small.clustered)
    prices = np.array([s.price for s in small.samples])
    logs = np.sign(prices) * np.log1p(np.abs(prices))
    arguments = fitted.steps["price"][1].arguments
    np.testing.assert_allclose([arguments["mean"], arguments["std"]], [logs.mean(), logs.std()], rtol=1e-5)


def test_standardize_of_a_group_is_fitted_over_samples(small):
    fitted = Transforms.parse(small.schema, {"age": ["log", "standardize"]}).fit(small.clustered)
    logs = np.log1p([s.age for s in small.samples])
    np.testing.assert_allclose(fitted.steps["age"][1].arguments["mean"], logs.mean(), rtol=1e-5)


def test_standardize_is_fitted_on_all_partitions(small):
    parts = [replace(part, partition=f"day {number}") for number, part in enumerate(small.manifest.parts)]
    table = ClusteredTable(small.path, replace(small.manifest, parts=tuple(parts)))
    unfitted = Transforms.parse(small.schema, {"price": ["log", "standardize"]})
    assert unfitted.fit(table.of_partitions(["day 1"])) == unfitted.fit(table)


def test_standardize_alone_takes_the_manifests_numbers(small):
    fitted = Transforms.parse(small.schema, {"price": ["standardize"]}).fit(small.clustered)
    stats = small.manifest.features["price"]
    assert fitted.steps["price"][0].arguments == {"mean": stats.mean, "std": stats.std}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"histroy": ["log"]}, "'histroy': no such feature; did you mean 'history'"),
        ({"price": ["lgo"]}, "feature 'price': unknown transform 'lgo'; did you mean 'log'"),
        ({"history": ["log"]}, "transform 'log' works on dense, the feature is ids"),
        ({"candidate": [{"first_x": 3}]}, "transform 'first_x' works on ids, the feature is id"),
        ({"price": [{"hash": 3}]}, "transform 'hash' works on id and ids, the feature is dense"),
        ({"history": [{"first_x": 0}]}, "wanted a whole number above 0, found 0"),
        ({"history": ["first_x"]}, "wanted a whole number above 0, found None"),
        ({"price": [{"clamp": {"mni": 0}}]}, "wanted {min: number, max: number}"),
        ({"price": ["clamp"]}, "wanted {min: number, max: number}"),
        ({"price": [{"bucketize": [3, 1]}]}, "wanted a rising list"),
        ({"price": [{"standardize": {"mean": 3}}]}, "wanted {mean: number, std: number}"),
        ({"price": [{"log": 2}]}, "takes no argument, found 2"),
        ({"price": [["log"]]}, "wanted a name or"),
    ],
)
def test_mistakes_in_a_config(small, specs, message):
    with pytest.raises(ConfigError, match=message):
        Transforms.parse(small.schema, specs)


def test_all_mistakes_at_once(small):
    with pytest.raises(ConfigError, match=r"'lgo'(.|\n)*works on dense"):
        Transforms.parse(small.schema, {"price": ["lgo"], "history": ["log"]})


def test_limits_of_ids_after_transforms(small):
    specs = {
        "history": [{"hash": 500}, {"last_x": 3}],
        "country": [{"clamp": [0, 9]}],
        "candidate": [{"clamp": {"max": 9}}],  # a negative id stays negative
        "tags": [{"hash": 500}, {"bucketize": [10, 20]}],
        "price": ["log"],
    }
    assert Transforms.parse(small.schema, specs).id_limits() == {"history": 500, "country": 10, "tags": 3}
