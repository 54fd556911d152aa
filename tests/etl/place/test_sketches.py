"""Sketches of a table's ids: written whole, and read back as they were."""

import numpy as np
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.place.sketches import load_sketches, save_sketches
from recd_dist.etl.write.distinct_ids import DistinctIds


def test_sketches_of_a_table(tmp_path):
    ids = {"few": DistinctIds(), "many": DistinctIds(), "none": DistinctIds()}
    ids["few"].add(np.array([3, -1, 2**62]))
    ids["many"].add(np.arange(100_000))
    save_sketches(tmp_path / "sketches.parquet", ids)
    found = load_sketches(tmp_path / "sketches.parquet")
    assert {name: one.stats() for name, one in found.items()} == {name: one.stats() for name, one in ids.items()}
    assert found["few"].exact_ids.tolist() == [-1, 3, 2**62]
    assert found["many"].exact_ids is None
    found["many"].add(np.arange(100_000))  # seen before: nothing changes
    assert (found["many"].registers == ids["many"].registers).all()
    assert [path.name for path in tmp_path.iterdir()] == ["sketches.parquet"]


def test_sketches_that_are_none(tmp_path):
    (tmp_path / "sketches.parquet").write_bytes(b"PAR1 no")
    for path in (tmp_path / "sketches.parquet", tmp_path / "absent"):
        with pytest.raises(DataError, match=f"{path.name}: no readable sketches of ids"):
            load_sketches(path)
