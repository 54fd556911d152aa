"""What features cost as a group and in ``sample``."""

from pathlib import Path

import numpy as np
from tests.suggest.planted import features_of

from recd_dist.etl.write.group_cost import GROUP_BYTES, SAMPLE_BYTES, cost_in_sample, group_cost


def test_cost_of_a_single_id(tmp_path: Path) -> None:
    (x,) = features_of(tmp_path / "t.parquet", visit=[1, 1, 1, 1, 2], x=[5, 5, 6, 6, 6])
    assert x.flags.tolist() == [True, False, True, False, False]
    # Two rows of ids in `x`, int32; five in `sample`: an id, its look-up and its vector.
    assert group_cost([x], x.flags) == 5 * SAMPLE_BYTES + 2 * (8 + 4 + 32 + 256)
    assert cost_in_sample([x]) == 5 * (4 + 32 + 256)
    assert cost_in_sample([x]) - group_cost([x], x.flags) < 5 * GROUP_BYTES


def test_cost_of_a_list_and_of_a_number(tmp_path: Path) -> None:
    ids, number = features_of(
        tmp_path / "t.parquet", visit=[1, 1, 1], ids=[[1, 2], [1, 2], [3]], number=np.array([0.5, 0.5, 0.25], "f4")
    )
    assert cost_in_sample([ids]) == 5 * (4 + 32) + 3 * (4 + 256)  # five ids, three lengths and vectors
    assert cost_in_sample([number]) == 3 * 4
    both = ids.flags | number.flags
    assert both.tolist() == [True, False, True]
    assert group_cost([ids, number], both) == 3 * SAMPLE_BYTES + 3 * (4 + 32) + 2 * 4 + 2 * (8 + 4 + 256)
