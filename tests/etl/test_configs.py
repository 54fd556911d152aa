"""The sources that ship: small files of each layout, and EB-NeRD where it is at hand."""

import os
from pathlib import Path

import duckdb
import pytest
import yaml

from recd_dist.etl.flow import etl
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import flat_view
from recd_dist.table.schema import Kind

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("RECD_SHARED", ROOT.parent / "shared")) / "data"


def source(name: str, path: Path, **options: object) -> Source:
    config = yaml.safe_load((ROOT / "configs" / "data" / f"{name}.yaml").read_text())
    return Source.from_dict(config | {"path": str(path)} | options)


def rows(table: Path, columns: str, order: str = "sample_id") -> list[tuple[object, ...]]:
    return duckdb.sql(f"select {columns} from ({flat_view(table)}) order by {order}").fetchall()


def test_criteo_has_no_session_and_no_group(tmp_path):
    lines = [
        "\t".join(
            [str(i % 2), *(str(i) if n else "" for n in range(13)), *(f"{i:08x}" if n else "" for n in range(26))]
        )
        for i in range(20)
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    made = etl(source("criteo", tmp_path / "train.txt"), tmp_path / "out", progress=False)
    assert (made["train"].num_samples, made["train"].num_sessions, made["test"].num_samples) == (18, 18, 2)
    assert made["train"].schema.groups == ("sample",)
    assert made["train"].schema["i1"].kind is Kind.dense
    assert (made["train"].schema["c1"].kind, made["train"].schema["c2"].kind) == (Kind.ids, Kind.id)  # c1 is missing
    assert made["train"].ids["c2"].num_distinct == 20
    assert rows(tmp_path / "out" / "test", "label, i1, i2, len(c1)") == [(0, 0, 18, 0), (1, 0, 19, 0)]


def test_any_flat_parquet_needs_only_names(tmp_path):
    duckdb.sql(
        "select i // 4 as visit, timestamp '2024-01-01' + i * interval 1 minute as time, i % 4 = 0 as clicked, "
        "[i // 4, 7] as history, 'u' || i // 8 as member, i as item, i / 2 as price from range(80) t(i)"
    ).write_parquet(str(tmp_path / "x.parquet"))
    keys = {"session": "visit", "timestamp": "time"}
    made = etl(
        source("parquet", tmp_path / "x.parquet", keys=keys, labels=["clicked"]), tmp_path / "out", progress=False
    )
    assert (made["train"].num_samples, made["test"].num_samples) == (72, 8)
    assert made["train"].schema.groups == ("history", "sample")  # a group of 'member' alone would save too little
    assert made["train"].group_rows == {"history": 18}
    assert rows(tmp_path / "out" / "test", "history, item, price, clicked")[1] == ([18, 7], 73, 36.5, 0)


BEHAVIORS = """
select * from (values
  (1, timestamp '2023-05-18 07:00:00', 5, 1, [10, 11], [10]),
  (2, timestamp '2023-05-18 08:30:00', 5, 1, [11, 10], [11]),
  (3, timestamp '2023-05-18 08:30:00', 6, 2, [10, 12], []::int[]),
  (4, timestamp '2023-05-19 07:00:00', 7, 1, [10, 11], [10])
) as t(impression_id, impression_time, session_id, user_id, article_ids_inview, article_ids_clicked)
"""


def test_ebnerd_looks_only_backwards(tmp_path):
    unused = "null::int as article_id, 1::tinyint as device_type, true as is_sso_user, false as is_subscriber"
    duckdb.sql(f"select *, {unused} from ({BEHAVIORS})").write_parquet(str(tmp_path / "behaviors.parquet"))
    duckdb.sql(
        "select 1::uinteger as user_id, [8, 9] as article_id_fixed, [3.0, null]::float[] as read_time_fixed, "
        "[95.0, null]::float[] as scroll_percentage_fixed"
    ).write_parquet(str(tmp_path / "history.parquet"))
    etl(source("ebnerd", tmp_path), tmp_path / "out", progress=False)

    counts = "request_id, candidate, num_views, num_clicks, num_views_1h, num_seen, age_min, clicked"
    assert rows(tmp_path / "out" / "train", counts, "request_id, position") == [
        (1, 10, 0, 0, 0, 0, 0, 1),
        (1, 11, 0, 0, 0, 0, 0, 0),
        (2, 11, 1, 0, 0, 1, 90, 1),  # seen 90 minutes ago: not in the last hour
        (2, 10, 1, 1, 0, 1, 90, 0),
        (3, 10, 1, 1, 0, 0, 90, 0),  # impression 2 is of the same moment and does not count
        (3, 12, 0, 0, 0, 0, 0, 0),
    ]
    assert rows(tmp_path / "out" / "test", counts, "request_id, position") == [
        (4, 10, 3, 1, 0, 2, 1440, 1),
        (4, 11, 2, 1, 0, 2, 1440, 0),
    ]
    lists = "request_id, history_article, history_read_time, history_scroll, recent_article, num_recent_clicks"
    history = [8, 9], [2, 0], [10, 0]
    assert rows(tmp_path / "out" / "train", f"distinct {lists}", "request_id") == [
        (1, *history, [8, 9], 0),
        (2, *history, [8, 9, 10], 1),
        (3, [], [], [], [], 0),  # a user without history
    ]
    assert rows(tmp_path / "out" / "test", f"distinct {lists}", "request_id") == [(4, *history, [8, 9, 10, 11], 2)]


@pytest.mark.skipif(not (SHARED / "ebnerd_small").is_dir(), reason="no shared data")
def test_ebnerd_small_joined_back_is_the_source(tmp_path):
    raw = SHARED / "ebnerd_small"
    made = etl(source("ebnerd", raw), tmp_path / "out", progress=False)
    assert sum(manifest.num_samples for manifest in made.values()) == 10_848
    joined = " union all ".join(
        "select request_id, candidate, position, clicked, user_id, history_article "
        f"from ({flat_view(tmp_path / 'out' / split)})"
        for split in made
    )
    flat = (
        "select impression_id, unnest(article_ids_inview) as candidate, "
        "generate_subscripts(article_ids_inview, 1) as position, "
        "list_contains(article_ids_clicked, candidate)::float as clicked, user_id, article_id_fixed "
        f"from '{raw}/behaviors.parquet' join '{raw}/history.parquet' using (user_id)"
    )
    for left, right in ((joined, flat), (flat, joined)):
        assert duckdb.sql(f"select count(*) from (({left}) except all ({right}))").fetchall() == [(0,)]


@pytest.mark.skipif(not (SHARED / "ebnerd" / "train").is_dir(), reason="no shared data")
def test_no_column_of_ebnerd_tells_the_future():
    inspection = inspect(source("ebnerd", SHARED / "ebnerd" / "train"))
    forbidden = ("next_", "read_time", "scroll_percentage", "clicked", "is_last_day")
    names = [f.name for f in inspection.schema.features if f.group != "history"]
    assert not [name for name in names if name.startswith(forbidden)]


@pytest.mark.skipif(not (SHARED / "expedia").is_dir(), reason="no shared data")
def test_expedia_repeats_the_search(tmp_path):
    made = etl(source("expedia", SHARED / "expedia" / "train.csv", split=None), tmp_path / "out", progress=False)[
        "train"
    ]
    assert (made.num_samples, made.num_sessions, made.schema.labels) == (5058, 209, ("click_bool", "booking_bool"))
    assert made.dedup_factor("search") > 20
    assert "gross_bookings_usd" not in made.schema
    stays = {f.name: made.features[f.name].stay_rate for f in made.schema.of_group("search")}
    assert set(stays.values()) == {1.0}
