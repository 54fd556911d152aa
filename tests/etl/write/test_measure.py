"""Statistics: exact on literals, merged as if measured at once, estimated within a few percent when many."""

import json
import math

import numpy as np
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.place.sketches import load_sketches, save_sketches
from recd_dist.etl.write.measure import Distinct, Measured
from recd_dist.table.column import Column
from recd_dist.table.manifest import IdStats


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


def test_the_set_grows_and_gives_up_beyond_its_limit():
    distinct = Distinct()
    distinct.add(np.arange(65_536))
    assert (distinct.num_exact, len(distinct.exact)) == (65_536, 65_536)
    assert distinct.exact.tolist() == list(range(65_536))
    distinct.add(np.array([5, 65_536]))
    assert distinct.exact is None
    assert distinct.stats().num_distinct == pytest.approx(65_537, rel=0.04)
    small = Distinct()
    small.merge(distinct)
    assert small.exact is None


@pytest.mark.parametrize("num", [0, 3, 5000, 100_000])
def test_distinct_ids_come_back_from_json(num):
    distinct = Distinct()
    distinct.add(np.random.default_rng(0).integers(-(2**62), 2**62, num))
    again = Distinct.from_json(json.loads(json.dumps(distinct.to_json())))
    assert again.stats() == distinct.stats()
    assert again.num_exact == distinct.num_exact
    assert (again.registers == distinct.registers).all()
    for one in (again, distinct):
        one.add(np.arange(1000))
    assert again.stats() == distinct.stats()


def measured(numbers: np.ndarray) -> Measured:
    one = Measured(num_null=2)
    one.add(Column(numbers.astype(np.float32)), np.ones(len(numbers), np.int64), num_changed=1, num_pairs=3)
    return one


def test_measurements_come_back_from_json_exactly():
    for one in (Measured(), measured(np.random.default_rng(0).normal(1e4, 3, 100)), measured(np.array([0.1]))):
        text = json.dumps(one.to_json(), allow_nan=False)
        assert Measured.from_json(json.loads(text)) == one


def test_sketches_of_a_table(tmp_path):
    ids = {"few": Distinct(), "many": Distinct(), "none": Distinct()}
    ids["few"].add(np.array([3, -1, 2**62]))
    ids["many"].add(np.arange(100_000))
    save_sketches(tmp_path / "sketches.parquet", ids)
    found = load_sketches(tmp_path / "sketches.parquet")
    assert {name: one.stats() for name, one in found.items()} == {name: one.stats() for name, one in ids.items()}
    assert found["few"].exact.tolist() == [-1, 3, 2**62]
    assert found["many"].exact is None
    found["many"].add(np.arange(100_000))  # seen before: nothing changes
    assert (found["many"].registers == ids["many"].registers).all()
    assert [path.name for path in tmp_path.iterdir()] == ["sketches.parquet"]


def test_sketches_that_are_none(tmp_path):
    (tmp_path / "sketches.parquet").write_bytes(b"PAR1 no")
    for path in (tmp_path / "sketches.parquet", tmp_path / "absent"):
        with pytest.raises(DataError, match=f"{path.name}: no readable sketches of ids"):
            load_sketches(path)
