"""Group discovery finds planted groups, and its estimates agree with the table that the ETL writes."""

import json
import math
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.suggest.planted import plant_table, source

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.etl_run import Options
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.suggestion import Suggestion

THREE = {"history": (0.8, 2), "profile": (0.97, 3), "places": (0.9, 1)}


def feature_sets(suggestion: Suggestion) -> set[frozenset[str]]:
    return {frozenset(group.features) for group in suggestion.groups}


def features_of(groups: dict[str, tuple[float, int]]) -> set[frozenset[str]]:
    return {frozenset(f"{name}_{'abcdef'[i]}" for i in range(num)) for name, (_, num) in groups.items()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "clicks.parquet"
    plant_table(path, THREE, num_samples=24_000)
    return path


@pytest.fixture(scope="module")
def whole(table: Path) -> Suggestion:
    return suggest(source(table), progress=False)


def test_planted_groups_are_found(whole: Suggestion) -> None:
    assert feature_sets(whole) == features_of(THREE)
    assert {g.name for g in whole.groups} == {"history", "profile", "places_a"}
    assert {g.name: round(g.stay_rate, 1) for g in whole.groups} == {"history": 0.8, "profile": 1.0, "places_a": 0.9}
    assert [f.name for f in whole.features if f.group == "sample"] == ["item", "price"]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stays=st.lists(st.sampled_from([0.5, 0.7, 0.85, 0.95]), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_any_planted_groups_are_found(
    tmp_path_factory: pytest.TempPathFactory, stays: list[float], seed: int, data: st.DataObject
) -> None:
    groups = {f"g{i}": (stay, data.draw(st.integers(1, 3))) for i, stay in enumerate(stays)}
    path = tmp_path_factory.mktemp("any") / "t.parquet"
    plant_table(path, groups, num_samples=3000, seed=seed)
    assert feature_sets(suggest(source(path), progress=False)) == features_of(groups)


def test_a_column_of_two_values_is_found_with_the_group_that_it_changes_with(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.85, 2)})
    coin = pa.array([row[0] % 2 for row in table["user_a"].to_pylist()])  # stays the same in half of the changes
    pq.write_table(table.append_column("coin", coin), tmp_path / "t.parquet")
    assert feature_sets(suggest(source(tmp_path / "t.parquet"), progress=False)) == {
        frozenset({"user_a", "user_b", "coin"})
    }


def test_a_column_of_few_values_that_repeats_by_chance_stays_in_sample(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.85, 2)})
    rare = pa.array((np.random.default_rng(1).random(table.num_rows) < 0.05).astype(np.int64))
    pq.write_table(table.append_column("rare", rare), tmp_path / "t.parquet")
    feature = suggest(source(tmp_path / "t.parquet"), progress=False).features[-1]
    assert (feature.name, feature.group) == ("rare", "sample")
    assert feature.dedup_factor > 5
    assert "by chance" in feature.verdict


def test_static_features_that_change_at_different_times_are_not_merged(tmp_path: Path) -> None:
    groups = {f"static{i}": (0.9, 1) for i in range(6)}
    plant_table(tmp_path / "t.parquet", groups)
    suggestion = suggest(source(tmp_path / "t.parquet"), progress=False)
    assert feature_sets(suggestion) == features_of(groups)
    assert all(group.dedup_factor > 4 for group in suggestion.groups)


def test_estimates_agree_with_the_table_that_the_etl_writes(table: Path, whole: Suggestion, tmp_path: Path) -> None:
    described = Source.from_dict(yaml.safe_load(whole.yaml.replace("tables/${.name}", "x")))
    made = etl(described, tmp_path / "out", progress=False)["train"]
    assert {g: made.group_rows[g] for g in made.schema.dedup_groups} == {g.name: g.num_rows for g in whole.groups}
    for group in whole.groups:
        assert made.dedup_factor(group.name) == pytest.approx(group.dedup_factor)
    assert whole.proposal("suggested").estimate.storage_bytes == pytest.approx(made.num_bytes, rel=0.03)
    ids = sum(made.features[f.name].num_values_unique for f in made.schema.features if f.is_sparse)
    flat = sum(made.features[f.name].num_values_expanded for f in made.schema.features if f.is_sparse)
    estimates = {p.name: p.estimate for p in whole.proposals}
    assert estimates["flat"].ids / estimates["suggested"].ids == pytest.approx(flat / ids, rel=0.03)


def test_the_flat_table_is_measured_in_order_of_time(table: Path, whole: Suggestion, tmp_path: Path) -> None:
    columns = pq.read_table(table)
    sizes = {}
    for name in ("history_a", "item"):
        best = []
        for options in ({}, {"use_dictionary": True}, {"use_byte_stream_split": True}):
            path = tmp_path / "one.parquet"
            given = {"use_dictionary": False} | options
            pq.write_table(
                columns.select([name]), path, compression="zstd", compression_level=3, row_group_size=8192, **given
            )
            best.append(path.stat().st_size)
        sizes[name] = min(best)
    assert {f.name: f.flat_bytes for f in whole.features if f.name in sizes} == pytest.approx(sizes, rel=0.05)


def test_a_sample_of_sessions_says_nearly_the_same(table: Path, whole: Suggestion) -> None:
    part = suggest(source(table), num_samples=6000, progress=False)
    assert part.looked.num_samples == pytest.approx(6000, rel=0.05)
    assert part.looked.num_samples_total == 24_000
    assert feature_sets(part) == feature_sets(whole)
    for a, b in zip(part.groups, whole.groups, strict=True):
        assert a.dedup_factor == pytest.approx(b.dedup_factor, rel=0.06)
        assert a.in_time_at[512] == pytest.approx(b.in_time_at[512], rel=0.15)
    for name in ("flat", "suggested"):
        a, b = part.proposal(name).estimate, whole.proposal(name).estimate
        assert a.storage_bytes == pytest.approx(b.storage_bytes, rel=0.08)
        assert a.ids == pytest.approx(b.ids, rel=0.08)


def test_the_order_of_the_rows_does_not_matter(table: Path, whole: Suggestion, tmp_path: Path) -> None:
    rows = pq.read_table(table)
    pq.write_table(rows.take(np.random.default_rng(3).permutation(rows.num_rows)), tmp_path / "shuffled.parquet")
    shuffled = suggest(source(tmp_path / "shuffled.parquet"), progress=False)
    assert [(g.features, g.num_rows, g.in_time_at) for g in shuffled.groups] == [
        (g.features, g.num_rows, g.in_time_at) for g in whole.groups
    ]


def test_the_configs_groups_are_compared(table: Path) -> None:
    groups = {"everything": ["history_a", "history_b", "profile_a", "profile_b", "profile_c", "places_a"]}
    suggestion = suggest(source(table, groups=groups), progress=False)
    worse, better = suggestion.proposal("config").estimate, suggestion.proposal("suggested").estimate
    assert suggestion.proposal("config").groups == {"everything": tuple(groups["everything"])}
    assert worse.ids > 1.5 * better.ids
    assert worse.storage_bytes > better.storage_bytes


def test_a_group_with_its_own_query(tmp_path: Path) -> None:
    clicks = plant_table(tmp_path / "t.parquet", {"user": (0.85, 1)})
    keys = pa.array(np.unique(clicks["visit"].to_numpy()))
    lists = [[int(k) % 97, 1, 2, 3] * 8 for k in keys.to_pylist()]
    pq.write_table(pa.table({"visit": keys, "likes": lists}), tmp_path / "likes.parquet")
    groups = {
        "likes": {"key": "visit", "sql": f"select * from read_parquet('{tmp_path}/likes.parquet')"},
        "user": ["user_a"],
    }
    suggestion = suggest(source(tmp_path / "t.parquet", groups=groups), progress=False)
    made = etl(Source.from_dict(yaml.safe_load(suggestion.yaml.replace("${", "{"))), tmp_path / "out", progress=False)
    rows = {g.name: g.num_rows for g in suggestion.groups}
    assert rows == made["train"].group_rows
    assert rows["likes"] == len(keys)
    assert next(f for f in suggestion.features if f.name == "likes").stay_rate == 1


def test_sessions_of_one_sample_gain_nothing(tmp_path: Path) -> None:
    table = plant_table(tmp_path / "t.parquet", {"user": (0.85, 1)}, num_samples=1000)
    single = table.set_column(0, "visit", pa.array(np.arange(table.num_rows)))
    pq.write_table(single, tmp_path / "t.parquet")
    suggestion = suggest(source(tmp_path / "t.parquet"), progress=False)
    assert suggestion.verdict == "nothing to gain: every session has one sample"
    assert not suggestion.is_worth_it
    assert suggestion.groups == ()
    assert all(math.isnan(f.stay_rate) for f in suggestion.features)


def test_json_has_no_nan(whole: Suggestion) -> None:
    value = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    assert value["features"][2]["window_factor"] is None
    assert value["batch_samples"] == 4096
    assert set(value["looked"]) == {
        *("num_samples", "num_samples_total", "num_sessions", "num_sessions_total", "share"),
        *("num_keyless", "is_cut", "has_session", "has_time", "seconds"),
    }


@pytest.mark.parametrize("num_samples", [0, -5])
def test_a_sample_of_nothing_is_refused(table: Path, num_samples: int) -> None:
    with pytest.raises(ConfigError, match=r"--sample .* at least 1"):
        suggest(source(table), num_samples=num_samples, progress=False)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    duckdb.sql(f"copy (select 1 as visit, 2 as clicked, 3 as time, 4 as item limit 0) to '{tmp_path}/t.parquet'")
    with pytest.raises(DataError, match="returned no rows"):
        suggest(source(tmp_path / "t.parquet"), progress=False)


def test_the_flat_table_stays_zstd_whatever_ours_is_written_in(table: Path, whole: Suggestion) -> None:
    fast = suggest(source(table), options=Options(compression="lz4"), progress=False)
    assert fast.proposal("flat").estimate.storage_bytes == whole.proposal("flat").estimate.storage_bytes
    assert fast.proposal("suggested").estimate.storage_bytes > whole.proposal("suggested").estimate.storage_bytes


def test_without_a_session_nothing_is_grouped(table: Path) -> None:
    suggestion = suggest(source(table, keys={"timestamp": "time"}, samples="select * from '{path}'"), progress=False)
    assert suggestion.looked.num_sessions == suggestion.looked.num_samples
    assert suggestion.groups == ()
    assert suggestion.verdict.startswith("nothing to gain without a session")
    assert "groups: {}" in suggestion.yaml
