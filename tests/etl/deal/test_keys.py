"""What keys decide: samples in, their order, sessions, duplicates, splits, partitions and pieces out."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import (
    HASH,
    SIZE,
    Rules,
    arranged,
    in_sample,
    is_test,
    partition_name,
    ranges,
    test_threshold,
)
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP

MINUTE = 60_000_000
test_threshold.__test__ = False  # type: ignore[attr-defined]


def keys(session: list[int], time: list[int], content: list[int] | None = None, **more: list[int]) -> pa.Table:
    content = content or list(range(len(session)))
    named = {SESSION: session, TIMESTAMP: time, HASH: content, SIZE: pa.array([8] * len(session), pa.int32())}
    return pa.table(named | more)


def test_order_is_by_session_time_request_order_and_content_never_by_arrival():
    table = keys(
        [2, 1, 1, 1, 1], [5, 9, 3, 3, 3], [0, 0, 7, 6, 5], **{REQUEST: [0, 0, 1, 1, 0], ORDER_KEY: [0, 0, 2, 1, 9]}
    )
    assert arranged(table, Rules()).rows.tolist() == [4, 3, 2, 1, 0]
    again = table.take([3, 0, 4, 2, 1])
    assert again[HASH].take(arranged(again, Rules()).rows).to_pylist() == [5, 6, 7, 0, 0]


def test_sessions_by_gap():
    table = keys([7, 7, 7, 8, 7], [0, 29 * MINUTE, 60 * MINUTE, 30 * MINUTE, 90 * MINUTE])
    found = arranged(table, Rules(gap_us=30 * MINUTE))
    assert found.rows.tolist() == [0, 1, 2, 4, 3]
    one, two, three = (found.session[i] for i in (0, 2, 4))
    assert found.session.tolist() == [one, one, two, two, three]  # exactly 30 minutes is no gap, 31 are
    assert (one, two, three) == (2590652397793600905, 5377313676534086646, 8815968388427013713)  # the same for ever
    assert found.start.tolist() == [0, 0, 60 * MINUTE, 60 * MINUTE, 30 * MINUTE]
    assert found.request.tolist() == found.session.tolist()
    alone = arranged(keys([7, 7], [60 * MINUTE, 90 * MINUTE]), Rules(gap_us=30 * MINUTE))
    assert alone.session.tolist() == [two, two]  # an id depends on user and first time alone


def test_duplicates_by_sample_key_keep_the_first_in_order():
    table = keys([1, 1, 1, 2], [9, 4, 6, 1], **{SAMPLE_KEY: [50, 50, 51, 52]})
    found = arranged(table, Rules(drop_duplicates=True))
    assert (found.rows.tolist(), found.dropped["duplicate"].tolist()) == ([1, 2, 3], [0])
    kept = arranged(table, Rules())
    assert (len(kept.rows), kept.kept) == (4, {"duplicate_kept": 1})
    with pytest.raises(DataError, match=r"1 duplicates in one shard, the first of session 1 at 9 \(sample key 50\)"):
        arranged(table, Rules(fail_on_duplicates=True))


def test_without_sample_keys_duplicates_are_equal_in_every_value():
    table = keys([1, 1, 1, 1], [4, 4, 4, 5], [7, 7, 8, 7])
    assert arranged(table, Rules(drop_duplicates=True)).rows.tolist() == [0, 2, 3]


def test_partitions_are_of_the_sessions_beginning():
    day = 24 * 60 * MINUTE
    table = keys([1, 1, 2], [day - 1, day + 1, day], **{TEST: [False, True, False]})
    found = arranged(table, Rules(partition="day"))
    assert found.partition.tolist() == [0, 0, 1]
    assert found.test.tolist() == [False, True, False]
    assert [partition_name(n, "day") for n in (0, 1)] == ["1970-01-01", "1970-01-02"]
    hour = int(datetime(2026, 11, 25, 7, tzinfo=UTC).timestamp()) // 3600
    assert partition_name(hour, "hour") == "2026-11-25T07"
    with pytest.raises(DataError, match="is no time in microseconds"):
        partition_name(10**12, "day")


def test_late_samples():
    day = 24 * 60 * MINUTE
    table = keys([1, 2, 2], [5, day, day + 1])
    rules = Rules(partition="day", taken=frozenset({"1970-01-01"}))
    with pytest.raises(DataError, match="partition 1970-01-01 is in the table already, and 1 samples"):
        arranged(table, rules)
    dropped = arranged(table, replace(rules, late="drop"))
    assert (dropped.rows.tolist(), dropped.dropped["late"].tolist()) == ([1, 2], [0])
    assert arranged(table, replace(rules, late="keep")).kept == {"late_kept": 1}


def test_a_long_session_is_cut_and_counted():
    found = arranged(keys([1] * 7 + [2], list(range(8))), Rules(piece=3))
    assert found.piece.tolist() == [0, 0, 0, 1, 1, 1, 2, 3]
    assert found.kept == {"session_cut": 1}
    assert found.session.tolist() == [1] * 7 + [2]


def test_sampling_is_of_sessions():
    sessions = np.arange(100_000, dtype=np.int64)
    taken = in_sample(sessions, 0.1)
    assert abs(taken.mean() - 0.1) < 0.005
    assert (in_sample(sessions, 0.2) & taken).sum() == taken.sum()  # a larger sample holds the smaller one
    table = keys([3, 3, 9, 9, 9], [0, 1, 0, 1, 2])
    found = arranged(table, Rules(gap_us=10 * MINUTE, share=1e-9))
    assert (len(found.rows), len(found.dropped["sampled"])) == (0, 5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=40), st.integers(1, 60))
def test_ranges_keep_sessions_whole_and_below_the_limit(rows, limit):
    sessions, sizes = (list(part) for part in zip(*rows, strict=True))
    found = arranged(keys(sessions, list(range(len(rows)))), Rules())
    every = np.array(sizes, np.int32)
    bounds = ranges(found, every, limit)
    assert (bounds[0], bounds[-1]) == (0, len(rows))
    for start, end in pairwise(bounds.tolist()):
        assert end > start
        inside = found.piece[start:end]
        assert every[found.rows[start:end]].sum() <= limit or len(set(inside.tolist())) == 1
        for edge in (start, end):
            if 0 < edge < len(rows):
                assert found.piece[edge - 1] != found.piece[edge]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40, unique=True), st.floats(0, 1))
def test_the_test_split_is_the_share_of_sessions_that_are_last_in_time(rows, share):
    starts, sessions = (np.array(part, np.int64) for part in zip(*rows, strict=True))
    threshold = test_threshold(sessions, starts, share)
    found = arranged(keys(list(range(len(rows))), [0] * len(rows)), Rules())
    found = replace(found, start=starts, session=sessions)
    expected = sorted(rows)[len(rows) - round(share * len(rows)) :]
    chosen = is_test(found, threshold)
    assert sorted(row for row, test in zip(rows, chosen, strict=True) if test) == expected
