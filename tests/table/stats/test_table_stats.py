"""Numbers of a table: a small one written and counted by hand, then one that the ETL made."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.synthetic.labels import score, true_probabilities
from recd_dist.synthetic.logs import generate
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.stats.table_stats import measure_table


def test_sessions_and_requests(table: Path) -> None:
    stats = measure_table(table)
    assert (stats.session.mean, stats.session.median, stats.session.max) == (2.0, 2.0, 3)
    assert (stats.request.mean, stats.request.median, stats.request.max) == (1.5, 1.5, 2)
    assert stats.per_session_in_time_order == stats.per_session_clustered == 2.0  # one batch holds all
    assert stats.label_means == {"label": 0.5}


def test_repeats_of_a_group(table: Path) -> None:
    history, sample = measure_table(table).groups
    assert history.stay_rate == pytest.approx(2 / 3)  # 5-5 same, 5-5 changed, 3-3 same; 5-9 is no pair of a session
    assert history.dedup_factor == 2.0
    assert history.dedup_factor_at == {512: 2.0, 2048: 2.0, 4096: 2.0}
    assert history.predicted == pytest.approx(2 / (1 + 1 * (1 - 2 / 3)))
    assert (sample.num_rows, sample.dedup_factor) == (6, 1.0)
    assert math.isnan(sample.stay_rate)


def test_cost_of_a_batch(table: Path) -> None:
    stats = measure_table(table)
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


def test_features(table: Path) -> None:
    clicks, candidate = measure_table(table).features
    assert (clicks.kind, clicks.group, clicks.table, clicks.max_length) == ("ids", "history", "item", 2)
    assert clicks.num_per_sample == pytest.approx(10 / 6)
    assert (clicks.num_expanded, clicks.num_stored, clicks.dedup_factor) == (10, 5, 2.0)
    assert (clicks.id_bytes, candidate.id_bytes) == (4, 8)
    columns = [pq.ParquetFile(p).metadata.row_group(0) for p in (table / "history").iterdir()]
    assert clicks.num_bytes == sum(c.column(1).total_compressed_size for c in columns)


def test_json_has_no_nan_and_strings_as_keys(table: Path) -> None:
    stats = measure_table(table)
    value = json.loads(json.dumps(stats.to_json(), allow_nan=False))
    assert value["groups"][0]["dedup_factor_at"] == {"512": 2.0, "2048": 2.0, "4096": 2.0}
    assert value["groups"][1]["stay_rate"] is None


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clustered table here"):
        measure_table(tmp_path)


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
    stats = measure_table(tmp_path / "table" / "train")
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
