"""Transforms of a config: read, fitted, and limits of ids."""

import json
from dataclasses import replace

import numpy as np
import pytest

from recd_dist.errors import ConfigError
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable

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
