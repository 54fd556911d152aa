"""Unique rows train what the expanded batch trains, under every sharding, optimizer, pooling and codec.

The judge (``judge.py``) is a float64 model on one process: plain torch modules, fed with every sample's own copy of its
rows. Where TorchRec itself is right, ``dedup=off``, which is its own modules and exchange, must agree with the judge
too.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.dist.judge import LR, SCHEMA, STEPS, TABLES, assert_judged, join_parts, train

from recd_dist.embedding.initial_weights import initialize_tables
from recd_dist.embedding.tables import Embeddings, table_weights
from recd_dist.embedding.vocabulary.names import Codecs

# --- every combination -----------------------------------------------------------------------------------------------

SMALL = {"flag": "TW", "device": "TW"}  # too few rows to be split over four ranks
TWO = {
    "TW": "TW",
    "RW": {"default": "RW", "flag": "TW"},
    "CW": "CW",
    "TWCW": {"default": "TWCW", "article": "CW"},
    "CW on one rank": {
        "default": "TW",
        "item": {"type": "CW", "ranks": [1, 1]},
        "tag": {"type": "CW", "ranks": [0, 0]},
    },
    "DP": {"default": "DP", "article": "TW"},
    "mixed": {"default": "TW", "item": "RW", "article": "CW", "device": "DP", "tag": "RW"},
    "planner": "planner",
}
FOUR = {
    "TW": "TW",
    "RW": {"default": "RW", **SMALL},
    "TWRW": {"default": "TWRW", "article": "RW", "flag": "TW"},
    "GRID": {"default": "GRID", "article": "CW", "flag": "TW", "place": {"type": "GRID", "hosts": [1, 0]}},
    "CW, uneven": {"default": "TW", "item": {"type": "CW", "ranks": [3, 0, 1]}, "tag": {"type": "CW", "ranks": [1, 2]}},
    "mixed": {"default": "GRID", "item": "TWRW", "article": "RW", "city": "DP", "tag": "RW", **SMALL},
}
IN_TORCHREC = ("TW", "RW", "CW", "DP", "mixed")


@pytest.mark.parametrize("optimizer", list(LR))
@pytest.mark.parametrize("sharding", TWO)
def test_two_ranks(two_ranks, sharding: str, optimizer: str) -> None:
    for dedup in (True, False) if sharding in IN_TORCHREC else (True,):
        results = two_ranks(train, dedup, TWO[sharding], optimizer)
        assert_judged(results, optimizer, sharding=TWO[sharding])


@pytest.mark.parametrize("optimizer", list(LR))
@pytest.mark.parametrize("sharding", FOUR)
def test_four_ranks_of_two_hosts(four_ranks, sharding: str, optimizer: str) -> None:
    assert_judged(
        four_ranks(train, True, FOUR[sharding], optimizer), optimizer, sizes=(9, 14, 5, 8), sharding=FOUR[sharding]
    )


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("optimizer", list(LR))
@pytest.mark.parametrize("sharding", TWO)
def test_weights_on_two_ranks(two_ranks, sharding: str, optimizer: str, pooling: str) -> None:
    """Features with weights, pooled and un-pooled; other features look up the same tables and have no weights."""
    options = {"weighted": True, "pooling": pooling}
    for dedup in (True, False) if sharding in IN_TORCHREC else (True,):
        results = two_ranks(train, dedup, TWO[sharding], optimizer, STEPS, (9, 14), options)
        assert_judged(results, optimizer, pooling=pooling, weighted=True, sharding=TWO[sharding])


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("optimizer", list(LR))
@pytest.mark.parametrize("sharding", FOUR)
def test_weights_on_four_ranks(four_ranks, sharding: str, optimizer: str, pooling: str) -> None:
    sizes, options = (9, 14, 5, 8), {"weighted": True, "pooling": pooling}
    results = four_ranks(train, True, FOUR[sharding], optimizer, STEPS, sizes, options)
    assert_judged(results, optimizer, sizes=sizes, pooling=pooling, weighted=True, sharding=FOUR[sharding])


OPTIONS = {
    "mean": {"pooling": "mean"},
    "weighted": {"weighted": True, "sequence_features": []},
    "weighted ids": {"weighted": True, "sequence_features": [], "send": {"item": "ids", "tag": "ids"}},
    "weighted mean by ids": {"weighted": True, "pooling": "mean", "send": {"item": "ids", "place": "ids"}},
    "all ids, weighted": {"weighted": True, "send": {"article": "rows"}},
    "all ids": {"send": {"article": "rows"}},
    "pooled tables by ids": {"send": {"item": "ids", "tag": "ids", "place": "ids"}},
    "mean by ids": {"pooling": "mean", "send": {"item": "ids", "place": "ids"}},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sharding", ["TW", "RW", "CW", "mixed"])
def test_options(two_ranks, sharding: str, options: str) -> None:
    asked = OPTIONS[options]
    results = two_ranks(train, True, TWO[sharding], "adagrad", STEPS, (9, 14), asked)
    assert_judged(results, "adagrad", pooling=asked.get("pooling", "sum"), weighted=asked.get("weighted", False))


@pytest.mark.parametrize("options", ["weighted", "pooled tables by ids"])
@pytest.mark.parametrize("sharding", ["TWRW", "GRID"])
def test_options_of_hosts(four_ranks, sharding: str, options: str) -> None:
    send = {t: v for t, v in OPTIONS[options].get("send", {}).items() if t == "place"}
    asked = {**OPTIONS[options], "send": send}
    named = {**FOUR[sharding], "place": "RW"}
    results = four_ranks(train, True, named, "adagrad", STEPS, (9, 14, 5, 8), asked)
    assert_judged(results, "adagrad", sizes=(9, 14, 5, 8), weighted=asked.get("weighted", False))


@pytest.mark.parametrize("longest", [0, 3, 300, (3, 300)])
def test_lengths_of_any_width(two_ranks, longest: int | tuple[int, int]) -> None:
    """The lists are empty; or their lengths fit a byte on both ranks, on no rank, or on one of the two."""
    args = (True, TWO["mixed"], "rowwise_adagrad", 3, (9, 14), None, False, longest)
    assert_judged(two_ranks(train, *args), "rowwise_adagrad", 3, longest=longest, tolerance=1e-4, sharding=TWO["mixed"])


@pytest.mark.parametrize("sizes", [(0, 14), (9, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("sharding", ["TW", "RW", "mixed"])
def test_ranks_without_samples(two_ranks, sharding: str, sizes: tuple[int, int]) -> None:
    results = two_ranks(train, True, TWO[sharding], "adagrad", 3, sizes)
    assert_judged(results, "adagrad", 3, sizes)


@given(
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    longest=st.integers(0, 12),
    kinds=st.dictionaries(st.sampled_from(["item", "city", "tag", "place"]), st.sampled_from(["TW", "RW", "CW", "DP"])),
    send=st.dictionaries(st.sampled_from(["item", "tag", "place", "article"]), st.sampled_from(["rows", "ids"])),
    sequences=st.sampled_from([[], ["clicks"], ["clicks", "target"]]),
    weighted=st.booleans(),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(two_ranks, sizes, longest, kinds, send, sequences, weighted) -> None:
    send = {t: s for t, s in send.items() if kinds.get(t) != "DP"}
    options = {"send": send, "sequence_features": sequences, "weighted": weighted}
    results = two_ranks(train, True, {"default": "TW", **kinds}, "adagrad", 2, sizes, options, False, longest)
    assert_judged(results, "adagrad", 2, sizes, weighted=weighted, longest=longest, tolerance=2e-5)


# --- pipeline, first weights, codecs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dedup", [True, False])
@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_every_input_exchange_is_pipelined(two_ranks, sharding: str, dedup: bool, weighted: bool) -> None:
    options = {"weighted": weighted}
    piped = two_ranks(train, dedup, TWO[sharding], "rowwise_adagrad", STEPS, (9, 14), options, True)
    for result in piped:
        assert result["pipelined"] == (1 if dedup else 2 + weighted)
    assert_judged(piped, "rowwise_adagrad", weighted=weighted)


def test_first_weights_do_not_depend_on_the_plan(two_ranks) -> None:
    alone = Embeddings(SCHEMA, TABLES, sequence_features=["clicks"])
    initialize_tables(alone, seed=1)
    for sharding in ("TW", "RW", "CW"):
        results = join_parts(two_ranks(train, True, TWO[sharding], "sgd", 0), "before")
        for name, weight in table_weights(alone).items():
            np.testing.assert_array_equal(results[name], weight.numpy())


@pytest.mark.parametrize(
    ("forward", "backward", "tolerance"), [("fp16", "fp16", 2e-3), ("bf16", "bf16", 2e-2), ("int8", "fp32", 5e-2)]
)
@pytest.mark.parametrize("sharding", ["TW", "RW", "mixed"])
def test_codecs(two_ranks, sharding: str, forward: str, backward: str, tolerance: float) -> None:
    """The outputs are within the codec's rounding of the judge's, and differ from exact ones: something was rounded."""
    codecs = Codecs(forward, backward)
    results = two_ranks(train, True, TWO[sharding], "sgd", 3, (9, 14), {"codecs": codecs})
    assert_judged(results, "sgd", 3, tolerance=tolerance)
    exact = two_ranks(train, True, TWO[sharding], "sgd", 3)
    assert not np.array_equal(results[0]["outputs"][0], exact[0]["outputs"][0])
