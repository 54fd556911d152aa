"""What transforms change on a table, in numbers that are counted by hand."""

import numpy as np
import pytest
from rich.console import Console

from recd_dist.errors import ConfigError
from recd_dist.reader.transform_effects import Effect, Looks, measure_effects
from recd_dist.reader.transform_effects_text import render_effects
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.column import Windows

from .conftest import samples_of, write_table


@pytest.fixture
def table(tmp_path):
    """One row group, so that all of it is looked at."""
    samples = samples_of(12)
    write_table(tmp_path, samples, row_group_size=10_000)
    return ClusteredTable.load(tmp_path), samples


def test_effects_are_counted(table, tmp_path):
    clustered, samples = table
    (tmp_path / "few.txt").write_text("0\n1\n2\n")
    features = {
        "tags": {"transforms": [{"first_x": 1}]},
        "candidate": {"transforms": [{"vocabulary": str(tmp_path / "few.txt")}]},
        "price": {"transforms": [{"clamp": {"min": 0, "max": 6}}, "min_max"]},
        "both": {"transforms": [{"cross": {"of": ["candidate", "tags"], "n": 20}}]},
        "age": {},
    }
    cut, known, clamped, scaled, both = measure_effects(clustered, features)
    lengths = [len(s.tags) for s in samples]
    assert (cut.num_changed, cut.num_compared) == (sum(n > 1 for n in lengths), len(samples))
    assert cut.before.to_json()["length"] == sum(lengths) / len(samples)
    assert cut.after.num_values == sum(n > 0 for n in lengths)
    assert known.num_unknown == sum(s.candidate > 2 for s in samples)
    assert known.num_changed == len(samples) - sum(s.candidate > 2 and s.candidate == 0 for s in samples)
    assert clamped.num_changed == sum(not 0 <= s.price <= 6 for s in samples)
    assert (clamped.after.min, clamped.after.max) == (max(0, min(s.price for s in samples)), 6)
    assert (scaled.feature, scaled.after.max) == ("price", 1)
    assert (both.before, both.after.num_values) == (None, sum(lengths))
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(render_effects([cut, known, clamped, scaled, both]))
    shown = captured.get()
    assert "vocabulary" in shown
    assert "made" in shown


def test_unknown_values_of_windows_are_a_share_of_the_values_that_were_looked_up():
    """Short windows over many values, as `last_x` leaves them: each value is looked up once, in however many rows."""
    starts, lengths = np.array([2], np.int32), np.array([1], np.int32)
    effect = Effect("history", "vocabulary file=few.txt", Looks(), Looks())
    values = np.array([5, 6, 7, 8], np.int32)
    effect.add(Windows(values, starts, lengths), Windows(np.array([0, 0, 1, 0], np.int32), starts, lengths))
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(render_effects([effect]))
    assert "75.0%" in captured.get()


def test_a_config_without_transforms_has_no_effects(table):
    assert measure_effects(table[0], {"age": {}, "tags": None}) == []


def test_a_mistake_is_named(table):
    with pytest.raises(ConfigError, match="unknown transform 'lgo'"):
        measure_effects(table[0], {"price": {"transforms": ["lgo"]}})
