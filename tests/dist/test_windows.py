"""Batches whose rows are windows train what lists train, under every sharding, whatever travels of a table."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dist.judge import SCHEMA, TABLES, batches, join_parts, train

from recd_dist.tensors.find_windows import find_windows

SMALL = {"flag": "TW", "device": "TW"}  # too few rows to be split over four ranks
TWO = {
    "TW": "TW",
    "RW": {"default": "RW", "flag": "TW"},
    "CW": "CW",
    "DP": {"default": "DP", "article": "TW"},
    "mixed": {"default": "TW", "item": "RW", "article": "CW", "device": "DP", "tag": "RW"},
}
FOUR = {
    "TWRW": {"default": "TWRW", "article": "RW", "flag": "TW"},
    "GRID": {"default": "GRID", "article": "CW", "flag": "TW"},
}
IDS = {"send": {"item": "ids", "tag": "ids", "place": "ids"}}
OPTIONS = {
    "pooled at home": {},
    "ids": IDS,
    "ids, weighted": {**IDS, "weighted": True},
    "mean": {**IDS, "pooling": "mean"},
    "un-pooled rows": {"send": {"article": "rows"}, "weighted": True},
}
LONGEST = 5


def assert_alike(results: list[dict], wanted: list[dict], exact: bool = True) -> None:
    """The same outputs, losses, weights and optimizer states; every table has moved."""
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
    for result, other in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result["losses"], other["losses"], **tolerance)
        for x, y in zip(result["outputs"], other["outputs"], strict=True):
            np.testing.assert_allclose(x, y, **tolerance)
    before = join_parts(wanted, "before")
    for what in ("after", "states"):
        others = join_parts(wanted, what)
        for name, weight in join_parts(results, what).items():
            np.testing.assert_allclose(weight, others[name], err_msg=name, **tolerance)
            if what == "after":
                assert np.abs(weight - before[name]).max() > 1e-3, f"{name} did not move"


def test_the_batches_share_ids() -> None:
    found = [find_windows(b.sparse) for b in batches(1, 20, 14, LONGEST, shifting=True)]
    for key in ("history", "clicks", "tags", "place"):
        assert any(key in batch.windows for batch in found)
        assert sum(b.num_values(key) for b in found) < 0.8 * sum(b.num_list_values(key) for b in found)


CASES = [
    ("mixed", "pooled at home", True),
    ("RW", "ids, weighted", True),
    ("DP", "ids, weighted", True),
    ("mixed", "un-pooled rows", True),
    ("CW", "mean", True),
    *(pytest.param(s, "pooled at home", True, marks=pytest.mark.slow) for s in ("TW", "RW", "CW")),
    *(pytest.param(s, "ids, weighted", True, marks=pytest.mark.slow) for s in ("TW", "CW", "mixed")),
    pytest.param("CW", "un-pooled rows", True, marks=pytest.mark.slow),
    pytest.param("mixed", "ids", True, marks=pytest.mark.slow),
    pytest.param("TW", "ids, weighted", False, marks=pytest.mark.slow),  # it is expanded before any table sees it
]


@pytest.mark.parametrize(("sharding", "options", "dedup"), CASES)
def test_two_ranks(two_ranks, sharding: str, options: str, dedup: bool) -> None:
    windows, lists = (
        two_ranks(
            train,
            dedup,
            TWO[sharding],
            "adagrad",
            20,
            (9, 14),
            {**OPTIONS[options], "histories": histories},
            False,
            LONGEST,
        )
        for histories in ("windows", "lists")
    )
    # Elsewhere gradients of an id are summed in another order: embedding_bag sorts ids by their places in the vectors
    # that came; of tables whose every id comes back they are summed by stored id first.
    assert_alike(windows, lists, exact=options == "pooled at home" and sharding != "DP")


@pytest.mark.parametrize(("sharding", "exchange"), [("TWRW", "direct"), ("GRID", "by_host")])
def test_four_ranks_of_two_hosts(four_ranks, sharding: str, exchange: str) -> None:
    asked = {"send": {"place": "ids"}, "exchange": exchange}
    plan, sizes = {**FOUR[sharding], "place": "RW"}, (9, 14, 5, 8)
    windows, lists = (
        four_ranks(train, True, plan, "rowwise_adagrad", 20, sizes, {**asked, "histories": histories}, False, LONGEST)
        for histories in ("windows", "lists")
    )
    assert_alike(windows, lists, exact=False)


@given(
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    longest=st.integers(0, 12),
    kinds=st.dictionaries(st.sampled_from(["item", "tag", "place"]), st.sampled_from(["TW", "RW", "CW", "DP"])),
    send=st.dictionaries(st.sampled_from(["item", "tag", "place", "article"]), st.sampled_from(["rows", "ids"])),
    sequences=st.sampled_from([[], ["clicks"], ["clicks", "target"]]),
    weighted=st.booleans(),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(two_ranks, sizes, longest, kinds, send, sequences, weighted) -> None:
    options = {
        "send": {t: s for t, s in send.items() if kinds.get(t) != "DP"},
        "sequence_features": sequences,
        "weighted": weighted,
    }
    windows, lists = (
        two_ranks(train, True, {"default": "TW", **kinds}, "sgd", 2, sizes, {**options, "histories": h}, False, longest)
        for h in ("windows", "lists")
    )
    for result, other in zip(windows, lists, strict=True):
        np.testing.assert_allclose(result["losses"], other["losses"], rtol=1e-5, atol=1e-6)
    others = join_parts(lists, "after")
    for name, weight in join_parts(windows, "after").items():
        np.testing.assert_allclose(weight, others[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_every_table_is_looked_up() -> None:
    assert {f.table for f in SCHEMA.sparse} == set(TABLES)
