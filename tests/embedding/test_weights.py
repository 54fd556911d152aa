"""Lists with a weight for each id: their sums, their means, their un-pooled vectors, and plain TorchRec's gradients."""

from dataclasses import replace

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.tables import Embeddings, portable_name, table_weights
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.ikjt import IKJT

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item", weights="heat"),
        Feature("shops", Kind.ids, "user", "shop"),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("places", Kind.ids, "sample", "place", weights="near"),
    )
)
TABLES = {"item": Table("item", 10, 4), "shop": Table("shop", 6, 4), "place": Table("place", 6, 4)}
KEYS = ["history", "shops", "candidate", "places"]
# sample:      0                1                2       3
SAMPLES = {
    "history": [[7, 8, 8],       [7, 8, 8],       [],     [7, 8, 8]],
    "shops": [[1],               [1],             [4],    [1]],
    "candidate": [[5],           [6],             [5],    [0]],
    "places": [[0, 1],           [],              [5],    [5, 5]],
}  # fmt: skip
WEIGHTS = {
    "history": [[0.5, 2.0, -1.0], [0.5, 2.0, -1.0], [],   [0.5, 2.0, 3.0]],
    "places": [[1.0, 0.0],       [],              [-2.0], [0.25, 0.5]],
}  # fmt: skip


def batch(weighted: bool = True) -> IKJT:
    rows = [row for key in KEYS for row in SAMPLES[key]]
    weights = [w for key in KEYS for row in WEIGHTS.get(key, [[1.0] * len(row) for row in SAMPLES[key]]) for w in row]
    kjt = KeyedJaggedTensor(
        KEYS,
        torch.tensor([i for row in rows for i in row], dtype=torch.int32),
        weights=torch.tensor(weights) if weighted else None,
        lengths=torch.tensor([len(row) for row in rows], dtype=torch.int32),
    )
    return deduplicate(kjt, {"user": ["history", "shops"]})


def number_rows(embeddings: Embeddings) -> Embeddings:
    """Sets every column of row i of every table to i + 1."""
    for weight in table_weights(embeddings).values():
        weight.copy_((torch.arange(len(weight)) + 1)[:, None].expand_as(weight))
    return embeddings


def test_rows_that_differ_in_weights_are_two() -> None:
    assert batch().inverse_of("user").tolist() == [0, 0, 1, 2]
    assert batch(weighted=False).inverse_of("user").tolist() == [0, 0, 1, 0]


def test_only_tables_that_have_weights_are_sent_some() -> None:
    embeddings = Embeddings(SCHEMA, TABLES)
    assert [(c.name, list(c.tables), c.weighted) for c in embeddings.classes] == [
        ("user-sample:weighted", ["item"], True),
        ("user", ["shop"], False),
        ("sample:weighted", ["place"], True),
    ]
    item, shop, place = (class_rows(batch(), c).weights for c in embeddings.classes)
    assert item.tolist() == [0.5, 2.0, -1.0, 0.5, 2.0, 3.0, 1, 1, 1, 1]  # candidates have no weights, which counts as 1
    assert shop is None
    assert place.tolist() == [1.0, 0.0, -2.0, 0.25, 0.5]
    by_ids = Embeddings(SCHEMA, TABLES, send=dict.fromkeys(TABLES, "ids"))
    assert not any(c.weighted for c in by_ids.classes)


@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("dedup", [True, False])
def test_vectors_are_multiplied_then_summed(dedup: bool, send: str) -> None:
    embeddings = number_rows(Embeddings(SCHEMA, TABLES, dedup=dedup, send=dict.fromkeys(TABLES, send)))
    out = embeddings(batch() if dedup else batch().expand()).expand()
    vectors = {k: g[k][:, 0].tolist() for g in out.pooled.values() for k in g.keys}
    assert vectors == {
        "history": [8 * 0.5 + 9 * 2 - 9, 8 * 0.5 + 9 * 2 - 9, 0, 8 * 0.5 + 9 * 2 + 9 * 3],
        "shops": [2, 2, 5, 2],
        "candidate": [6, 7, 6, 1],
        "places": [1.0, 0, 6 * -2, 6 * 0.75],
    }


@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("dedup", [True, False])
def test_a_mean_is_the_sum_over_the_number_of_ids(dedup: bool, send: str) -> None:
    embeddings = number_rows(Embeddings(SCHEMA, TABLES, dedup=dedup, pooling="mean", send=dict.fromkeys(TABLES, send)))
    out = embeddings(batch() if dedup else batch().expand()).expand()
    vectors = {k: g[k][:, 0].tolist() for g in out.pooled.values() for k in g.keys}
    assert vectors["history"] == pytest.approx([13 / 3, 13 / 3, 0, 49 / 3])
    assert vectors["places"] == [0.5, 0, -12, 2.25]


@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("dedup", [True, False])
def test_un_pooled_vectors_are_multiplied_too(dedup: bool, send: str) -> None:
    options = {"sequence_features": ["history"], "send": {"item": send}}
    embeddings = number_rows(Embeddings(SCHEMA, TABLES, dedup=dedup, **options))
    out = embeddings(batch() if dedup else batch().expand()).expand()
    assert out.sequences["history"].lengths.tolist() == [3, 3, 0, 3]
    assert out.sequences["history"].values[:, 0].tolist() == [4, 18, -9, 4, 18, -9, 4, 18, 27]
    assert out.pooled["sample"]["candidate"][:, 0].tolist() == [6, 7, 6, 1]


def test_expanded_tables_with_weights_are_a_module_of_their_own() -> None:
    """A TorchRec module takes weights or does not; a sharded one uses whatever weights the batch has."""
    off = Embeddings(SCHEMA, TABLES, dedup=False)
    assert {n: (m.is_weighted(), [c.name for c in m.embedding_bag_configs()]) for n, m in off.pooled.items()} == {
        "sample": (False, ["shop"]),
        "weighted": (True, ["item", "place"]),
    }
    plain, weighted = off.rows(batch()), off.weighted_rows(batch())
    assert plain.weights_or_none() is None
    assert weighted["history"].weights().tolist() == [x for row in WEIGHTS["history"] for x in row]
    assert weighted["candidate"].weights().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("sequences", [(), ("history",)])
@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_gradients_are_those_of_plain_torchrec(pooling: str, send: str, sequences: tuple[str, ...]) -> None:
    grads = []
    for dedup in (True, False):
        options = {"pooling": pooling, "sequence_features": sequences, "send": dict.fromkeys(TABLES, send)}
        embeddings = number_rows(Embeddings(SCHEMA, TABLES, dedup=dedup, **options))
        out = embeddings(batch() if dedup else batch().expand()).expand()
        parts = {k: g[k] for g in out.pooled.values() for k in g.keys}
        parts |= {f: s.pool().values for f, s in out.sequences.items()}
        loss = sum((parts[k] * torch.arange(1.0, 5)[:, None] * (n + 1)).square().sum() for n, k in enumerate(KEYS))
        loss.backward()
        grads.append({portable_name(n): p.grad for n, p in embeddings.named_parameters()})
    on, off = grads
    assert set(on) == set(off) == {f"tables.{t}.weight" for t in TABLES}
    for name in on:
        assert on[name].abs().sum() > 0
        torch.testing.assert_close(on[name], off[name])


@pytest.mark.parametrize("dedup", [True, False])
def test_weights_are_neither_ignored_nor_made_up(dedup: bool) -> None:
    without = SCHEMA.without(["heat", "near"])
    with pytest.raises(ValueError, match=r"carries weights, which no feature of the schema has; name them there"):
        Embeddings(without, TABLES, dedup=dedup)(batch())
    with pytest.raises(ValueError, match=r"features of the schema have weights, but this batch carries none"):
        Embeddings(SCHEMA, TABLES, dedup=dedup)(batch(weighted=False))
    assert Embeddings(without, TABLES, dedup=dedup)(replace(batch(), weights=None)).pooled
