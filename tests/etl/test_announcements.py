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


def texts(*pieces: str) -> list[str]:
    return [pieces[i % len(pieces)] for i in range(NUM_ROWS)]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"price": texts("1.5", "2", "3.25", "NULL")},
            [
                r"'price' is hashed text; 300 of 300 texts in 400 rows are numbers; try_cast",
                r"column 'price': 100 texts in 400 rows are 'NULL' \(100\) .*; data.null_values=\[NULL\] reads",
            ],
        ),
        (
            {"price": [["1.5", "2", "7"][i % 3] if i % 50 else "\\N" for i in range(NUM_ROWS)]},
            [
                r"'price' is hashed text; 392 of 392 texts in 400 rows are numbers; "
                r"try_cast\(price as double\) as price",
                r"column 'price': 8 texts in 400 rows are '\\N' \(8\) .*; data.null_values=\['\\\\N'\] reads",
            ],
        ),
        (
            {"price": texts("1,5", "2", "3,25")},
            [r"267 of 400 texts are numbers with a decimal comma; .*replace\(price, ',', '.'\)::double as price"],
        ),
        (
            {"h": texts("N1 N2", "N3", "N4 N5 N6")},
            [r"267 of 400 .*several ids with ' ' .*; string_split\(h, ' '\) as h"],
        ),
        ({"h": texts("1|2", "3", "4|5|6")}, [r"several ids with '\|' .*; string_split\(h, '\|'\)::bigint\[\] as h"]),
        ({"h": texts("[1, 2]", "[]", "[3]")}, [r"several ids in brackets; h::varchar\[\]|h::bigint\[\] as h"]),
        (
            {"shop_id": [float(i % 9) for i in range(NUM_ROWS)]},
            [r"'shop_id' is DOUBLE and becomes a dense number; .*kind=id"],
        ),
        ({"n": list(range(7, NUM_ROWS + 7))}, [r"column 'n' numbers the rows: .*data.drop=\[n\]"]),
        ({"again": [float(i % 3 == 0) for i in range(NUM_ROWS)]}, [r"'again' equals the label 'clicked' in 400 rows"]),
        ({"skipped": [i % 3 != 0 for i in range(NUM_ROWS)]}, [r"'skipped' is the opposite of the label 'clicked'"]),
        (
            {"price": texts("1.5", "2", *["7"] * 20, "free")},
            [r"38\d of 400 texts in 400 rows are numbers, one is 'free'; .*null_values=\['free'\] where"],
        ),
        ({"title": texts("Blue shoes", "2 red hats", "A 3rd way")}, []),
        ({"when": texts("2026-11-25 10:00:00", "2026-11-26 11:00:00")}, []),
        ({"code": texts("17", "18", "19")}, []),
        ({"score": [i / 7 for i in range(NUM_ROWS)], "age": [float(i % 50) for i in range(NUM_ROWS)]}, []),
    ],
)
def test_columns_that_are_not_what_they_seem(tmp_path, columns, says):
    said = etl(source(tmp_path, columns), tmp_path / "out", progress=False)["train"].announcements
    assert len(said) == len(says), said
    for one, pattern in zip(said, says, strict=True):
        assert re.search(pattern, str(one)), one
        assert one.suspicious


def test_a_named_kind_says_what_a_column_holds(tmp_path):
    columns = {"n": list(range(NUM_ROWS)), "h": texts("N1 N2", "N3"), "shop_id": [float(i) for i in range(NUM_ROWS)]}
    features = {"n": {"kind": "id"}, "h": {"kind": "id"}, "shop_id": {"kind": "dense"}}
    assert (
        etl(source(tmp_path, columns, features=features), tmp_path / "out", progress=False)["train"].announcements == ()
    )


def test_floats_as_ids(tmp_path):
    item = [float("nan") if i % 100 == 0 else float(i % 9) for i in range(NUM_ROWS)]
    options = {"features": {"item": {"kind": "id"}}}
    (said,) = etl(source(tmp_path, {"item": item}, **options), tmp_path / "out", progress=False)["train"].announcements
    assert said.found == "column 'item': 4 of 400 ids are NaN or infinite and count as missing"
    message = r"column 'item' shall be ids, but 1 of 400 values are no whole numbers, such as 2.5; .*kind=dense"
    with pytest.raises(DataError, match=message):
        etl(source(tmp_path, {"item": [2.5, *item[1:]]}, **options), tmp_path / "no", progress=False)


def test_null_texts_of_keys_and_lists_are_counted(tmp_path):
    columns = {
        "session": ["NULL" if i < 16 else f"s{i // 8}" for i in range(NUM_ROWS)],
        "tags": [["a", "None"] if i % 4 == 0 else ["b"] for i in range(NUM_ROWS)],
    }
    said = etl(source(tmp_path, columns), tmp_path / "out", progress=False)["train"].announcements
    assert [(one.found.split(":")[0], one.count) for one in said] == [("column 'tags'", 100), ("column 'session'", 16)]


def test_null_values_say_what_means_missing(tmp_path):
    columns = {"region": texts("NA", "EU", "NULL")}
    logs = source(tmp_path, columns, null_values=["NULL"])
    manifest = etl(logs, tmp_path / "out", progress=False, strict=True)["train"]
    assert manifest.announcements == ()
    assert manifest.features["region"].num_null == 133
