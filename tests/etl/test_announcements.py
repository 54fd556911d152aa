"""What the ETL says of logs, keeps in the manifest, and refuses with ``--strict``."""

import logging
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.announcement import Announcement, announce
from recd_dist.table.manifest import Manifest

NUM_ROWS = 400


def source(path: Path, columns: dict[str, object], **options: object) -> Source:
    """A log of 400 samples, 8 a session, with further columns."""
    rows = {
        "session": [i // 8 for i in range(NUM_ROWS)],
        "t": pa.array([1_795_000_000_000_000 + i * 1_000_000 for i in range(NUM_ROWS)], pa.timestamp("us")),
        "clicked": [i % 3 == 0 for i in range(NUM_ROWS)],
        "item": [i * 7 % 50 for i in range(NUM_ROWS)],
    }
    pq.write_table(pa.table(rows | columns), path / "raw.parquet")
    keys = {"session": "session", "timestamp": "t"}
    named = {"name": "shop", "path": str(path / "raw.parquet"), "keys": keys, "labels": ["clicked"], "groups": {}}
    return Source.from_dict(named | options)


def test_announcements_are_said_once_and_kept(tmp_path, caplog):
    logs = source(tmp_path, {"__index_level_0__": range(NUM_ROWS)})
    with caplog.at_level(logging.INFO):
        manifest = etl(logs, tmp_path / "out", progress=False)["train"]
    assert [one.count for one in manifest.announcements] == [1]
    assert Manifest.load(tmp_path / "out" / "train").announcements == manifest.announcements
    assert caplog.text.count("'__index_level_0__' is the saved index of a pandas data frame") == 1
    assert "__index_level_0__" not in manifest.schema


def test_a_saved_index_that_is_named_is_a_feature(tmp_path):
    logs = source(tmp_path, {"__index_level_0__": range(NUM_ROWS)}, features={"__index_level_0__": {"kind": "dense"}})
    assert "__index_level_0__" in etl(logs, tmp_path / "out", progress=False)["train"].schema


def test_strict_refuses_only_what_is_suspicious(caplog):
    harmless, odd = Announcement("a", 1, "do b", suspicious=False), Announcement("c", 2, "do d")
    with caplog.at_level(logging.INFO):
        announce([harmless, harmless], strict=True)
        announce([odd, odd, harmless], strict=False)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "a; do b"),
        ("WARNING", "c; do d"),
        ("INFO", "a; do b"),
    ]
    with pytest.raises(DataError, match=r"1 suspicious thing in the logs, and no table is made: c; do d"):
        announce([harmless, odd], strict=True)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([i % 5 + 1 for i in range(NUM_ROWS)], r"neither 0 nor 1 in 320 of 400 samples .*from 1 to 5.*\(clicked > 3\)"),
        ([i % 2 * 2 - 1 for i in range(NUM_ROWS)], r"neither 0 nor 1 in 200 of 400 .*from -1 to 1.*\(clicked > 0\)"),
        ([1] * NUM_ROWS, r"label 'clicked' is 1 in all 400 samples.*impressions without a click"),
        ([i % 2 for i in range(NUM_ROWS)], None),
    ],
)
def test_labels_that_training_refuses_are_announced(tmp_path, labels, says):
    logs = source(tmp_path, {"clicked": labels})
    manifest = etl(logs, tmp_path / "out", progress=False)["train"]
    assert (manifest.labels["clicked"].min, manifest.labels["clicked"].max) == (min(labels), max(labels))
    if says is None:
        assert manifest.announcements == ()
        return
    assert re.search(says, str(manifest.announcements[0]))
    with pytest.raises(DataError, match=says):
        etl(logs, tmp_path / "strict", progress=False, strict=True)
    assert not (tmp_path / "strict").exists()
