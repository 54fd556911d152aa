"""A sample of a source: whole sessions in bounded memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.suggest.planted import flat_source, plant_table, sample_of, source

from recd_dist.errors import DataError
from recd_dist.etl.source.inspection import SESSION, TIMESTAMP
from recd_dist.etl.source.source import Source


def test_a_sample_is_whole_sessions(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=6000)
    sample = sample_of(source(tmp_path / "t.parquet"), num_samples=1500)
    sizes = dict(zip(*np.unique(table["visit"].to_numpy(), return_counts=True), strict=True))
    num_read = dict(zip(*np.unique(sample.samples[SESSION].to_numpy(), return_counts=True), strict=True))
    assert num_read == {session: sizes[session] for session in num_read}
    assert 1000 < sample.num_samples <= 1500
    assert (sample.num_total, sample.num_sessions_total) == (6000, len(sizes))
    keys = list(zip(sample.samples[SESSION].to_pylist(), sample.samples[TIMESTAMP].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert sorted(sample.time_rank.tolist()) == list(range(sample.num_samples))


def test_memory_is_bounded_by_leaving_out_sessions(tmp_path: Path) -> None:
    plant_table(tmp_path / "t.parquet", {"user": (0.9, 2)}, num_samples=6000)
    limit = 400_000  # of 1.8 MB
    sample = sample_of(source(tmp_path / "t.parquet"), max_bytes=limit)
    assert limit / 4 < sample.samples.nbytes <= limit
    assert (sample.is_cut, sample.num_total) == (False, 6000)


def test_a_session_that_is_too_large_is_cut_and_says_so(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.9, 2)}, num_samples=30_000)
    pq.write_table(table.set_column(0, "visit", pa.array(np.ones(30_000, np.int64))), tmp_path / "t.parquet")
    sample = sample_of(source(tmp_path / "t.parquet"), max_bytes=400_000)
    assert sample.is_cut
    assert 0 < sample.num_samples < 30_000


def test_rows_without_a_session_are_counted_and_left_out(tmp_path: Path) -> None:
    bare = flat_source(tmp_path / "t.parquet", visit=[1, None, 1, 2], x=[1, 2, 3, 4], clicked=[0, 1, 0, 1])
    sample = sample_of(Source("mine", bare.path, keys={"session": "visit"}, labels=("clicked",)))
    assert (sample.num_samples, sample.num_total, sample.num_keyless) == (3, 3, 1)


def test_a_sample_of_a_source_whose_group_has_its_own_query(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.9, 1)}, num_samples=6000)
    keys = np.unique(table["visit"].to_numpy())
    pq.write_table(pa.table({"visit": keys, "likes": [[int(key)] * 3 for key in keys]}), tmp_path / "likes.parquet")
    likes = {"key": "visit", "sql": f"select * from read_parquet('{tmp_path}/likes.parquet') where visit % 5 > 0"}
    sample = sample_of(source(tmp_path / "t.parquet", groups={"likes": likes}), num_samples=1500)
    ids = sample.linked_rows["likes"]["likes"].to_pylist()
    for row_of, rows in ((sample.row_of, sample.samples), (sample.log_row_of, sample.log)):
        assert rows is not None
        linked = [ids[row] if row >= 0 else None for row in row_of["likes"].tolist()]
        assert linked == [[key] * 3 if key % 5 else None for key in rows[SESSION].to_pylist()]
    assert sample.log is not None
    times = sample.log[TIMESTAMP].to_pylist()
    assert (len(times) > 4000, times == sorted(times)) == (True, True)
    assert sample.linked_rows["likes"].num_rows < len(keys)


def test_sessions_are_left_out_until_the_rows_of_a_group_fit(tmp_path: Path) -> None:
    visit = np.arange(4000) // 4
    bare = flat_source(tmp_path / "t.parquet", visit=visit, clicked=visit % 2)
    lists = [list(range(key, key + 200)) for key in range(1000)]  # 1.6 MB; the samples take 70 kB
    pq.write_table(pa.table({"visit": np.arange(1000), "likes": lists}), tmp_path / "likes.parquet")
    likes = {"key": "visit", "sql": f"select * from read_parquet('{tmp_path}/likes.parquet')"}
    described = source(Path(bare.path), keys={"session": "visit"}, groups={"likes": likes})
    sample = sample_of(described, max_bytes=500_000)
    assert 500 < sample.num_samples < 2000
    assert not sample.is_cut
    assert (sample.row_of["likes"] >= 0).all()
    with pytest.raises(DataError, match="group 'likes': its rows need more than 0 MiB; give a smaller --sample"):
        sample_of(described, max_bytes=1000)
