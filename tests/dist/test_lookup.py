"""A run may change between our lookup and fbgemm's: a checkpoint of one goes on with the other, both ways."""

from pathlib import Path

import numpy as np
import pytest
from tests.dist import judge

SHARDING = {
    "default": "TW",
    "item": "RW",
    "article": "CW",
    "device": "DP",
    "tag": {"type": "CW", "ranks": [1, 1]},
    "place": {"type": "TWCW", "ranks": [0, 1]},
}


@pytest.mark.parametrize("optimizer", list(judge.LR))
def test_a_checkpoint_of_one_lookup_goes_on_with_the_other(two_ranks, tmp_path: Path, optimizer: str) -> None:
    weighted = optimizer == "rowwise_adagrad"
    found = {}
    for kernels in (("fbgemm", "fbgemm"), ("fbgemm", "recd"), ("recd", "fbgemm")):
        directory = tmp_path / "-".join(kernels)
        found[kernels] = two_ranks(judge.train_by_turns, directory, list(kernels), SHARDING, optimizer, weighted)
        for rank in found[kernels]:
            assert rank["ours"] == [{kernel == "recd"} for kernel in kernels]
    expected, *others = found.values()
    for results in others:
        for theirs, ours in zip(expected, results, strict=True):
            np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4, atol=1e-5)
        for what in ("after", "states"):
            tables = judge.join_parts(expected, what)
            for name, values in judge.join_parts(results, what).items():
                np.testing.assert_allclose(values, tables[name], rtol=1e-4, atol=2e-5, err_msg=f"{what} of {name}")
