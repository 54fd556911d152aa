"""Sharding: sessions whole, memory bounded, splits counted; a spilled run writes the same samples as one in memory."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import flat_view
from recd_dist.table.manifest import Manifest

NUM_SAMPLES = 20_000


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    session = rng.integers(0, 2000, NUM_SAMPLES)
    rows = {
        "visit": [f"v{s}" for s in session],
        "t": pa.array(rng.permutation(NUM_SAMPLES), pa.timestamp("s")),
        "clicked": rng.random(NUM_SAMPLES) < 0.1,
        "history": [[int(s)] * (int(s) % 5) for s in session // 3],
        "item": np.arange(NUM_SAMPLES),
    }
    path = tmp_path_factory.mktemp("flat") / "x.parquet"
    pq.write_table(pa.table(rows), path)
    return path


def source(path: Path, **options: object) -> Source:
    keys = {"session": "visit", "timestamp": "t"}
    policy = {"earliest": "1970-01-01"}
    given = {"path": str(path), "keys": keys, "labels": ["clicked"], "policy": policy}
    return Source.from_dict(given | {"groups": {"history": ["history"]}} | options)


def items(table: Path) -> list[int]:
    return [row[0] for row in duckdb.sql(f"select item from ({flat_view(table)}) order by sample_id").fetchall()]


def test_spilled_and_in_memory_hold_the_same(flat, tmp_path):
    small = etl(source(flat), tmp_path / "spilled", shard_bytes=200_000, progress=False)["train"]
    large = etl(source(flat), tmp_path / "memory", progress=False)["train"]
    assert len(small.parts) > 3
    assert len(large.parts) == 1
    assert sorted(items(tmp_path / "spilled" / "train")) == items_sorted(tmp_path / "memory" / "train")
    assert (small.num_samples, small.num_sessions, small.ids) == (large.num_samples, large.num_sessions, large.ids)
    samples = pq.read_table(tmp_path / "spilled" / "train" / "samples").to_pydict()
    assert samples["sample_id"] == list(range(NUM_SAMPLES))
    session = np.array(samples["session_id"])
    assert int((session[1:] != session[:-1]).sum()) + 1 == small.num_sessions  # each session lies together
    rows = pq.read_table(tmp_path / "spilled" / "train" / "history")["row"].to_numpy()
    assert len(np.unique(rows)) == len(rows)
    assert set(rows >> 40) == set(range(len(small.parts)))


def items_sorted(table: Path) -> list[int]:
    return sorted(items(table))


def test_two_runs_write_the_same_bytes(flat, tmp_path):
    one = etl(source(flat, split=0.2), tmp_path / "one", shard_bytes=200_000, progress=False)
    two = etl(source(flat, split=0.2), tmp_path / "two", shard_bytes=200_000, progress=False)
    assert one["train"].parts == two["train"].parts
    assert one["test"].parts == two["test"].parts


@pytest.mark.parametrize("shard_bytes", [200_000, 1 << 30])
def test_a_share_takes_the_last_sessions_whole(flat, tmp_path, shard_bytes):
    made = etl(source(flat, split=0.25), tmp_path / "out", shard_bytes=shard_bytes, progress=False)
    sessions = made["train"].num_sessions + made["test"].num_sessions
    assert made["test"].num_sessions == round(0.25 * sessions)
    assert made["train"].num_samples + made["test"].num_samples == NUM_SAMPLES
    first = {
        split: duckdb.sql(
            f"select session_id, min(timestamp) from '{tmp_path}/out/{split}/samples/*.parquet' group by 1"
        ).fetchall()
        for split in made
    }
    assert not {s for s, _ in first["train"]} & {s for s, _ in first["test"]}
    assert max(t for _, t in first["train"]) <= min(t for _, t in first["test"])


def test_a_predicate_splits_samples_and_both_manifests_agree_on_ids_and_numbers(flat, tmp_path):
    samples = f"select *, item / 10.0 as price from '{flat}'"
    made = etl(source(flat, samples=samples, split="item >= 15000"), tmp_path / "out", progress=False)
    assert (made["train"].num_samples, made["test"].num_samples) == (15_000, 5_000)
    assert min(items(tmp_path / "out" / "test")) == 15_000
    assert made["train"].ids == made["test"].ids
    assert made["train"].ids["item"].max_id == NUM_SAMPLES - 1
    assert made["train"].features["price"].mean == made["test"].features["price"].mean == pytest.approx(749.95)
    assert Manifest.load(tmp_path / "out" / "test") == made["test"]


def test_without_a_session_every_sample_is_its_own(flat, tmp_path):
    made = etl(source(flat, keys={}, split=0.1, drop=["t"]), tmp_path / "out", progress=False)
    assert made["train"].num_sessions == made["train"].num_samples == 18_000
    assert items_sorted(tmp_path / "out" / "test") == list(range(18_000, 20_000))  # the last of the file
