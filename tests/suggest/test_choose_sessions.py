"""Which sessions a sample takes."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from recd_dist.etl.source.inspection import SESSION, TIMESTAMP
from recd_dist.suggest.choose_sessions import KeyCounts
from recd_dist.suggest.dealing import Dealing


def batch(sessions: list[int | None] | np.ndarray, times: list[int] | None = None) -> pa.RecordBatch:
    times = [0] * len(sessions) if times is None else times
    return pa.record_batch({SESSION: pa.array(sessions, pa.int64()), TIMESTAMP: pa.array(times, pa.int64())})


def keys_of(*batches: pa.RecordBatch, sample: float = 1.0) -> KeyCounts:
    keys = KeyCounts(sample)
    keys.count(batches)
    return keys


ONE_SHARD = Dealing(np.zeros(64, np.int64))


def test_sessions_and_their_rows_are_counted() -> None:
    keys = keys_of(batch([7, 7, None, 8]), batch([9, 9, 9, 7]))
    assert (keys.num_rows, keys.num_keyless, keys.num_sessions) == (7, 1, 3)
    assert (keys.keys.tolist(), keys.counts.tolist()) == ([7, 8, 9], [3, 1, 3])
    assert keys.choose(5, 1 << 20, ONE_SHARD).has_whole_shards  # 7 rows are at most 1.5 times as many


def test_very_many_sessions_are_counted_by_a_share_of_them() -> None:
    keys = keys_of(*(batch(np.arange(i, 400_000, 40)) for i in range(40)))
    assert len(keys.keys) <= 1 << 16
    assert keys.num_sessions == pytest.approx(400_000, rel=0.02)
    assert keys.counts.max() == 1


def test_the_share_of_the_sessions_that_the_source_takes_is_counted() -> None:
    keys = keys_of(batch(np.arange(20_000) // 4), sample=0.25)
    assert keys.num_sessions == pytest.approx(1250, rel=0.1)
    assert keys.num_rows == 4 * keys.num_sessions


def test_the_chosen_sessions_are_blocks_of_neighbours_from_everywhere_and_as_long_as_all() -> None:
    lengths = np.minimum(1 + np.random.default_rng(0).pareto(1.2, 4000) * 3, 500).astype(int)
    sessions = np.repeat(np.arange(4000), lengths)
    chosen = keys_of(batch(sessions)).choose(len(sessions) // 5, 1 << 30, ONE_SHARD)
    chosen.add(batch(sessions))
    taken, num_taken = np.unique(chosen.table()[SESSION].to_numpy(), return_counts=True)
    assert num_taken.tolist() == lengths[taken].tolist()  # whole sessions
    assert num_taken.sum() == pytest.approx(len(sessions) / 5, rel=0.1)
    assert num_taken.mean() == pytest.approx(lengths.mean(), rel=0.02)
    assert (np.diff(taken) == 1).mean() > 0.9  # neighbours
    assert np.bincount(taken // 1000, minlength=4).min() > 100  # from everywhere
    inside = np.zeros(4000, bool)
    for first, last in chosen.spans.tolist():
        inside[max(first, 0) : last + 1] = True
    assert np.flatnonzero(inside).tolist() == taken.tolist()


def test_times_are_kept_in_bounded_memory_and_spans_lie_between_them() -> None:
    num_rows = 300_000
    keys = keys_of(*(batch([1] * 10_000, list(range(i, i + 10_000))) for i in range(0, num_rows, 10_000)))
    assert sum(map(len, keys.times)) <= 1 << 17
    spans = keys.time_spans(num_samples=30_000)
    assert [round((first + last) / 2 / num_rows, 2) for first, last in spans] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert sum(last - first for first, last in spans) == pytest.approx(30_000, rel=0.01)


def test_too_many_bytes_halve_the_blocks_and_a_single_session_is_cut() -> None:
    rows = batch([1, 2, 3, 4])
    keys = keys_of(rows)
    chosen = keys.choose(4, max_bytes=rows.nbytes - 1, dealing=ONE_SHARD)
    chosen.add(rows)
    assert not chosen.is_cut
    assert chosen.table()[SESSION].to_pylist() == [1, 3]
    small = keys.choose(4, max_bytes=1, dealing=ONE_SHARD)
    small.add(rows)
    assert small.is_cut
    assert small.table()[SESSION].to_pylist() == [1]


def test_whole_shards_are_taken_and_found_by_sql() -> None:
    sessions = np.repeat(np.arange(-500, 500) * 7919, 5)
    keys = keys_of(batch(sessions))
    dealing = Dealing.estimate(keys.keys, keys.counts, keys.num_rows, sample_bytes=100, shard_bytes=60_000)
    chosen = keys.choose(1600, 1 << 20, dealing)
    rows = pa.Table.from_batches([batch(sessions)])  # noqa: F841  (DuckDB reads it)
    for found in duckdb.sql(f"select * from rows where {chosen.condition()}").to_arrow_table().to_batches():
        chosen.add(found)
    taken = chosen.table()[SESSION].to_numpy()
    shards = np.unique(dealing.shard_of(taken))
    assert (dealing.num_shards, len(shards)) == (10, 3)
    assert len(taken) == np.isin(dealing.shard_of(sessions), shards).sum()
