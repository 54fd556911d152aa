"""Which sessions a sample takes."""

import pyarrow as pa
import pytest

from recd_dist.etl.source.inspection import SESSION, TIMESTAMP
from recd_dist.suggest.choose_sessions import BUCKET, NUM_BUCKETS, ChosenSessions, KeyCounts


def batch(sessions: list[int | None], buckets: list[int], times: list[int]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            SESSION: pa.array(sessions, pa.int64()),
            BUCKET: pa.array(buckets, pa.uint16()),
            TIMESTAMP: pa.array(times, pa.int64()),
        }
    )


def test_keys_are_counted_and_buckets_chosen_by_their_rows() -> None:
    keys = KeyCounts()
    keys.add(batch([7, 7, None, 8], [0, 0, 5, 1], [10, 20, 30, 40]))
    keys.add(batch([9, 9, 9], [2, 2, 2], [50, 60, 70]))
    assert (keys.num_rows, keys.num_keyless, keys.num_samples) == (7, 1, 6)
    assert keys.bucket_counts[:4].tolist() == [2, 1, 3, 0]
    assert keys.sessions.stats().num_distinct == 3
    assert keys.bucket_limit(5) == NUM_BUCKETS  # 7 rows are at most 1.5 times as many
    assert keys.bucket_limit(4) == 2  # two buckets have 3 rows, three have 6
    assert keys.bucket_limit(1) == 1


def test_times_are_kept_in_bounded_memory_and_spans_lie_between_them() -> None:
    keys = KeyCounts()
    num_rows = 300_000
    for start in range(0, num_rows, 10_000):
        keys.add(batch([1] * 10_000, [0] * 10_000, list(range(start, start + 10_000))))
    assert sum(map(len, keys.times)) <= 1 << 17
    spans = keys.time_spans(num_samples=30_000)
    assert [round((first + last) / 2 / num_rows, 2) for first, last in spans] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert sum(last - first for first, last in spans) == pytest.approx(30_000, rel=0.01)


def test_too_many_bytes_halve_the_buckets_and_a_single_bucket_is_cut() -> None:
    rows = batch([1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 0, 0])
    chosen = ChosenSessions(limit=4, max_bytes=rows.nbytes - 1)
    chosen.add(rows)
    assert (chosen.limit, chosen.is_cut) == (2, False)
    assert chosen.table()[SESSION].to_pylist() == [1, 2]
    small = ChosenSessions(limit=4, max_bytes=1)
    small.add(rows)
    assert (small.limit, small.is_cut) == (1, True)
    assert small.table()[SESSION].to_pylist() == [1]
