"""Distinct ids: exact while they are few, estimated within a few percent when they are many."""

import json

import numpy as np
import pytest

from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.table.manifest import IdStats


def test_few_ids_are_counted_exactly():
    first, second = DistinctIds(), DistinctIds()
    first.add(np.array([5, 5, -1, 2**62]))
    second.add(np.array([5, 7], np.int32))
    first.merge(second)
    assert first.stats() == IdStats(min_id=-1, max_id=2**62, num_distinct=4)
    assert DistinctIds().stats() == IdStats(min_id=0, max_id=-1, num_distinct=0)


def test_many_ids_are_estimated():
    ids = np.random.default_rng(0).integers(0, 2**62, 300_000)
    first, second = DistinctIds(), DistinctIds()
    first.add(ids[:200_000])
    second.add(ids[100_000:])
    first.merge(second)
    assert first.stats().num_distinct == pytest.approx(300_000, rel=0.04)


def test_the_set_grows_and_gives_up_beyond_its_limit():
    distinct = DistinctIds()
    distinct.add(np.arange(65_536))
    assert (distinct.num_exact, len(distinct.exact_ids)) == (65_536, 65_536)
    assert distinct.exact_ids.tolist() == list(range(65_536))
    distinct.add(np.array([5, 65_536]))
    assert distinct.exact_ids is None
    assert distinct.stats().num_distinct == pytest.approx(65_537, rel=0.04)
    small = DistinctIds()
    small.merge(distinct)
    assert small.exact_ids is None


@pytest.mark.parametrize("num", [0, 3, 5000, 100_000])
def test_distinct_ids_come_back_from_json(num):
    distinct = DistinctIds()
    distinct.add(np.random.default_rng(0).integers(-(2**62), 2**62, num))
    again = DistinctIds.from_json(json.loads(json.dumps(distinct.to_json())))
    assert again.stats() == distinct.stats()
    assert again.num_exact == distinct.num_exact
    assert (again.registers == distinct.registers).all()
    for one in (again, distinct):
        one.add(np.arange(1000))
    assert again.stats() == distinct.stats()
