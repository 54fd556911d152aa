"""Row groups end where sessions end, are about equally large, and cut only very long sessions."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.etl.write.row_groups import Samples, row_group_bounds


@pytest.mark.parametrize(
    ("sessions", "num_samples", "bounds"),
    [
        ([1, 1, 2, 2, 3], 2, [0, 2, 4, 5]),
        ([1, 1, 2, 2, 3], 3, [0, 2, 5]),
        ([1, 2, 3, 4, 5, 6], 4, [0, 3, 6]),  # two of three, not four and a rest of two
        ([1, 1, 1, 1, 2], 2, [0, 4, 5]),  # a huge session makes a larger row group
        ([1] * 8 + [2], 1, [0, 8, 9]),
        ([1] * 17 + [2], 1, [0, 8, 16, 17, 18]),  # beyond eight row groups it is cut
        ([1] * 20 + [2] * 9, 2, [0, 16, 20, 29]),
        ([1], 8192, [0, 1]),
        ([], 8192, [0]),
    ],
)
def test_row_groups_end_where_sessions_end(sessions, num_samples, bounds):
    assert row_group_bounds(np.array(sessions, np.int64), num_samples).tolist() == bounds


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 12))
def test_row_groups_are_about_equally_large(sizes, num_samples):
    session = np.repeat(np.arange(len(sizes)), sizes)
    bounds = row_group_bounds(session, num_samples)
    assert bounds[0] == 0
    assert bounds[-1] == len(session)
    groups = np.diff(bounds)
    assert (groups > 0).all()
    for start, end in pairwise(bounds.tolist()):
        whole = (
            start == 0 or session[start] != session[start - 1] or (session == session[start]).sum() > 8 * num_samples
        )
        assert whole
        assert end - start <= num_samples or len(set(session[start:end])) == 1
        assert end - start <= 8 * num_samples


def test_samples_are_dealt_into_row_groups_in_clustered_order():
    shard = pa.table({SESSION: [2, 1, 3, 1, 2], REQUEST: [20, 10, 30, 11, 20], TIMESTAMP: [5, 1, 9, 2, 6]})
    samples = Samples.of(shard, np.array([1, 3, 0, 4, 2]), 3)
    assert samples.bounds.tolist() == [0, 2, 5]
    assert samples.key(TIMESTAMP).tolist() == [1, 2, 5, 6, 9]
    assert [group.key(TIMESTAMP).tolist() for group in samples.row_groups()] == [[1, 2], [5, 6, 9]]
    assert samples.first(1).key(TIMESTAMP).tolist() == [1, 2]
    assert len(samples.first(9)) == 5
    assert samples.where(0) == "samples query, the sample of session 2 at 5"


def test_where_sessions_requests_and_row_groups_begin():
    shard = pa.table({SESSION: [1, 1, 1, 2, 2], REQUEST: [7, 7, 8, 8, 8]})
    samples = Samples(shard, np.arange(5), np.array([0, 2, 5]))  # session 1 was cut
    assert samples.new_row_group.tolist() == [True, False, True, False, False]
    assert samples.new_session.tolist() == [True, False, False, True, False]
    assert samples.new_request.tolist() == [True, False, True, True, False]
    assert samples.pairs.tolist() == [False, True, False, False, True]
