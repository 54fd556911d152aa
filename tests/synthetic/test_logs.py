"""The synthetic source: whole or absent, the same for a seed, calibrated, and learnable as far as it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recd_dist.errors import ConfigError, DataError
from recd_dist.synthetic.draw import mix, normal, spread_of, uniform
from recd_dist.synthetic.labels import score, true_probabilities
from recd_dist.synthetic.logs import arrow_schema, generate, kinds, oracles
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.synthetic.values import Columns
from recd_dist.synthetic.visits import traffic
from recd_dist.table.schema import SAMPLE, Kind

CONFIGS = Path(__file__).parents[2] / "configs" / "data"
PRESETS = ("tiny", "rm1", "rm2", "rm3")

SMALL: dict[str, Any] = {
    "num_samples": 3000,
    "num_users": 100,
    "tables": {"item": 200, "category": 10, "region": 20},
    "groups": {
        "history": {
            "stay": 0.8,
            "update": "shift",
            "ids": {"clicks": {"table": "item", "length": 6}, "clicks_category": {"table": "category", "length": 6}},
        },
        "profile": {"stay": 0.95, "ids": ["region"], "dense": ["age"]},
        "sample": {"ids": {"candidate": {"table": "item"}, "kind": {"table": "category"}}, "dense": ["price"]},
    },
}


def preset(name: str) -> dict[str, Any]:
    """A data config as Hydra composes it: the preset over synthetic.yaml."""

    def over(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        both = {k: over(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
                for k, v in value.items()}  # fmt: skip
        return {**base, **both}

    value = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert value.pop("defaults") == ["synthetic", "_self_"]
    return over(yaml.safe_load((CONFIGS / "synthetic.yaml").read_text()), value)


def small(**changes: Any) -> SyntheticSpec:
    return SyntheticSpec.from_dict({**SMALL, **changes})


def read(raw: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(raw.glob("part-*.parquet")))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticSpec, Path, pa.Table]:
    spec = small()
    raw = generate(spec, tmp_path_factory.mktemp("synthetic") / "raw", split="session_id % 10 = 9")
    return spec, raw, read(raw)


def test_columns_are_required_and_flat(logs: tuple[SyntheticSpec, Path, pa.Table]) -> None:
    spec, _, table = logs
    names = ["session_id", "request_id", "timestamp", "label", "clicks", "clicks_category", "region", "candidate"]
    assert table.column_names == [*names, "kind", "age", "price"]
    assert table.schema.equals(arrow_schema(spec))
    assert not any(f.nullable for f in table.schema)
    assert kinds(spec)["clicks"] is Kind.ids
    assert kinds(spec)["region"] is Kind.id
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
    assert read(generate(small(), tmp_path / "again")).equals(logs[2])
    assert not read(generate(small(), tmp_path / "other", seed=1)).equals(logs[2])


def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(generate(small(), tmp_path / "whole"))
    monkeypatch.setattr("recd_dist.synthetic.logs._CHUNK_VALUES", 1)  # the least: 1024 samples a chunk
    monkeypatch.setattr("recd_dist.synthetic.logs._FILE_VALUES", 1)  # and a file each
    raw = generate(small(), tmp_path / "chunks")
    assert len(list(raw.glob("part-*.parquet"))) == 3
    assert read(raw).equals(whole)


def test_generates_once_and_again_when_spec_or_seed_changes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    generate(small(), raw)
    made = (raw / "part-00000.parquet").stat().st_ino
    generate(small(), raw, split="session_id % 2 = 0")  # another split only scores again
    assert (raw / "part-00000.parquet").stat().st_ino == made
    assert set(json.loads((raw / "oracle.json").read_text())) == {"all", "train", "test"}
    first = read(raw)
    generate(small(), raw, seed=1)
    assert not read(raw).equals(first)
    generate(small(num_samples=500), raw, seed=1)
    assert read(raw).num_rows == 500
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]  # nothing half-written, nothing old


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recd_dist.synthetic.logs.HiddenModel.labels", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(small(), tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds no synthetic logs; choose another data\.path"):
        generate(small(), tmp_path)
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
    best = oracles(raw)["all"].auc
    for name in ("age", "price", "region", "candidate", "kind", "session_id", "request_id"):
        auc = score(table[name].to_numpy().astype(float) * 1e-9 + 0.5, table["label"].to_numpy()).auc
        assert max(auc, 1 - auc) < best - 0.05, name


def test_signal_zero_is_noise_and_more_signal_is_more_auc(tmp_path: Path) -> None:
    auc = [oracles(generate(small(signal=s), tmp_path / str(s)))["all"].auc for s in (0.0, 1.6, 4.0)]
    assert auc[0] == 0.5
    assert auc[1] == pytest.approx(0.83, abs=0.03)
    assert auc[2] > auc[1] + 0.05


def test_score_of_literals() -> None:
    found = score(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert found.auc == pytest.approx(0.875)  # three pairs right, one tie
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.4, 0.8])))
    assert found.ne == pytest.approx(found.log_loss / np.log(2))
    assert score(np.array([0.3, 0.3]), np.array([1.0, 1.0])).auc == 0.5


def test_random_numbers_are_uniform_and_normal() -> None:
    keys = mix(np.arange(20_000), 7)
    assert np.histogram(uniform(keys), 10, (0, 1))[0] == pytest.approx([2000] * 10, abs=200)
    assert normal(keys).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("size", [2, 10, 1000, 200_000, 65_537])
def test_spread_is_a_bijection(size: int) -> None:
    assert len(np.unique(np.arange(size) * spread_of(size) % size)) == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sesion_mean": 3}, "unknown key 'sesion_mean'; did you mean 'session_mean'"),
        ({"num_samples": "many"}, "data.synthetic.num_samples is 'many'; it must be a whole number"),
        ({"num_samples": 0}, "num_samples is 0; it must be positive"),
        ({"session_mean": 5}, "they must rise"),
        ({"click_rate": 1.5}, "click_rate is 1.5"),
        ({"shares": {"dens": 1}}, "unknown term 'dens'; did you mean 'dense'"),
        ({"tables": {"item": 200, "category": 10, "regoin": 20}}, "'region' draws from table 'region'; did you mean"),
        ({"groups": {"history": {"stay": 1.5, "ids": ["region"]}}}, "stay is 1.5; it is a probability"),
        ({"groups": {"history": {"updat": "shift"}}}, "unknown key 'updat'; did you mean 'update'"),
        ({"groups": {"sample": {"stay": 0.5, "ids": ["region"]}}}, "drawn anew for every sample"),
        ({"groups": {}}, "no features"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        small(**change)


def test_a_split_that_names_no_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.split"):
        generate(small(), tmp_path / "raw", split="sesion_id = 1")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_the_same_groups_to_the_etl(name: str) -> None:
    value = preset(name)
    spec = SyntheticSpec.from_dict(value["synthetic"])
    described = {group: options["features"] for group, options in value["groups"].items()}
    assert described == {g.name: [*(f.name for f in g.ids), *g.dense] for g in spec.groups if g.name != SAMPLE}
    tables = {feature: options["table"] for feature, options in value["features"].items()}
    assert tables == {f.name: f.table for _, f in spec.features if f.name != f.table}


def test_calibration_of_rm1() -> None:
    """Sessions of 16.3 in the mean and 10 in the median; 1.2 of each in 4096; ids 5.6 times fewer when clustered."""
    spec = SyntheticSpec.from_dict(preset("rm1")["synthetic"])
    seen = traffic(spec)
    sizes = np.bincount(seen.session)
    assert sizes.mean() == pytest.approx(16.3, rel=0.03)
    assert np.median(sizes) == pytest.approx(10, abs=1)
    assert 300 < sizes.max() <= 600
    windows = [4096 / len(np.unique(seen.session[i : i + 4096])) for i in range(0, len(seen) - 4096, 4096)]
    assert 1.1 < np.mean(windows) < 1.25

    columns = Columns(spec, seen)
    some = np.sort(np.random.default_rng(0).choice(len(seen), 500, replace=False))
    num_ids = {feature.name: len(rows.values) / len(some) for feature, rows in columns.ids(some)}
    order = np.lexsort((seen.timestamp_us, seen.session))
    same = seen.session[order][1:] == seen.session[order][:-1]
    unique = 0.0
    for group in spec.groups:
        per_sample = sum(num_ids[f.name] for f in group.ids)
        if group.name != SAMPLE:
            version = seen.versions[group.name][order]
            stays = same & (version[1:] == version[:-1])
            assert stays.sum() / same.sum() == pytest.approx(group.stay, abs=0.01)
            per_sample *= 1 - stays.mean()
        unique += per_sample
    assert sum(num_ids.values()) == pytest.approx(787, rel=0.02)
    assert sum(num_ids.values()) / unique == pytest.approx(5.64, rel=0.05)


def test_one_sample_a_session() -> None:
    seen = traffic(small(session_mean=1, session_median=1))
    assert len(np.unique(seen.session)) == len(seen) == 3000
