"""Alarms: each rises after three bad points in a row, names its remedy, ends with a good point, and is kept."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from recd_dist.train.alarms import ENOUGH_POINTS, POINTS, Alarms, Limits
from recd_dist.train.counting import Point

GOOD = Point(
    loss=0.5,
    quality={"ne": 0.9},
    speed={"samples_per_s": 1e5, "step_ms": 20.0, "reader_wait_share": 0.02},
    traffic={},
    group_bytes={},
    dedup_factors={"history": 4.8, "new": 1.0},
    memory={"rss_gib": 1.0},
)


def limits(tmp_path: Path, **changes: object) -> Limits:
    return replace(Limits({"history": 5.0}, 512, 2, 8 << 30, tmp_path, 1e3), **changes)


@pytest.mark.parametrize(
    ("name", "bad", "remedy"),
    [
        (
            "slow_reader",
            {"speed": {**GOOD.speed, "reader_wait_share": 0.4}},
            "40% of the time; more reader",
        ),
        ("slow_steps", {"speed": {**GOOD.speed, "step_ms": 50.0}}, "2.5 times as long as before"),
        (
            "weak_dedup",
            {"dedup_factors": {"history": 2.4}},
            r"history 2.4 instead of 5.0; .* \(now 512",
        ),
        ("no_better_than_base_rate", {"quality": {"ne": 1.2}}, "NE is 1.200.*lower learning rates"),
        ("memory_nearly_full", {"memory": {"rss_gib": 3.7}}, "7.4 GiB of 8.0 GiB; a smaller batch_size"),
    ],
)
def test_an_alarm_rises_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, bad: dict, remedy: str
) -> None:
    alarms = Alarms(limits(tmp_path))
    for step in range(1, ENOUGH_POINTS + 1):
        assert not any(alarms.look(step, GOOD).values())
    seen = [alarms.look(step, replace(GOOD, **bad)) for step in range(20, 20 + POINTS + 1)]
    assert [up[name] for up in seen] == [0.0] * (POINTS - 1) + [1.0, 1.0]
    assert sum(seen[-1].values()) == 1  # no other alarm
    assert alarms.look(40, GOOD)[name] == 0.0

    texts = [record.getMessage() for record in caplog.records]
    assert texts == [texts[0], f"alarm {name} ended at step 40"]
    assert texts[0].startswith(f"alarm {name} at step {19 + POINTS}: ")
    kept = alarms.summary()["alarms"]
    assert kept[name]["steps"] == [19 + POINTS, 20 + POINTS]
    assert re.search(remedy, kept[name]["text"])


def test_points_that_are_bad_in_turns_are_no_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alarms, bad = Alarms(limits(tmp_path)), replace(GOOD, quality={"ne": 2.0}, dedup_factors={"history": 1.0})
    for step in range(100):
        alarms.look(step, GOOD if step % POINTS == 0 else bad)
    assert not caplog.records
    assert alarms.summary() == {}


def test_a_disk_without_room_for_two_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms(limits(tmp_path, checkpoint_bytes=2.0**60))
    for step in range(POINTS):
        alarms.look(step, GOOD)
    assert "a checkpoint takes" in caplog.text
    assert "make room, or a smaller checkpoint.keep" in caplog.text


def test_numbers_that_are_not_there_raise_nothing(tmp_path: Path) -> None:
    """The first point has no speed; AUC and NE are undefined where all labels are of one class."""
    alarms = Alarms(limits(tmp_path))
    empty = replace(GOOD, speed={}, quality={"ne": float("nan")}, dedup_factors={}, memory={})
    for step in range(3 * ENOUGH_POINTS):
        assert not any(alarms.look(step, empty).values())
