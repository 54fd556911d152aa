"""What features do from one sample to the next."""

from pathlib import Path

import numpy as np
import pytest
from tests.suggest.planted import features_of


def test_features_count_changes_shifts_and_values(tmp_path: Path) -> None:
    history = [[1, 2], [2, 3], [2, 3], [9, 9], [4]]
    x, h = features_of(tmp_path / "t.parquet", visit=[1, 1, 1, 1, 2], x=[5, 5, 6, 6, 6], history=history)
    assert (x.flags.tolist(), x.num_pairs, x.num_same) == ([True, False, True, False, False], 3, 2)
    assert (h.flags.tolist(), h.stay_rate) == ([True, True, False, True, True], pytest.approx(1 / 3))
    assert (h.num_changes, h.num_shifts, h.num_new) == (2, 1, 2 + 1 + 0 + 2 + 1)
    assert (h.num_values(), h.num_values(h.flags)) == (9, 7)


def test_few_values_repeat_by_chance(tmp_path: Path) -> None:
    visit = np.repeat(np.arange(100), 10)
    rare = (np.random.default_rng(0).random(1000) < 0.05).astype(np.int64)
    chance, steady = features_of(tmp_path / "t.parquet", visit=visit, chance=rare, steady=visit % 2)
    assert chance.stay_rate > 0.85
    assert (chance.is_of_session, steady.is_of_session) == (False, True)


def test_windows_pay_for_long_lists_that_append(tmp_path: Path) -> None:
    appended = [list(range(i, i + 8)) for i in range(20)]
    replaced = [list(range(100 * i, 100 * i + 8)) for i in range(20)]
    short = [list(range(i, i + 3)) for i in range(20)]
    new = [
        [10 * i - 1, 10 * i] if i % 2 else list(range(10 * i - 10, 10 * i)) for i in range(1, 21)
    ]  # half only append
    measured = features_of(tmp_path / "t.parquet", visit=[1] * 20, a=appended, r=replaced, s=short, n=new)
    assert [feature.shift_rate for feature in measured] == [1.0, 0.0, 1.0, pytest.approx(0.5, abs=0.03)]
    assert [feature.has_windows() for feature in measured] == [True, False, False, False]
    assert [feature.is_history for feature in measured] == [True, True, False, True]
