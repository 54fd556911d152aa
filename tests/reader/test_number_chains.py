"""The compiled loop gives what the transforms give one after the other, bit for bit, and sees what is not finite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.reader.number_chains import NumberChains
from recd_dist.reader.transform_steps import Step, apply_steps
from recd_dist.table.addresses import address_of
from recd_dist.table.column import Column

FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 0.5, np.inf, -np.inf, np.nan])
SHORT = st.floats(-100, 100, width=16)
BOUNDS = st.sets(SHORT, min_size=1, max_size=20)
STEPS = st.one_of(
    st.just(Step("log", {})),
    st.builds(lambda a, b: Step("clamp", {"min": min(a, b), "max": max(a, b)}), SHORT, SHORT),
    st.builds(lambda a: Step("clamp", {"min": a}), SHORT),
    st.builds(lambda a: Step("clamp", {"max": a}), SHORT),
    st.builds(
        lambda bounds: Step("bucketize", {"boundaries": sorted(bounds)}), st.sets(SHORT, min_size=1, max_size=20)
    ),
    st.builds(lambda a, b: Step("standardize", {"mean": a, "std": abs(b)}), SHORT, SHORT),
    st.builds(lambda a, b: Step("min_max", {"min": a, "max": b}), SHORT, SHORT),
    st.builds(lambda a: Step("fill", {"value": a}), SHORT),
)
OTHERS = Step("apply", {"function": "a:b", "arguments": {}, "limit": None})


def run(chains, rows):
    """The chains over columns of numbers; others stay as the caller had them."""
    chosen = NumberChains(chains)
    columns = [np.array([row[n] for row in rows], np.float32) for n in chosen.places]
    out = np.full((len(rows), len(chains)), -7, np.float32)
    return chosen.places, chosen.run(np.array([address_of(c) for c in columns], np.int64), out), out


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=4), st.data())
def test_as_the_transforms_one_after_the_other(chains, data):
    rows = data.draw(st.lists(st.lists(FLOATS, min_size=len(chains), max_size=len(chains)), max_size=6))
    _, are_finite, out = run(chains, rows)
    wanted_finite = True
    for n, steps in enumerate(chains):
        column = np.array([row[n] for row in rows], np.float32)
        with np.errstate(all="ignore"):
            wanted = apply_steps(steps, Column(column)).values
        fills = bool(steps) and steps[0].name == "fill"
        wanted_finite &= bool((fills or np.isfinite(column).all()) and np.isfinite(wanted).all())
        np.testing.assert_array_equal(out[:, n], wanted)
    assert are_finite == wanted_finite


def test_the_loop_leaves_others_alone():
    places, are_finite, out = run([[], [OTHERS], [Step("log", {}), OTHERS], [Step("log", {})]], [[1, 2, 3, 0]] * 2)
    assert (places, are_finite) == ([0, 3], True)
    assert out.tolist() == [[1, -7, -7, 0]] * 2


@pytest.mark.parametrize("rows", [[], [[np.nan]]])
def test_no_feature_and_no_row(rows):
    assert run([[OTHERS]], rows)[1]
    assert run([[]], rows)[1] == (not rows)
