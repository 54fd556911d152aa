"""Sums of a feature: exact on literals, and merged as if all samples were measured at once."""

import json
import math

import numpy as np
import pytest

from recd_dist.etl.write.feature_sums import FeatureSums
from recd_dist.table.column import Column


def test_lists_count_stored_and_expanded_ids():
    measured = FeatureSums()
    measured.add(Column(np.array([1, 2, 3]), np.array([0, 2, 2, 3])), np.array([3, 1, 2]), num_changed=1, num_pairs=4)
    stats = measured.stats(measured)
    assert (stats.num_values_unique, stats.num_values_expanded, stats.max_length, stats.stay_rate) == (3, 8, 2, 0.75)


def test_numbers_merge_as_if_measured_at_once():
    numbers = np.random.default_rng(0).normal(1e4, 3, 1000).astype(np.float32)
    merged = FeatureSums()
    for piece in np.split(numbers, [1, 400]):
        other = FeatureSums()
        other.add(Column(piece), np.ones(len(piece), np.int64), 0, 0)
        merged.merge(other)
    stats = merged.stats(merged)
    assert stats.mean == pytest.approx(numbers.astype(float).mean(), rel=1e-12)
    assert stats.std == pytest.approx(numbers.astype(float).std(), rel=1e-9)
    assert (stats.min, stats.max) == (float(numbers.min()), float(numbers.max()))
    assert math.isnan(stats.stay_rate)


def test_numbers_of_unique_rows_weigh_as_many_samples_as_they_have():
    measured = FeatureSums()
    measured.add(Column(np.array([1, 4], np.float32)), np.array([3, 1]), 0, 0)
    assert measured.stats(measured).mean == 1.75


def sums_of(numbers: np.ndarray) -> FeatureSums:
    one = FeatureSums(num_null=2)
    one.add(Column(numbers.astype(np.float32)), np.ones(len(numbers), np.int64), num_changed=1, num_pairs=3)
    return one


def test_measurements_come_back_from_json_exactly():
    for one in (FeatureSums(), sums_of(np.random.default_rng(0).normal(1e4, 3, 100)), sums_of(np.array([0.1]))):
        text = json.dumps(one.to_json(), allow_nan=False)
        assert FeatureSums.from_json(json.loads(text)) == one
