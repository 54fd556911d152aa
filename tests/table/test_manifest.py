"""Manifest: there and back, and what is said of a directory that is no table."""

import json
from pathlib import Path

import pytest

from recd_dist.errors import DataError
from recd_dist.table.manifest import FeatureStats, FileEntry, IdStats, Manifest, Part
from recd_dist.table.schema import Feature, Kind, Schema

MANIFEST = Manifest(
    name="tiny",
    split="train",
    schema=Schema((Feature("h", Kind.ids, "user", "item"), Feature("price", Kind.dense))),
    num_samples=12,
    num_sessions=3,
    num_requests=5,
    group_rows={"user": 4},
    features={"h": FeatureStats(40, 120, 30, float("nan")), "price": FeatureStats(12, 12, 1, 0.5, 2, 1.5, 0.5, 0, 3)},
    ids={"item": IdStats(0, 99, 57)},
    parts=(
        Part(
            FileEntry("samples/part-00000.parquet", (8, 4), 1000, 7),
            {"user": FileEntry("user/part-00000.parquet", (2, 2), 500, 8)},
        ),
    ),
    source={"samples": "select 1"},
)


def test_there_and_back(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    loaded = Manifest.load(tmp_path)
    assert repr(loaded) == repr(MANIFEST)  # repr, since the unknown stay rate is nan
    assert loaded.schema == MANIFEST.schema
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_derived() -> None:
    assert MANIFEST.dedup_factor("user") == 3.0
    assert MANIFEST.dedup_factor("sample") == 1.0
    assert MANIFEST.num_bytes == 1500


def test_empty_table_has_factor_one() -> None:
    empty = Manifest("e", "train", MANIFEST.schema, 0, 0, 0, {"user": 0}, {}, {}, ())
    assert empty.dedup_factor("user") == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no clustered table here \(no manifest.json\); make it with `recd etl"),
        ("{", r"not readable as JSON .* make the table again"),
        ("[]", r"not a manifest of a clustered table"),
        ('{"format": "other"}', r"not a manifest of a clustered table"),
        ('{"format": "recd_dist.table", "version": 99}', r"table version 99, this release reads 2"),
        ('{"format": "recd_dist.table", "version": 2}', r"incomplete manifest"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Manifest.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_unknown_statistics_are_refused(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    value = json.loads((tmp_path / "manifest.json").read_text())
    value["ids"]["item"]["surprise"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"incomplete manifest"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("path", ["../../home/me/.profile", "/etc/passwd", "samples/../../x.parquet"])
def test_a_file_outside_the_table_is_refused(tmp_path: Path, path: str) -> None:
    MANIFEST.save(tmp_path)
    value = json.loads((tmp_path / "manifest.json").read_text())
    value["parts"][0]["samples"]["path"] = path
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"manifest.json names .*, outside the table"):
        Manifest.load(tmp_path)
