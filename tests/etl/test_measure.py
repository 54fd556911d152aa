"""Statistics: exact on literals, merged as if measured at once, estimated within a few percent when many."""

import math

import numpy as np
import pytest

from recd_dist.etl.measure import Distinct, Measured
from recd_dist.etl.rows import Column
from recd_dist.manifest import IdStats


def test_lists_count_stored_and_expanded_ids():
    measured = Measured()
    measured.add(Column(np.array([1, 2, 3]), np.array([0, 2, 2, 3])), np.array([3, 1, 2]), num_changed=1, num_pairs=4)
    stats = measured.stats(measured)
    assert (stats.num_values_unique, stats.num_values_expanded, stats.max_length, stats.stay_rate) == (3, 8, 2, 0.75)


def test_numbers_merge_as_if_measured_at_once():
    numbers = np.random.default_rng(0).normal(1e4, 3, 1000).astype(np.float32)
    merged = Measured()
    for piece in np.split(numbers, [1, 400]):
        other = Measured()
        other.add(Column(piece), np.ones(len(piece), np.int64), 0, 0)
        merged.merge(other)
    stats = merged.stats(merged)
    assert stats.mean == pytest.approx(numbers.astype(float).mean(), rel=1e-12)
    assert stats.std == pytest.approx(numbers.astype(float).std(), rel=1e-9)
    assert (stats.min, stats.max) == (float(numbers.min()), float(numbers.max()))
    assert math.isnan(stats.stay_rate)


def test_numbers_of_unique_rows_weigh_as_many_samples_as_they_have():
    measured = Measured()
    measured.add(Column(np.array([1, 4], np.float32)), np.array([3, 1]), 0, 0)
    assert measured.stats(measured).mean == 1.75


def test_few_ids_are_counted_exactly():
    first, second = Distinct(), Distinct()
    first.add(np.array([5, 5, -1, 2**62]))
    second.add(np.array([5, 7], np.int32))
    first.merge(second)
    assert first.stats() == IdStats(min_id=-1, max_id=2**62, num_distinct=4)
    assert Distinct().stats() == IdStats(min_id=0, max_id=-1, num_distinct=0)


def test_many_ids_are_estimated():
    ids = np.random.default_rng(0).integers(0, 2**62, 300_000)
    first, second = Distinct(), Distinct()
    first.add(ids[:200_000])
    second.add(ids[100_000:])
    first.merge(second)
    assert first.stats().num_distinct == pytest.approx(300_000, rel=0.04)
