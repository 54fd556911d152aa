"""Labels that are missing and weights, from raw logs to batches: kept, dropped or refused, and told in the manifest."""

import math
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.compaction import compact
from recd_dist.etl.etl_run import Options
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.etl.verify.compare import verify
from recd_dist.reader.order import Shuffle, shuffle_windows
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.flat import flat_view

LIKED = [1.0, None, 0.0, math.nan, 1.0, 0.0, None, 1.0]


def source(path: Path, policy: str | None = "keep", **more: object) -> Source:
    size = len(LIKED)
    rows = {
        "session": [i // 4 for i in range(size)],
        "item": [i % 3 for i in range(size)],
        "clicked": [float(i % 2) for i in range(size)],
        "liked": pa.array(LIKED, pa.float64()),
        "importance": [0.5 * i for i in range(size)],
    }
    pq.write_table(pa.table(rows), path / "raw.parquet")
    named = {"name": "log", "path": str(path / "raw.parquet"), "keys": {"session": "session"}}
    named |= {"labels": ["clicked", "liked"], "weight": "importance"}
    return Source.from_dict(named | ({"policy": {"unlabelled": policy}} if policy else {}) | more)


def labels_of(path: Path) -> np.ndarray:
    """The labels of all samples as a batch has them, in the order of the log."""
    table = ClusteredTable.load(path)
    files = TableFiles(table)
    (window,) = shuffle_windows(table.manifest, Shuffle(order="table", window_size=9), epoch=0)
    return np.concatenate([files.read(group).labels for group in window.row_groups])


def test_a_missing_label_is_nan_in_a_batch_and_null_in_sql(tmp_path: Path) -> None:
    etl(source(tmp_path), tmp_path / "out", progress=False)
    manifest = ClusteredTable.load(tmp_path / "out/train").manifest
    assert manifest.schema.labels == ("clicked", "liked", "importance")
    assert "importance" not in {f.name for f in manifest.schema.features}
    liked = manifest.labels["liked"]
    assert (liked.num_null, liked.mean, liked.min, liked.max) == (3, 0.6, 0.0, 1.0)
    assert manifest.dropped == {"unlabelled_kept": 3}

    found = labels_of(tmp_path / "out/train")
    np.testing.assert_array_equal(found[:, 1], np.array([math.nan if v is None else v for v in LIKED]))
    np.testing.assert_array_equal(found[:, 2], 0.5 * np.arange(8))
    shown = duckdb.sql(
        f"select liked, importance from ({flat_view(tmp_path / 'out/train')}) order by importance"
    ).fetchall()
    assert [row[0] for row in shown] == [None if v is None or math.isnan(v) else v for v in LIKED]


def test_they_are_compared_with_the_source(tmp_path: Path) -> None:
    """And a missing label is not taken for a 0."""
    described = source(tmp_path)
    etl(described, tmp_path / "out", progress=False)
    assert verify(described, tmp_path / "out", progress=False).equal
    rows = pq.read_table(tmp_path / "raw.parquet")
    filled = pa.array([0.0 if v is None else v for v in LIKED], pa.float64())
    pq.write_table(rows.set_column(rows.column_names.index("liked"), "liked", filled), tmp_path / "raw.parquet")
    assert not verify(described, tmp_path / "out", progress=False).equal


def test_samples_without_a_label_are_dropped_where_that_is_said(tmp_path: Path) -> None:
    described = source(tmp_path, "drop")
    etl(described, tmp_path / "out", progress=False)
    manifest = ClusteredTable.load(tmp_path / "out/train").manifest
    assert (manifest.num_samples, manifest.dropped) == (5, {"unlabelled": 3})
    assert manifest.labels["liked"].num_null == 0
    assert verify(described, tmp_path / "out", progress=False).equal


def test_they_are_refused_unless_something_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"label 'liked' is null in row 1 .*data\.policy\.unlabelled=keep trains each task"
    ):
        etl(source(tmp_path, None), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_weight_may_not_be_missing(tmp_path: Path) -> None:
    described = source(tmp_path, weight="liked", labels=["clicked"])
    with pytest.raises(DataError, match=r"weight 'liked' is null in row 1"):
        etl(described, tmp_path / "out", progress=False)


def test_an_infinite_label_is_refused(tmp_path: Path) -> None:
    sql = "select * replace (if(item = 2, 'inf'::double, liked) as liked) from read_parquet('{path}')"
    with pytest.raises(DataError, match=r"label 'liked' is inf in row 2"):
        etl(source(tmp_path, samples=sql), tmp_path / "out", progress=False)


_LATER = "select * replace (session + 2 as session) from read_parquet('{path}')"
"""The same samples in other sessions."""


def test_they_stay_when_parts_are_merged(tmp_path: Path) -> None:
    described = source(tmp_path)
    etl(described, tmp_path / "out", progress=False)
    before = labels_of(tmp_path / "out/train")
    (tmp_path / "more").mkdir()
    etl(source(tmp_path / "more", samples=_LATER), tmp_path / "out", append=True, progress=False)
    compact(tmp_path / "out", Options(), progress=False)
    manifest = ClusteredTable.load(tmp_path / "out/train").manifest
    assert (len(manifest.parts), manifest.num_samples, manifest.labels["liked"].num_null) == (1, 16, 6)
    found = labels_of(tmp_path / "out/train")
    np.testing.assert_array_equal(np.sort(found, 0), np.sort(np.repeat(before, 2, 0), 0))
