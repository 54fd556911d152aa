"""Samples per unique row in batches."""

import numpy as np

from recd_dist.suggest.batch_factors import clustered_factor, time_order_factor


def test_factor_in_batches_of_the_table_and_in_order_of_time() -> None:
    flags = np.array([1, 0, 0, 1, 0, 0, 0, 0], bool)  # two rows: of three samples, of five
    assert clustered_factor(flags, 8) == 8 / 2
    assert clustered_factor(flags, 4) == 8 / 3
    assert clustered_factor(flags, 2) == 8 / 5  # aa | ab | bb | bb
    assert clustered_factor(flags, 16) is None
    order = np.array([0, 3, 6, 1, 2, 4, 5, 7])  # in time: a b b a | b b a b
    assert time_order_factor(flags, order, 4, 1.0) == 8 / 4
    assert (
        time_order_factor(flags, order, 8, 0.5) == 8 / 4
    )  # half of the sessions: a batch of 8 holds 4 of their samples
    assert time_order_factor(flags, order, 2, 1.0) == 8 / 7  # ab | ba | bb | ab
