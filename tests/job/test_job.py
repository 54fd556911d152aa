"""Whether a table's rows are worth deduplicating."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.job import Job, _check_codec, choose_groups, resolve
from recd_dist.job.options import TrainConfig
from recd_dist.reader.transform import Transforms
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("page", Kind.id, "request", "page"),
        Feature("candidate", Kind.id, "sample", "item"),
    )
)


MANIFEST = Manifest("t", "train", SCHEMA, 100, 50, 50, {"user": 10, "request": 95}, features={}, ids={}, parts=())


def job(user_rows: int, request_rows: int, *, dedup: bool = True) -> Job:
    rows = {"user": user_rows, "request": request_rows}
    manifest = replace(MANIFEST, group_rows=rows)
    groups = choose_groups(manifest, SCHEMA)
    schema = SCHEMA.expand([g.group for g in groups if g.expanded])
    return Job(TrainConfig(dedup=dedup), ClusteredTable(Path("t"), manifest), schema, {}, Transforms({}), groups)


@pytest.mark.parametrize(
    ("user_rows", "request_rows", "deduplicated"),
    [(100, 100, ()), (95, 99, ()), (90, 100, ("user",)), (10, 100, ("user",)), (100, 10, ("request",))],
)
def test_groups_without_rows_to_save_are_expanded(
    user_rows: int, request_rows: int, deduplicated: tuple[str, ...]
) -> None:
    assert job(user_rows, request_rows).schema.dedup_groups == deduplicated
    assert job(user_rows, request_rows).dedup is bool(deduplicated)


def test_dedup_off_stays_off() -> None:
    assert not job(10, 10, dedup=False).dedup


def test_a_table_without_groups_is_trained_as_it_is() -> None:
    plain = replace(job(100, 100), schema=SCHEMA.without(["history", "page"]))

    assert not plain.dedup


def test_groups_can_be_pinned() -> None:
    measured = choose_groups(MANIFEST, SCHEMA)
    assert [(g.group, g.expanded, g.reason) for g in measured] == [
        ("user", False, "10.0 samples a stored row"),
        ("request", True, "1.05 samples a stored row, below 1.1: nothing to gain"),
    ]
    assert [g.expanded for g in choose_groups(MANIFEST, SCHEMA, ["user"])] == [True, False]
    assert [g.expanded for g in choose_groups(MANIFEST, SCHEMA, [])] == [False, False]
    with pytest.raises(ConfigError, match=r"plan\.expand: no group 'usr'; did you mean 'user'"):
        choose_groups(MANIFEST, SCHEMA, ["usr"])


def test_codecs_are_for_unique_rows() -> None:
    config = TrainConfig()
    config.plan.codec.forward = "fp16"
    assert replace(job(10, 10), config=config).codecs.forward == "fp16"
    assert replace(job(100, 100), config=config).codecs.forward == "fp32"  # nothing is deduplicated
    with pytest.raises(ConfigError, match=r"plan\.codec: dedup=off, the yardstick, is trained in fp32"):
        _check_codec(replace(config, dedup=False))
    config.plan.codec.backward = "int8"
    with pytest.raises(ConfigError, match=r"plan\.codec\.backward=int8"):
        _check_codec(config)


WEIGHTED = Schema(
    (
        Feature("history", Kind.ids, "user", "item", weights="heat", window=True),
        Feature("shops", Kind.ids, "user", "shop"),
        Feature("candidate", Kind.id, "sample", "item"),
    )
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of which only the manifest is there."""
    (tmp_path / "train").mkdir()
    replace(MANIFEST, schema=WEIGHTED, source={"columns": ["heat", "price"]}).save(tmp_path / "train")
    return tmp_path


def resolved(table: Path, *overrides: str) -> Job:
    return resolve(load("train", ["data=parquet", f"data.table={table}", *overrides]))


def test_weights_and_windows_are_those_of_the_table(table: Path) -> None:
    assert resolved(table).schema == WEIGHTED
    assert resolved(table, "data.features.history={weights: heat, window: true}").schema == WEIGHTED
    assert resolved(table, "data.features.shops.window=false").schema == WEIGHTED


@pytest.mark.parametrize(
    ("override", "there"),
    [
        ("data.features.history.weights=warmth", "it is heat"),
        ("data.features.shops.weights=heat", "it has none"),
        ("data.features.history.window=false", "it is true"),
        ("data.features.shops.window=true", "it is false"),
    ],
)
def test_weights_and_windows_that_the_table_does_not_have(table: Path, override: str, there: str) -> None:
    message = f"{override}: in the table {table}/train {there}; make it again by `recd etl ... overwrite=true`"
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolved(table, override)


def test_weights_are_left_out_by_the_name_of_their_column(table: Path) -> None:
    dropped = resolved(table, "data.drop=[heat]", "data.features.history.weights=heat").schema
    assert dropped.weights == {}
    assert [f.name for f in dropped.features] == ["history", "shops", "candidate"]
    assert resolved(table, "data.drop=[history]").schema.weights == {}
    with pytest.raises(ConfigError, match="has no feature 'heet'; did you mean 'heat'"):
        resolved(table, "data.drop=[heet]")


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        (["model=two_tower"], {"position"}),
        (["model=two_tower", "model.query=[history_item]"], {"position", "region", "device"}),
        (["model=dlrm"], set()),
    ],
)
def test_tables_of_features_that_the_model_leaves_out_are_not_looked_up(
    tiny: list[str], options: list[str], left_out: set[str]
) -> None:
    from recd_dist.train.build import build_embeddings

    found = resolve(load("train", [*tiny, *options]))
    assert set(found.tables) - set(found.looked_up) == left_out
    assert set(found.looked_up) == set(build_embeddings(found).schema.tables)
