"""Whether a table's rows are worth deduplicating."""

from dataclasses import replace
from pathlib import Path

import pytest

from recd_dist.config import TrainConfig
from recd_dist.job import Job
from recd_dist.manifest import Manifest
from recd_dist.reader.transform import Transforms
from recd_dist.schema import Feature, Kind, Schema

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("page", Kind.id, "request", "page"),
        Feature("candidate", Kind.id, "sample", "item"),
    )
)


def job(user_rows: int, request_rows: int, *, dedup: bool = True) -> Job:
    rows = {"user": user_rows, "request": request_rows}
    manifest = Manifest("t", "train", SCHEMA, 100, 50, 50, rows, features={}, ids={}, parts=())
    return Job(TrainConfig(dedup=dedup), Path("t"), manifest, SCHEMA, {}, Transforms({}))


@pytest.mark.parametrize(
    ("user_rows", "request_rows", "worth"),
    [(100, 100, False), (95, 99, False), (90, 100, True), (10, 100, True), (100, 10, True)],
)
def test_one_group_with_rows_to_save_is_enough(user_rows: int, request_rows: int, worth: bool) -> None:
    assert job(user_rows, request_rows).dedup is worth


def test_dedup_off_stays_off() -> None:
    assert not job(10, 10, dedup=False).dedup


def test_a_table_without_groups_is_trained_as_it_is() -> None:
    plain = replace(job(100, 100), schema=SCHEMA.without(["history", "page"]))

    assert not plain.dedup
