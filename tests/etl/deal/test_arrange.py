"""Samples of a shard in, their order, sessions, partitions and what is left out of them out."""

from dataclasses import replace

import pyarrow as pa
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.deal.arrange import arrange
from recd_dist.etl.deal.keys import HASH, SIZE, Rules
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP

MINUTE = 60_000_000


def keys(session: list[int], time: list[int], content: list[int] | None = None, **more: list[int]) -> pa.Table:
    content = content or list(range(len(session)))
    named = {SESSION: session, TIMESTAMP: time, HASH: content, SIZE: pa.array([8] * len(session), pa.int32())}
    return pa.table(named | more)


def test_order_is_by_session_time_request_order_and_content_never_by_arrival():
    table = keys(
        [2, 1, 1, 1, 1], [5, 9, 3, 3, 3], [0, 0, 7, 6, 5], **{REQUEST: [0, 0, 1, 1, 0], ORDER_KEY: [0, 0, 2, 1, 9]}
    )
    assert arrange(table, Rules()).rows.tolist() == [4, 3, 2, 1, 0]
    again = table.take([3, 0, 4, 2, 1])
    assert again[HASH].take(arrange(again, Rules()).rows).to_pylist() == [5, 6, 7, 0, 0]


def test_sessions_by_gap():
    table = keys([7, 7, 7, 8, 7], [0, 29 * MINUTE, 60 * MINUTE, 30 * MINUTE, 90 * MINUTE])
    arrangement = arrange(table, Rules(gap_us=30 * MINUTE))
    assert arrangement.rows.tolist() == [0, 1, 2, 4, 3]
    one, two, three = (arrangement.session[i] for i in (0, 2, 4))
    assert arrangement.session.tolist() == [one, one, two, two, three]  # exactly 30 minutes is no gap, 31 are
    assert (one, two, three) == (2590652397793600905, 5377313676534086646, 8815968388427013713)  # the same for ever
    assert arrangement.start.tolist() == [0, 0, 60 * MINUTE, 60 * MINUTE, 30 * MINUTE]
    assert arrangement.request.tolist() == arrangement.session.tolist()
    alone = arrange(keys([7, 7], [60 * MINUTE, 90 * MINUTE]), Rules(gap_us=30 * MINUTE))
    assert alone.session.tolist() == [two, two]  # an id depends on user and first time alone


def test_duplicates_by_sample_key_keep_the_first_in_order():
    table = keys([1, 1, 1, 2], [9, 4, 6, 1], **{SAMPLE_KEY: [50, 50, 51, 52]})
    arrangement = arrange(table, Rules(drop_duplicates=True))
    assert (arrangement.rows.tolist(), arrangement.dropped["duplicate"].tolist()) == ([1, 2, 3], [0])
    kept = arrange(table, Rules())
    assert (len(kept.rows), kept.kept) == (4, {"duplicate_kept": 1})
    with pytest.raises(DataError, match=r"1 duplicates in one shard, the first of session 1 at 9 \(sample key 50\)"):
        arrange(table, Rules(fail_on_duplicates=True))


def test_without_sample_keys_duplicates_are_equal_in_every_value():
    table = keys([1, 1, 1, 1], [4, 4, 4, 5], [7, 7, 8, 7])
    assert arrange(table, Rules(drop_duplicates=True)).rows.tolist() == [0, 2, 3]


def test_partitions_are_of_the_sessions_beginning():
    day = 24 * 60 * MINUTE
    table = keys([1, 1, 2], [day - 1, day + 1, day], **{TEST: [False, True, False]})
    arrangement = arrange(table, Rules(partition="day"))
    assert arrangement.partition.tolist() == [0, 0, 1]
    assert arrangement.test.tolist() == [False, True, False]


def test_late_samples():
    day = 24 * 60 * MINUTE
    table = keys([1, 2, 2], [5, day, day + 1])
    rules = Rules(partition="day", existing=frozenset({"1970-01-01"}))
    with pytest.raises(DataError, match="partition 1970-01-01 is in the table already, and 1 samples"):
        arrange(table, rules)
    dropped = arrange(table, replace(rules, late="drop"))
    assert (dropped.rows.tolist(), dropped.dropped["late"].tolist()) == ([1, 2], [0])
    assert arrange(table, replace(rules, late="keep")).kept == {"late_kept": 1}


def test_a_long_session_is_cut_and_counted():
    arrangement = arrange(keys([1] * 7 + [2], list(range(8))), Rules(max_session_samples=3))
    assert arrangement.session_slice.tolist() == [0, 0, 0, 1, 1, 1, 2, 3]
    assert arrangement.kept == {"session_cut": 1}
    assert arrangement.session.tolist() == [1] * 7 + [2]


def test_sessions_outside_the_share_are_left_out():
    table = keys([3, 3, 9, 9, 9], [0, 1, 0, 1, 2])
    arrangement = arrange(table, Rules(gap_us=10 * MINUTE, share=1e-9))
    assert (len(arrangement.rows), len(arrangement.dropped["sampled"])) == (0, 5)
