"""Whether a table's rows are worth deduplicating."""

from dataclasses import replace
from pathlib import Path

import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.config import TrainConfig
from recd_dist.job.job import Job, _check_codec, group_choices
from recd_dist.reader.transform import Transforms
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
    groups = group_choices(manifest, SCHEMA)
    schema = SCHEMA.expanded([g.group for g in groups if g.expanded])
    return Job(TrainConfig(dedup=dedup), Path("t"), manifest, schema, {}, Transforms({}), groups)


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
    measured = group_choices(MANIFEST, SCHEMA)
    assert [(g.group, g.expanded, g.reason) for g in measured] == [
        ("user", False, "10.0 samples a stored row"),
        ("request", True, "1.05 samples a stored row, below 1.1: nothing to gain"),
    ]
    assert [g.expanded for g in group_choices(MANIFEST, SCHEMA, ["user"])] == [True, False]
    assert [g.expanded for g in group_choices(MANIFEST, SCHEMA, [])] == [False, False]
    with pytest.raises(ConfigError, match=r"plan\.expand: no group 'usr'; did you mean 'user'"):
        group_choices(MANIFEST, SCHEMA, ["usr"])


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
