"""Which features are put into one group."""

from pathlib import Path

import numpy as np
from tests.suggest.planted import features_of

from recd_dist.etl.write.propose_groups import group_as_configured, propose_groups

NEW_SESSION = np.arange(2000) % 10 == 0


def lists(changes: list[int], seed: int) -> list[list[int]]:
    """Lists of 16 random ids for 200 sessions of 10 samples, new at the given places of each session."""
    rows = np.cumsum(np.isin(np.arange(2000) % 10, [0, *changes]))
    return list(np.random.default_rng(seed).integers(0, 1 << 40, (2001, 16))[rows])


def test_features_that_change_together_are_one_group_and_cheap_ones_stay_in_sample(tmp_path: Path) -> None:
    features = features_of(
        tmp_path / "t.parquet",
        visit=np.arange(2000) // 10,
        user_a=lists([3], 1),
        user_b=lists([3], 2),
        other=lists([5, 6, 7], 3),
        cheap=np.arange(2000) // 10 % 7,
        item=np.arange(2000),
    )
    groups = propose_groups(features, NEW_SESSION)
    assert [(g.name, g.features, g.num_rows, g.factor) for g in groups] == [
        ("user_a", ("user_a", "user_b", "cheap"), 400, 5.0),
        ("other", ("other",), 800, 2.5),
    ]
    (configured,) = group_as_configured(features, {"mine": ["user_a", "other", "absent"], "sample": ["item"]})
    assert (configured.name, configured.features, configured.num_rows) == ("mine", ("user_a", "other"), 1000)


def test_features_that_nearly_always_change_together_are_merged_because_that_saves(tmp_path: Path) -> None:
    place, session = np.arange(2000) % 10, np.arange(2000) // 10
    first = np.isin(place, [0, 3, 5])
    second = np.where(session % 7 == 0, np.isin(place, [0, 3, 6]), first)  # another place in a seventh of the sessions
    ids = np.random.default_rng(0).integers(0, 1 << 40, (2000, 6))
    columns = {name: list(ids[np.cumsum(flags) - 1]) for name, flags in (("first", first), ("second", second))}
    features = features_of(tmp_path / "t.parquet", visit=session, **columns)
    groups = propose_groups(features, NEW_SESSION)
    assert [(g.features, g.num_rows) for g in groups] == [(("first", "second"), 600 + 29)]


def test_what_saves_little_is_no_group(tmp_path: Path) -> None:
    features = features_of(tmp_path / "t.parquet", visit=[1, 1, 1, 1, 2], x=[5, 5, 6, 6, 6])
    assert propose_groups(features, np.array([True, False, False, False, True])) == ()
