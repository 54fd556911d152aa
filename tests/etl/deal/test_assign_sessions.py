"""Ids and first times of sessions in; the share that is taken, partitions and the test split out."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import DataError
from recd_dist.etl.deal.assign_sessions import (
    is_from_threshold,
    is_in_share,
    partition_name,
    partition_numbers,
    split_threshold,
)


def test_a_share_is_of_the_sessions_and_a_larger_one_holds_the_smaller_one():
    sessions = np.arange(100_000, dtype=np.int64)
    taken = is_in_share(sessions, 0.1)
    assert abs(taken.mean() - 0.1) < 0.005
    assert (is_in_share(sessions, 0.2) & taken).sum() == taken.sum()


def test_partitions_are_days_or_hours_since_1970():
    starts = np.array([0, 3_599_999_999, 3_600_000_000, 86_400_000_000])
    assert partition_numbers(starts, "hour").tolist() == [0, 0, 1, 24]
    assert partition_numbers(starts, "day").tolist() == [0, 0, 0, 1]
    assert partition_numbers(starts, "").tolist() == [0, 0, 0, 0]
    assert [partition_name(n, "day") for n in (0, 1)] == ["1970-01-01", "1970-01-02"]
    hour = int(datetime(2026, 11, 25, 7, tzinfo=UTC).timestamp()) // 3600
    assert partition_name(hour, "hour") == "2026-11-25T07"
    assert partition_name(7, "") == ""
    with pytest.raises(DataError, match="is no time in microseconds"):
        partition_name(10**12, "day")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40, unique=True), st.floats(0, 1))
def test_the_test_split_is_the_share_of_sessions_that_are_last_in_time(rows, share):
    starts, sessions = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    is_test = is_from_threshold(sessions, starts, split_threshold(sessions, starts, share))
    expected = sorted(rows)[len(rows) - round(share * len(rows)) :]
    assert sorted(row for row, test in zip(rows, is_test, strict=True) if test) == expected
