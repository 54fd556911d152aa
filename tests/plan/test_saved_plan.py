"""Plans on disk: they are read as they were written, compared, and refused by a job that they do not fit."""

import json
from pathlib import Path

import pytest

from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.errors import ConfigError
from recd_dist.plan.plan_json import plan_to_json
from recd_dist.plan.saved_plan import compare_plans, format_plan, format_spans, load_plan, parse_plan
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_rows import table_uses
from recd_dist.plan.world import World
from recd_dist.table.schema import Feature, Kind, Schema, Table

SCHEMA = Schema((Feature("history", Kind.ids, "user", "item"), Feature("place", Kind.id, "sample", "place")))
TABLES = {"item": Table("item", 1000, 16), "place": Table("place", 10, 8)}
SIZES = {"item": (1000, 16), "place": (10, 8)}
WORLD = World(4, 2)


def embeddings() -> Embeddings:
    return Embeddings(SCHEMA, TABLES, send={"item": "ids"}, device="meta")


def write_plan(path: Path, sharding: object = "TW") -> Path:
    placement = read_placement(place_tables(embeddings(), WORLD, sharding))
    path.write_text(format_plan(plan_to_json(table_uses(embeddings()), placement, WORLD, {"rank_mib": 1.5})))
    return path


@pytest.mark.parametrize(
    "sharding",
    [
        "TW",
        "RW",
        "CW",
        "DP",
        "TWCW",
        {"item": {"type": "CW", "ranks": [3, 1, 3, 0]}, "place": "TWRW"},
        {"item": {"type": "GRID", "hosts": [1, 0]}, "place": {"type": "TWRW", "host": 1}},
        {"item": {"type": "GRID", "hosts": [1, 0, 0, 1]}, "place": "TW"},
        {"item": {"type": "CW", "ranks": [3, 1, 0]}, "place": "TW"},
    ],
)
def test_a_plan_read_is_the_plan_write_plan(tmp_path: Path, sharding: object) -> None:
    saved = load_plan(write_plan(tmp_path / "plan.json", sharding))
    saved.check(SIZES, 4, 2)
    again = place_tables(embeddings(), WORLD, saved.sharding)
    assert read_placement(again) == read_placement(place_tables(embeddings(), WORLD, sharding))
    assert saved.send == {"item": "ids", "place": "rows"}


def test_a_table_is_a_line(tmp_path: Path) -> None:
    lines = write_plan(tmp_path / "plan.json").read_text().splitlines()
    assert '  "place": {"num_embeddings": 10, "dim": 8, "send": "rows", "type": "TW", "ranks": [1]}' in lines


@pytest.mark.parametrize(
    ("sizes", "world", "message"),
    [
        (SIZES, (8, 2), "made for 4 ranks, this job has 8; plan again"),
        ({**SIZES, "item": (2000, 16)}, (4, 2), "table 'item' has 1000 rows of 16, this job's has 2000 of 16"),
        ({**SIZES, "user": (5, 8)}, (4, 2), "has no table 'user'; there are: item, place"),
        ({"item": (1000, 16)}, (4, 2), "table 'place' is none of this job's"),
        (SIZES, (4, 4), "table 'item' lies on a host of 2 ranks, hosts of this job have 4"),
    ],
)
def test_another_jobs_plan_is_refused(
    tmp_path: Path, sizes: dict[str, tuple[int, int]], world: tuple[int, int], message: str
) -> None:
    saved = load_plan(write_plan(tmp_path / "plan.json", {"item": "TWRW"}))
    with pytest.raises(ConfigError, match=message):
        saved.check(sizes, *world)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "recd_dist.plan", "version": 1}', '{"format": "x"}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.file=.*plan\.json: "):
        load_plan(tmp_path / "plan.json")


def test_send_is_rows_or_ids(tmp_path: Path) -> None:
    value = json.loads(write_plan(tmp_path / "plan.json").read_text())
    value["tables"]["item"]["send"] = "id"
    with pytest.raises(ConfigError, match="send=id: unknown; rows or ids"):
        parse_plan(value, tmp_path / "plan.json")


def test_differences(tmp_path: Path) -> None:
    before = load_plan(write_plan(tmp_path / "a.json"))
    after = load_plan(
        write_plan(tmp_path / "b.json", {"item": {"type": "CW", "ranks": [1, 0]}, "place": {"type": "TW", "ranks": 1}})
    )
    assert compare_plans(before, before) == []
    assert compare_plans(before, after) == [
        ("item", "1,000 x 16, TW 0, ids", "1,000 x 16, CW 1, 0, ids"),
    ]


def test_spans() -> None:
    assert format_spans([3, 0, 1, 2, 8]) == "0-3, 8"
    assert format_spans([]) == ""
