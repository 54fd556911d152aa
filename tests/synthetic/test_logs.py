"""Synthetic logs are whole or absent, the same for a seed, calibrated, and learnable as far as they say."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.synthetic.specs import small_spec

from recd_dist.errors import ConfigError, DataError
from recd_dist.synthetic.labels import score, true_probabilities
from recd_dist.synthetic.logs import arrow_schema, generate, score_splits
from recd_dist.synthetic.spec import SyntheticSpec


def read(raw: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(raw.glob("part-*.parquet")))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticSpec, Path, pa.Table]:
    spec = small_spec()
    raw = generate(spec, tmp_path_factory.mktemp("synthetic") / "raw", split="session_id % 10 = 9")
    return spec, raw, read(raw)


def test_columns_are_required_and_flat(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    spec, _, table = logs
    names = ["session_id", "request_id", "timestamp", "label", "clicks", "clicks_category", "region", "candidate"]
    assert table.column_names == [*names, "kind", "age", "price"]
    assert table.schema.equals(arrow_schema(spec))
    assert not any(f.nullable for f in table.schema)
    assert table.num_rows == 3000


def test_time_rises_and_names_the_sample(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    time = logs[2]["timestamp"].cast(pa.int64()).to_numpy()
    assert (np.diff(time) > 0).all()
    sessions = logs[2]["session_id"].to_numpy()
    _, first = np.unique(sessions, return_index=True)
    assert (np.diff(first) > 0).all()  # numbered by their first sample


def test_ids_lie_in_their_tables(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    spec, _, table = logs
    for _, feature in spec.features:
        column = table[feature.name].combine_chunks()
        values = (column.values if feature.length else column).to_numpy()
        assert values.min() >= 0
        assert values.max() < spec.tables[feature.table]
    assert len(np.unique(table["candidate"].to_numpy())) > 100


def test_histories_shift_by_one_or_stay(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    table = logs[2].sort_by([("session_id", "ascending"), ("timestamp", "ascending")])
    sessions, clicks = table["session_id"].to_pylist(), table["clicks"].to_pylist()
    categories = table["clicks_category"].to_pylist()
    stayed = shifted = 0
    for i in range(1, len(clicks)):
        if sessions[i] != sessions[i - 1]:
            continue
        before, now = clicks[i - 1], clicks[i]
        if now == before:
            stayed += 1
        else:
            assert now[:-1] == (before[1:] if len(before) == 6 else before)
            shifted += 1
        assert len(categories[i]) == len(now)
    assert stayed / (stayed + shifted) == pytest.approx(0.8, abs=0.03)


def test_an_item_has_one_category(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    items = logs[2]["clicks"].combine_chunks().values.to_numpy()
    categories = logs[2]["clicks_category"].combine_chunks().values.to_numpy()
    pairs = np.unique(np.stack([items, categories]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]
    candidates = np.stack([logs[2]["candidate"].to_numpy(), logs[2]["kind"].to_numpy()])
    both = np.unique(np.concatenate([pairs, candidates], axis=1), axis=1)
    assert len(np.unique(both[0])) == both.shape[1]  # the same catalogue serves history and candidate


def test_the_same_seed_gives_the_same_logs(logs: tuple[SyntheticSpec, Path, pa.Table], tmp_path: Path) -> None:
    assert read(generate(small_spec(), tmp_path / "again")).equals(logs[2])
    assert not read(generate(small_spec(), tmp_path / "other", seed=1)).equals(logs[2])


def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(generate(small_spec(), tmp_path / "whole"))
    monkeypatch.setattr("recd_dist.synthetic.logs._CHUNK_VALUES", 1)  # the least: 1024 samples a chunk
    monkeypatch.setattr("recd_dist.synthetic.logs._FILE_VALUES", 1)  # and a file each
    raw = generate(small_spec(), tmp_path / "chunks")
    assert len(list(raw.glob("part-*.parquet"))) == 3
    assert read(raw).equals(whole)


def test_generates_once_and_again_when_spec_or_seed_changes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    generate(small_spec(), raw)
    inode = (raw / "part-00000.parquet").stat().st_ino
    generate(small_spec(), raw, split="session_id % 2 = 0")  # another split only scores again
    assert (raw / "part-00000.parquet").stat().st_ino == inode
    assert set(json.loads((raw / "oracle.json").read_text())) == {"all", "train", "test"}
    first = read(raw)
    generate(small_spec(), raw, seed=1)
    assert not read(raw).equals(first)
    generate(small_spec(num_samples=500), raw, seed=1)
    assert read(raw).num_rows == 500
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]  # nothing half-written, nothing old


@pytest.mark.parametrize("seed", [-1, 1 << 64, 10**30])
def test_a_seed_has_64_bits(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"seed={seed}: must be from 0 to 18446744073709551615, a number of 64 bits"):
        generate(small_spec(), tmp_path / "logs", seed=seed)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recd_dist.synthetic.logs.HiddenModel.draw_labels", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(small_spec(), tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds no synthetic logs; choose another data\.path"):
        generate(small_spec(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_oracle_is_written_per_split_and_is_right(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    _, raw, table = logs
    stored = json.loads((raw / "oracle.json").read_text())
    assert set(stored) == {"all", "train", "test"}
    test = table["session_id"].to_numpy() % 10 == 9
    assert stored["test"]["num_samples"] == test.sum()
    probability = true_probabilities(raw, table["timestamp"].cast(pa.int64()).to_numpy())
    assert stored["test"]["auc"] == pytest.approx(score(probability[test], table["label"].to_numpy()[test]).auc)
    # Calibrated: the true probabilities sum to the clicks, within the noise of 3000 coin flips.
    assert probability.sum() == pytest.approx(table["label"].to_numpy().sum(), abs=80)
    assert probability.mean() == pytest.approx(0.3, abs=0.02)


def test_no_column_knows_the_label(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    _, raw, table = logs
    best = score_splits(raw)["all"].auc
    for name in ("age", "price", "region", "candidate", "kind", "session_id", "request_id"):
        auc = score(table[name].to_numpy().astype(float) * 1e-9 + 0.5, table["label"].to_numpy()).auc
        assert max(auc, 1 - auc) < best - 0.05, name


def test_signal_zero_is_noise_and_more_signal_is_more_auc(tmp_path: Path) -> None:
    auc = [score_splits(generate(small_spec(signal=s), tmp_path / str(s)))["all"].auc for s in (0.0, 1.6, 4.0)]
    assert auc[0] == 0.5
    assert auc[1] == pytest.approx(0.83, abs=0.03)
    assert auc[2] > auc[1] + 0.05


def test_a_split_that_names_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.split"):
        generate(small_spec(), tmp_path / "raw", split="sesion_id = 1")
