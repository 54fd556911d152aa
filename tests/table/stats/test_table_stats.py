"""Statistics of a table: a small one written by hand, counted by hand; then one that the ETL made."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.synthetic.labels import score, true_probabilities
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.manifest import FeatureStats, FileEntry, Manifest, Part
from recd_dist.table.schema import Feature, Kind, Schema
from recd_dist.table.stats.stats_text import render, table_stats


def required(**columns: pa.Array) -> pa.Table:
    return pa.table(list(columns.values()), schema=pa.schema([pa.field(k, v.type, False) for k, v in columns.items()]))


def ids(rows: list[list[int]]) -> pa.Array:
    return pa.array(rows, pa.list_(pa.field("item", pa.int32(), False)))


def write(table: Path, name: str, part: int, rows: pa.Table) -> FileEntry:
    path = table / name / f"part-{part:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return FileEntry(f"{name}/{path.name}", (rows.num_rows,), path.stat().st_size, 0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six samples of three sessions in two parts.

    ::

        part      0          1
        session   5 5 5 9 |  3 3      time   10 30 50 20 | 40 60
        clicks    A A B B |  A A      A = [1, 2], B = [7]; session 9 begins with the row that 5 ended with
        candidate 1 2 3 4 |  5 6
    """
    table = tmp_path / "hand" / "train"
    part = 1 << 40
    history = [
        required(row=pa.array([0, 1]), clicks=ids([[1, 2], [7]])),
        required(row=pa.array([part]), clicks=ids([[1, 2]])),
    ]
    samples = [
        required(
            sample_id=pa.array([0, 1, 2, 3]),
            session_id=pa.array([5, 5, 5, 9]),
            request_id=pa.array([1, 1, 2, 3]),
            timestamp=pa.array([10, 30, 50, 20]),
            label=pa.array([1.0, 0.0, 0.0, 1.0], pa.float32()),
            candidate=pa.array([1, 2, 3, 4]),
            history_row=pa.array([0, 0, 1, 1]),
        ),
        required(
            sample_id=pa.array([4, 5]),
            session_id=pa.array([3, 3]),
            request_id=pa.array([4, 4]),
            timestamp=pa.array([40, 60]),
            label=pa.array([0.0, 1.0], pa.float32()),
            candidate=pa.array([5, 6]),
            history_row=pa.array([part, part]),
        ),
    ]
    parts = tuple(
        Part(write(table, "samples", i, samples[i]), {"history": write(table, "history", i, history[i])})
        for i in range(2)
    )
    manifest = Manifest(
        name="hand",
        split="train",
        schema=Schema((Feature("clicks", Kind.ids, "history", "item"), Feature("candidate", Kind.id, table="item"))),
        num_samples=6,
        num_sessions=3,
        num_requests=4,
        group_rows={"history": 3},
        features={"clicks": FeatureStats(5, 10, 2, 2 / 3), "candidate": FeatureStats(6, 6, 1, 0.0)},
        ids={},
        parts=parts,
        source={"path": str(tmp_path / "raw")},
    )
    manifest.save(table)
    return table


def test_sessions_and_requests(table: Path) -> None:
    stats = table_stats(table)
    assert (stats.session.mean, stats.session.median, stats.session.max) == (2.0, 2.0, 3)
    assert (stats.request.mean, stats.request.median, stats.request.max) == (1.5, 1.5, 2)
    assert stats.per_session_in_time_order == stats.per_session_clustered == 2.0  # one batch holds all
    assert stats.label_means == {"label": 0.5}


def test_repeats_of_a_group(table: Path) -> None:
    history, sample = table_stats(table).groups
    assert history.stay_rate == pytest.approx(2 / 3)  # 5-5 same, 5-5 changed, 3-3 same; 5-9 is no pair of a session
    assert history.dedup_factor == 2.0
    assert history.dedup_factor_at == {512: 2.0, 2048: 2.0, 4096: 2.0}
    assert history.predicted == pytest.approx(2 / (1 + 1 * (1 - 2 / 3)))
    assert (sample.num_rows, sample.dedup_factor) == (6, 1.0)
    assert math.isnan(sample.stay_rate)


def test_cost_of_a_batch(table: Path) -> None:
    stats = table_stats(table)
    history, sample = stats.groups
    assert history.expanded.ids == pytest.approx(2048 * 10 / 6)
    assert history.unique.ids == pytest.approx(1024 * 5 / 3)  # 1024 unique rows of 5/3 ids
    assert history.expanded.input_bytes == pytest.approx(2048 * (4 * 10 / 6 + 4))  # int32 ids, int32 lengths
    assert history.unique.input_bytes == pytest.approx(1024 * (4 * 5 / 3 + 4))
    assert (history.expanded.output_bytes, history.unique.output_bytes) == (2048 * 256, 1024 * 256)
    assert sample.expanded == sample.unique
    assert sample.expanded.input_bytes == 2048 * (8 + 4)  # int64 ids
    assert stats.total.expanded.ids == pytest.approx(2048 * 16 / 6)
    assert stats.total.dedup_factor == pytest.approx(16 / 11)


def test_batches_that_cut_a_row_count_it_twice(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recd_dist.table.stats.table_stats.BATCH_SIZES", (1, 3, 2048))
    history = table_stats(table).groups[0]
    assert history.dedup_factor_at == {1: 1.0, 3: 6 / 4, 2048: 2.0}  # A A B | B, A A


def test_features(table: Path) -> None:
    clicks, candidate = table_stats(table).features
    assert (clicks.kind, clicks.group, clicks.table, clicks.max_length) == ("ids", "history", "item", 2)
    assert clicks.num_per_sample == pytest.approx(10 / 6)
    assert (clicks.num_expanded, clicks.num_stored, clicks.dedup_factor) == (10, 5, 2.0)
    assert (clicks.id_bytes, candidate.id_bytes) == (4, 8)
    columns = [pq.ParquetFile(p).metadata.row_group(0) for p in (table / "history").iterdir()]
    assert clicks.num_bytes == sum(c.column(1).total_compressed_size for c in columns)


def test_raw_files_and_other_splits_are_weighed(table: Path) -> None:
    assert table_stats(table).num_raw_bytes is None
    raw = table.parents[1] / "raw"
    raw.mkdir()
    (raw / "a.parquet").write_bytes(b"x" * 1000)
    (raw / "notes.txt").write_bytes(b"x" * 5)
    stats = table_stats(table)
    assert stats.num_raw_bytes == 1000
    assert stats.num_table_bytes == stats.num_bytes == Manifest.load(table).num_bytes


def test_render_fits_and_json_is_json(table: Path) -> None:
    stats = table_stats(table)
    console = Console(width=120, record=True, file=(table / "out.txt").open("w"))
    console.print(render(stats))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert "hand/train: 6 samples, 3 sessions" in text
    assert "mean 2.00, median 2, max 3" in text
    value = json.loads(json.dumps(stats.to_json(), allow_nan=False))
    assert value["groups"][0]["dedup_factor_at"] == {"512": 2.0, "2048": 2.0, "4096": 2.0}
    assert value["groups"][1]["stay_rate"] is None


def test_a_missing_and_a_cut_file_are_named(table: Path) -> None:
    path = table / "history" / "part-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"part-00001\.parquet: not readable as Parquet .*make the table again"):
        table_stats(table)
    path.unlink()
    with pytest.raises(DataError, match=r"part-00001\.parquet: missing"):
        table_stats(table)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clustered table here"):
        table_stats(tmp_path)


def test_of_a_table_that_the_etl_made(tmp_path: Path) -> None:
    """Synthetic logs keep their promises through the ETL, and the oracle knows every sample of each split."""
    groups = {
        "history": {"stay": 0.85, "update": "shift", "ids": {"clicks": {"table": "item", "length": 8}}},
        "profile": {"stay": 0.95, "ids": ["region"], "dense": ["age"]},
        "sample": {"ids": {"candidate": {"table": "item"}}, "dense": ["price"]},
    }
    spec = SyntheticSpec.from_dict(
        {"num_samples": 20_000, "num_users": 500, "tables": {"item": 500, "region": 200}, "groups": groups}
    )
    raw = generate(spec, tmp_path / "raw", split="session_id % 10 = 9")
    source = {
        "name": "made",
        "path": str(raw),
        "samples": "select * from read_parquet('{path}/part-*.parquet')",
        "keys": {"session": "session_id", "request": "request_id", "timestamp": "timestamp"},
        "labels": ["label"],
        "split": "session_id % 10 = 9",
        "groups": {"history": {"features": ["clicks"]}, "profile": {"features": ["region", "age"]}},
        "features": {"clicks": {"table": "item"}, "candidate": {"table": "item"}},
    }
    etl(Source.from_dict(source), tmp_path / "table", progress=False)
    stats = table_stats(tmp_path / "table" / "train")
    assert stats.session.mean == pytest.approx(16.3, rel=0.1)
    assert stats.per_session_in_time_order < 6 < stats.per_session_clustered
    history, profile, _ = stats.groups
    assert history.stay_rate == pytest.approx(0.85, abs=0.02)
    assert profile.stay_rate == pytest.approx(0.95, abs=0.02)
    assert history.dedup_factor == pytest.approx(history.predicted, rel=0.02)
    assert history.dedup_factor_at[512] == pytest.approx(history.dedup_factor, rel=0.05)
    assert stats.num_raw_bytes is not None
    assert stats.num_raw_bytes > stats.num_table_bytes > stats.num_bytes

    oracle = json.loads((raw / "oracle.json").read_text())
    for split in ("train", "test"):
        samples = pq.read_table(tmp_path / "table" / split / "samples", columns=["timestamp", "label"])
        found = score(true_probabilities(raw, samples["timestamp"].to_numpy()), samples["label"].to_numpy())
        assert found.num_samples == oracle[split]["num_samples"]
        assert found.auc == pytest.approx(oracle[split]["auc"], abs=1e-9)
