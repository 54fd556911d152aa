"""An exchange in two steps, inside the host first, trains what the judge trains, on two hosts of two ranks each."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dist.judge import LR, STEPS, assert_judged, train

from recd_dist.embedding.vocabulary.names import Codecs

SIZES = (9, 14, 5, 8)
SMALL = {"flag": "TW", "device": "TW"}  # too few rows to be split over four ranks
SPREAD = {
    "item": {"type": "CW", "ranks": [3, 0]},
    "article": {"type": "CW", "ranks": [2, 3]},
    "tag": {"type": "CW", "ranks": [1, 1]},
    "place": {"type": "CW", "ranks": [1, 3]},
}
PLANS = {
    "TW": "TW",
    "RW": {"default": "RW", **SMALL},
    "CW": "CW",
    "CW of any ranks": {"default": "TW", **SPREAD},
    "TWRW": {"default": "TWRW", "article": "RW", "flag": "TW"},
    "GRID": {"default": "GRID", "article": "CW", "flag": "TW"},
    "mixed": {"default": "GRID", "item": "TWRW", "article": "RW", "city": "DP", "tag": "RW", **SMALL},
    "planner": "planner",
}
IDS = {"item": "ids", "tag": "ids", "place": "ids", "city": "ids"}
ALL_ROWS = {"article": "rows"}


@pytest.mark.parametrize("optimizer", list(LR))
@pytest.mark.parametrize("sharding", PLANS)
def test_every_sharding_and_optimizer(four_ranks, sharding: str, optimizer: str) -> None:
    options = {"exchange": "by_host"}
    results = four_ranks(train, True, PLANS[sharding], optimizer, STEPS, SIZES, options)
    assert_judged(results, optimizer, sizes=SIZES, sharding=PLANS[sharding])


@pytest.mark.parametrize("send", [IDS, ALL_ROWS], ids=["ids", "rows of an un-pooled table"])
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW of any ranks", "GRID"])
def test_what_travels(four_ranks, sharding: str, send: dict[str, str]) -> None:
    options = {"exchange": "by_host", "send": send}
    results = four_ranks(train, True, PLANS[sharding], "adagrad", STEPS, SIZES, options)
    assert_judged(results, "adagrad", sizes=SIZES)


@pytest.mark.parametrize("send", [{}, IDS], ids=["rows", "ids"])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("sharding", ["RW", "CW of any ranks"])
def test_weights(four_ranks, sharding: str, pooling: str, send: dict[str, str]) -> None:
    options = {"exchange": "by_host", "weighted": True, "pooling": pooling, "send": send}
    results = four_ranks(train, True, PLANS[sharding], "adagrad", STEPS, SIZES, options)
    assert_judged(results, "adagrad", sizes=SIZES, pooling=pooling, weighted=True)


@pytest.mark.parametrize("longest", [0, 300, (3, 300, 3, 4)])
def test_lengths_of_any_width(four_ranks, longest: int | tuple[int, ...]) -> None:
    args = (True, PLANS["RW"], "rowwise_adagrad", 3, SIZES, {"exchange": "by_host"}, False, longest)
    assert_judged(four_ranks(train, *args), "rowwise_adagrad", 3, SIZES, longest=longest, tolerance=1e-4)


@pytest.mark.parametrize("sizes", [(0, 14, 0, 3), (0, 0, 5, 8), (0, 0, 0, 0)])
@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_ranks_without_samples(four_ranks, sharding: str, sizes: tuple[int, ...]) -> None:
    options = {"exchange": "by_host", "send": {"item": "ids"}}
    results = four_ranks(train, True, PLANS[sharding], "adagrad", 3, sizes, options)
    assert_judged(results, "adagrad", 3, sizes)


@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_it_is_pipelined(four_ranks, sharding: str) -> None:
    options = {"exchange": "by_host", "send": IDS}
    piped = four_ranks(train, True, PLANS[sharding], "rowwise_adagrad", STEPS, SIZES, options, True)
    assert all(result["pipelined"] == 1 for result in piped)
    assert_judged(piped, "rowwise_adagrad", sizes=SIZES)


@given(
    sizes=st.tuples(*[st.integers(0, 20)] * 4),
    longest=st.integers(0, 12),
    kinds=st.dictionaries(st.sampled_from(["item", "tag", "place"]), st.sampled_from(["TW", "RW", "CW", "DP"])),
    send=st.dictionaries(st.sampled_from(["item", "tag", "place", "article"]), st.sampled_from(["rows", "ids"])),
    weighted=st.booleans(),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(four_ranks, sizes, longest, kinds, send, weighted) -> None:
    send = {t: s for t, s in send.items() if kinds.get(t) != "DP"}
    options = {"send": send, "weighted": weighted, "exchange": "by_host"}
    results = four_ranks(train, True, {"default": "TW", **kinds}, "adagrad", 2, sizes, options, False, longest)
    assert_judged(results, "adagrad", 2, sizes, weighted=weighted, longest=longest, tolerance=2e-5)


@pytest.mark.parametrize(("forward", "backward", "tolerance"), [("fp16", "fp16", 2e-3), ("int8", "fp32", 5e-2)])
@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_codecs_between_hosts(four_ranks, sharding: str, forward: str, backward: str, tolerance: float) -> None:
    options = {"codecs": Codecs(forward, backward), "exchange": "by_host"}
    results = four_ranks(train, True, PLANS[sharding], "sgd", 3, SIZES, options)
    assert_judged(results, "sgd", 3, SIZES, tolerance=tolerance)
    exact = four_ranks(train, True, PLANS[sharding], "sgd", 3, SIZES, {"exchange": "by_host"})
    assert not np.array_equal(results[0]["outputs"][0], exact[0]["outputs"][0])
