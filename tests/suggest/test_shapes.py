"""What ``--suggest`` estimates equals what the ETL then measures, on logs of many shapes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.suggest.shapes import PART, SAMPLES, SHAPES, compare, describe, proposed

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.suggest.proposals import suggest

GROUPS = {
    "long_sessions": {("history",), ("profile", "age")},
    "user_gaps": {("history",), ("country",)},
    "requests": {("query",), ("context",)},
    "interleaved": {("history",), ("profile",)},
    "growing_history": {("history",)},
    "nothing_repeats": set(),
    "users_side_by_side": {("likes",), ("basket",)},
    "equal_times": {("page",), ("profile",)},
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("shapes")
    return {shape: describe(shape, directory) for shape in SHAPES}


@pytest.mark.parametrize("num_samples", [SAMPLES, PART])
@pytest.mark.parametrize("shape", SHAPES)
def test_estimates_equal_what_the_etl_measures(
    configs: dict[str, dict[str, Any]], shape: str, num_samples: int, tmp_path: Path
) -> None:
    suggestion, rows = compare(configs[shape], tmp_path, num_samples)
    assert {group.features for group in suggestion.groups} == GROUPS[shape]
    assert [f"{row.what}: {row.estimated} for {row.measured}" for row in rows if row.error > 0.05] == []
    if num_samples == SAMPLES:
        assert max(row.error for row in rows) < 0.02


@pytest.mark.parametrize("num_samples", [SAMPLES, PART])
@pytest.mark.parametrize("shape", ["users_side_by_side", "equal_times"])
def test_a_table_of_many_shards_splits_and_partitions(
    configs: dict[str, dict[str, Any]], shape: str, num_samples: int, tmp_path: Path
) -> None:
    """Sessions that are neighbours by id are apart in a table of many shards, and so rows repeat less often."""
    config = configs[shape] | {"split": 0.2} | ({"partition": "day"} if shape == "equal_times" else {})
    _, rows = compare(config, tmp_path, num_samples, shard_bytes=3_000_000)
    factors = {row.what: row.measured for row in rows}
    assert factors.get("likes: samples a row", 0) < 12  # 17.97 in a single shard
    assert [f"{row.what}: {row.estimated} for {row.measured}" for row in rows if row.error > 0.1] == []


@pytest.mark.parametrize("options", [{"sample": 0.5}, {"policy": {"duplicates": "drop"}}])
def test_policies_count_as_in_the_etl(
    configs: dict[str, dict[str, Any]], options: dict[str, Any], tmp_path: Path
) -> None:
    suggestion, rows = compare(configs["user_gaps"] | options, tmp_path, SAMPLES)
    assert proposed(suggestion) == proposed(suggestion)
    assert [f"{row.what}: {row.estimated} for {row.measured}" for row in rows if row.error > 0.02] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_automatic_groups_are_those_that_are_suggested(
    configs: dict[str, dict[str, Any]], shape: str, tmp_path: Path
) -> None:
    made = etl(Source.from_dict(configs[shape] | {"groups": None}), tmp_path / "table", progress=False)["train"]
    features = {tuple(f.name for f in made.schema.of_group(group)) for group in made.schema.dedup_groups}
    assert features == GROUPS[shape]


def test_the_proposed_config_says_what_a_session_is_as_the_given_one(tmp_path: Path) -> None:
    config = describe("user_gaps", tmp_path) | {
        "sessions": {"by": "gap", "gap": "2h"},
        "keys": {"user": "user", "timestamp": "time", "order": "item"},
        "policy": {"duplicates": "drop", "late": "keep"},
        "partition": "day",
        "sample": 0.5,
        "features": {"history": {"table": "item", "window": False}, "item": {"table": "item"}},
    }
    suggestion = suggest(Source.from_dict(config), data_config=config, num_samples=2000, progress=False)
    given, found = Source.from_dict(config), proposed(suggestion)
    for name in ("keys", "session_by", "gap_s", "partition", "sample", "features", "policy", "split"):
        assert getattr(found, name) == getattr(given, name), name
    assert yaml.safe_load(suggestion.yaml)["sessions"] == {"by": "gap", "gap": "7200s"}


def test_a_guessed_key_does_not_change_what_a_session_is(tmp_path: Path) -> None:
    config = describe("user_gaps", tmp_path) | {"keys": {"user": "user"}}  # the timestamp is guessed
    suggestion = suggest(Source.from_dict(config), data_config=config, num_samples=2000, progress=False)
    found = proposed(suggestion)
    assert (found.keys["timestamp"], Source.from_dict(config).session_by, found.session_by) == ("time", "user", "user")


def test_a_part_says_how_far_it_may_be_off(configs: dict[str, dict[str, Any]]) -> None:
    """Sessions of a Pareto law: few of them have most samples, and whether they are among the part is chance."""
    config = configs["interleaved"]
    whole, part = (
        suggest(Source.from_dict(config), data_config=config, num_samples=n, progress=False) for n in (SAMPLES, 2000)
    )
    for a, b in zip(whole.groups, part.groups, strict=True):
        assert a.factor_error == 0
        assert 0 < b.factor_error < 1
        assert abs(b.dedup_factor / a.dedup_factor - 1) < b.factor_error
