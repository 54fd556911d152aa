"""Made-up listening events have the published columns, are the same for a seed, and learnable as far as they say."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.synthetic.event_spec import EventSpec
from recd_dist.synthetic.events import EVENT_TYPES, EVENTS_FILE, draw_plays, generate_events

SPEC = EventSpec(num_users=30, num_days=8, num_items=300)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_events(SPEC, tmp_path_factory.mktemp("events") / "raw")


def test_columns_and_types_are_the_published_ones(raw: Path) -> None:
    schema = pq.read_schema(raw / EVENTS_FILE)
    types = {field.name: field.type for field in schema}
    assert pa.types.is_dictionary(types.pop("event_type"))
    assert types == {
        "uid": pa.uint32(),
        "timestamp": pa.uint32(),
        "item_id": pa.uint32(),
        "is_organic": pa.uint8(),
        "played_ratio_pct": pa.uint16(),
        "track_length_seconds": pa.uint32(),
    }


def test_rows_lie_as_published(raw: Path) -> None:
    table = pq.read_table(raw / EVENTS_FILE)
    uid, second = table["uid"].to_numpy().astype(np.int64), table["timestamp"].to_numpy().astype(np.int64)
    assert (np.lexsort((second, uid)) == np.arange(len(table))).all()
    assert (second % 5 == 0).all()
    kinds = np.array(table["event_type"].to_pylist())
    for name in ("played_ratio_pct", "track_length_seconds"):
        assert np.array_equal(table[name].is_valid().to_numpy(), kinds == "listen")
    assert {"listen", "like", "dislike"} <= set(kinds) <= set(EVENT_TYPES)
    ties = (np.diff(second) == 0) & (np.diff(uid) == 0)
    assert ties.mean() > 0.02  # what happened first of two such events is not known
    played = table["played_ratio_pct"].drop_null().to_numpy()
    assert 0.6 < (played >= 50).mean() < 0.66


def test_a_seed_gives_one_log_and_another_seed_another(raw: Path, tmp_path: Path) -> None:
    again, other = generate_events(SPEC, tmp_path / "again"), generate_events(SPEC, tmp_path / "other", seed=1)
    assert (again / EVENTS_FILE).read_bytes() == (raw / EVENTS_FILE).read_bytes()
    assert (other / EVENTS_FILE).read_bytes() != (raw / EVENTS_FILE).read_bytes()


def test_probabilities_are_those_of_the_labels(raw: Path) -> None:
    plays = draw_plays(EventSpec(num_users=200, num_days=20))
    high = plays.probability > 0.7
    assert plays.listened[high].mean() == pytest.approx(plays.probability[high].mean(), abs=0.01)
    assert np.array_equal(plays.listened, plays.ratio >= 50)
    best = json.loads((raw / "oracle.json").read_text())
    assert best["train"]["num_samples"] + best["test"]["num_samples"] == best["all"]["num_samples"]
    assert best["test"]["num_samples"] > 0
    assert 0.8 < best["all"]["auc"] < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_user": 3}, "unknown key 'num_user'; did you mean 'num_users'?"),
        ({"num_users": 3.5}, "num_users is 3.5; it must be a whole number"),
        ({"num_days": 1}, "num_days is 1; at least 2 are needed"),
        ({"num_genres": 2}, "num_genres is 2; it must be from 3"),
        ({"listened_rate": 1}, "listened_rate is 1.0; it must lie between 0 and 1"),
        ({"shares": {"tast": 1}}, "shares has an unknown term 'tast'; did you mean 'taste'?"),
    ],
)
def test_mistakes_are_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        EventSpec.from_dict(options)
    assert message in str(told.value)


def test_published_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(b"published")
    with pytest.raises(DataError, match=r"data\.source=sql reads logs that are there"):
        generate_events(SPEC, tmp_path)
    assert (tmp_path / EVENTS_FILE).read_bytes() == b"published"
