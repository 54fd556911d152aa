"""Embeddings on one process: classes of tables, unique rows against the expanded batch, gradients, mistakes."""

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.tables import Embeddings, portable_name, table_weights
from recd_dist.errors import ConfigError
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.ikjt import IKJT

SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),
        Feature("city", Kind.id, "user", "city"),
        Feature("age", Kind.dense, "user"),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("device", Kind.id, "request", "device"),
        Feature("place", Kind.ids, "sample", "place"),
    )
)
TABLES = {
    "item": Table("item", 10, 4),
    "city": Table("city", 5, 8),
    "device": Table("device", 4, 4),
    "place": Table("place", 6, 4),
}
KEYS = ["history", "city", "candidate", "device", "place"]
# sample:      0     1     2     3
SAMPLES = {
    "history": [[7, 8, 8], [7, 8, 8], [], [7, 8, 8]],
    "city": [[1], [1], [4], [1]],
    "candidate": [[5], [6], [5], [0]],
    "device": [[2], [2], [2], [3]],
    "place": [[0, 1], [], [5], [5, 5]],
}


def batch(ids: torch.dtype = torch.int32) -> IKJT:
    rows = [row for key in KEYS for row in SAMPLES[key]]
    kjt = KeyedJaggedTensor(
        KEYS,
        torch.tensor([i for row in rows for i in row], dtype=ids),
        lengths=torch.tensor([len(row) for row in rows], dtype=torch.int32),
    )
    return deduplicate(kjt, {"user": ["history", "city"], "request": ["device"]})


def number_weights(embeddings: Embeddings) -> Embeddings:
    """Sets the weight [row, column] of every table to 100 * row + column."""
    for weight in table_weights(embeddings).values():
        weight.copy_(100 * torch.arange(len(weight))[:, None] + torch.arange(weight.shape[1])[None, :])
    return embeddings


def classes(embeddings: Embeddings) -> list[tuple[str, dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]]:
    return [(c.name, dict(c.stacks), dict(c.tables)) for c in embeddings.classes]


def test_shared_table_is_one_class_of_both_groups() -> None:
    embeddings = Embeddings(SCHEMA, TABLES)
    assert classes(embeddings) == [
        ("user-sample", {"history": ("history", "candidate")}, {"item": ("history",)}),
        ("user", {"city": ("city",)}, {"city": ("city",)}),
        ("request", {"device": ("device",)}, {"device": ("device",)}),
        ("sample", {"place": ("place",)}, {"place": ("place",)}),
    ]
    sent = class_rows(batch(), embeddings.classes[0])
    assert sent.values.tolist() == [7, 8, 8, 5, 6, 5, 0]
    assert (sent.num_rows, sent.lengths.tolist()) == (6, [3, 0, 1, 1, 1, 1])


def test_features_of_one_group_are_keys_of_one_stride() -> None:
    schema = Schema(tuple(Feature(f, Kind.ids, g, "t") for f, g in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]))
    table = {"t": Table("t", 4, 4)}
    assert classes(Embeddings(schema, table)) == [("x-y", {"a": ("a", "c"), "b": ("b", "d")}, {"t": ("a", "b")})]
    uneven = schema.without(["d"])
    assert classes(Embeddings(uneven, table)) == [("x-x-y", {"a": ("a", "b", "c")}, {"t": ("a",)})]


def test_tables_by_ids_are_classes_of_their_own() -> None:
    embeddings = Embeddings(SCHEMA, TABLES, send={"item": "ids", "city": "ids"})
    assert [(c.name, c.send, c.pooled) for c in embeddings.classes] == [
        ("request", "rows", True), ("sample", "rows", True), ("item:ids", "ids", False), ("city:ids", "ids", False)
    ]  # fmt: skip
    sent = class_rows(batch(), embeddings.classes[2])
    assert (sent.num_rows, sent.values.tolist(), sent.lengths) == (7, [7, 8, 8, 5, 6, 5, 0], None)
    all_ids = Embeddings(SCHEMA, TABLES, send={"item": "rows"}, sequence_features=["history"])
    assert [(c.name, c.send, c.pooled) for c in all_ids.classes][-1] == ("item:ids", "rows", False)


def test_rows_stay_unique_and_are_in_schema_order() -> None:
    out = number_weights(Embeddings(SCHEMA, TABLES))(batch())
    user, request, sample = out.pooled["user"], out.pooled["request"], out.pooled["sample"]
    assert (user.keys, user.dims, user.inverse.tolist()) == (("history", "city"), (4, 8), [0, 0, 1, 0])
    assert user["history"].tolist() == [[2300, 2303, 2306, 2309], [0, 0, 0, 0]]
    assert user["city"][:, 0].tolist() == [100, 400]
    assert (request.keys, request.inverse.tolist()) == (("device",), [0, 0, 0, 1])
    assert (sample.keys, sample.inverse) == (("candidate", "place"), None)
    assert sample["candidate"][:, 1].tolist() == [501, 601, 501, 1]
    assert sample["place"][:, 0].tolist() == [100, 0, 500, 1000]


@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("sequences", [(), ("history",)])
@pytest.mark.parametrize("send", ["rows", "ids"])
def test_equals_plain_torchrec(ids: torch.dtype, pooling: str, sequences: tuple[str, ...], send: str) -> None:
    options = {"sequence_features": sequences, "pooling": pooling}
    on = Embeddings(SCHEMA, TABLES, dedup=True, send=dict.fromkeys(TABLES, send), **options)
    off = Embeddings(SCHEMA, TABLES, dedup=False, **options)
    for name, weight in table_weights(off).items():
        weight.copy_(table_weights(on)[name])
    ikjt = batch(ids)
    a, b = on(ikjt).expand(), off(ikjt.expand())
    assert set(b.pooled) == {"sample"}
    assert b.pooled["sample"].keys == tuple(k for k in KEYS if k not in sequences)
    for group in a.pooled.values():
        for key in group.keys:
            torch.testing.assert_close(group[key], b.pooled["sample"][key])
    assert set(a.sequences) == set(b.sequences) == set(sequences)
    for name in sequences:
        torch.testing.assert_close(a.sequences[name].values, b.sequences[name].values, rtol=0, atol=0)
        assert a.sequences[name].lengths.tolist() == b.sequences[name].lengths.tolist() == [3, 3, 0, 3]


def test_dedup_off_expands_a_deduplicated_batch() -> None:
    off = number_weights(Embeddings(SCHEMA, TABLES, dedup=False))
    torch.testing.assert_close(
        off(batch()).pooled["sample"].values, off(batch().expand()).pooled["sample"].values, rtol=0, atol=0
    )


def test_a_class_of_one_group_is_sent_without_a_copy() -> None:
    schema = Schema((Feature("a", Kind.ids, "user", "a"), Feature("b", Kind.ids, "user", "b")))
    ikjt = deduplicate(
        KeyedJaggedTensor(["a", "b"], torch.tensor([1, 2, 3]), lengths=torch.tensor([1, 0, 1, 1], dtype=torch.int32)),
        {"user": ["a", "b"]},
    )
    embeddings = Embeddings(schema, {"a": Table("a", 4, 4), "b": Table("b", 4, 4)})
    sent = class_rows(ikjt, embeddings.classes[0])
    assert sent.values.data_ptr() == ikjt.values.data_ptr()
    assert sent.lengths.data_ptr() == ikjt.lengths.data_ptr()


def test_everything_in_sample_is_plain_torchrec() -> None:
    """Where nothing repeats, dedup=on has the same module and the same KJT as dedup=off."""
    schema = Schema(tuple(Feature(k, Kind.ids, "sample", k) for k in KEYS))
    tables = {k: Table(k, 10, 4) for k in KEYS}
    on, off = Embeddings(schema, tables, dedup=True), Embeddings(schema, tables, dedup=False)
    assert list(on.state_dict()) == list(off.state_dict())
    ikjt = deduplicate(batch().to_kjt(KEYS), {})
    a, b = class_rows(ikjt, on.classes[0]), off.rows(ikjt)
    assert (a.values.data_ptr(), a.lengths.data_ptr()) == (b.values().data_ptr(), b.lengths().data_ptr())


@pytest.mark.parametrize("dedup", [True, False])
def test_sequences_only(dedup: bool) -> None:
    schema = Schema((Feature("history", Kind.ids, "user", "item"),))
    embeddings = Embeddings(schema, {"item": TABLES["item"]}, sequence_features=["history"], dedup=dedup)
    ikjt = batch().select(["history"])
    out = number_weights(embeddings)(ikjt if dedup else ikjt.expand())
    assert out.pooled == {}
    assert out.sequences["history"].expand().values[:, 0].tolist() == [700, 800, 800] * 3


def test_gradients_are_exact_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # TorchRec's unsharded modules end with .float()
    grads = []
    for dedup in (True, False):
        torch.manual_seed(1)
        embeddings = Embeddings(SCHEMA, TABLES, dedup=dedup, sequence_features=["history"]).double()
        for n, weight in enumerate(dict(sorted(table_weights(embeddings).items())).values()):
            weight.copy_(torch.sin(torch.arange(weight.numel(), dtype=torch.float64) + n).view_as(weight))
        out = embeddings(batch() if dedup else batch().expand()).expand()
        parts = {k: g[k] for g in out.pooled.values() for k in g.keys}
        loss = sum((parts[k].sum(1).sin() * torch.arange(1.0, 5)).sum() for k in parts)
        loss = loss + (out.sequences["history"].pool().values ** 3).sum()
        loss.backward()
        names = {portable_name(n): p.grad for n, p in embeddings.named_parameters()}
        grads.append({"loss": loss.detach(), **names})
    on, off = grads
    assert set(on) == set(off) == {"loss", *(f"tables.{t}.weight" for t in TABLES)}
    for name in on:
        assert on[name].abs().sum() > 0
        torch.testing.assert_close(on[name], off[name], rtol=1e-12, atol=1e-12)


def test_portable_names_leave_others_alone() -> None:
    names = {
        "embeddings.pooled.user-sample.embedding_bags.item.weight": "embeddings.tables.item.weight",
        "embeddings.sequences.embeddings.item.weight": "embeddings.tables.item.weight",
        "embeddings.pooled.user.embedding_bags.item.momentum1": "embeddings.tables.item.momentum1",
        "head.layers.0.weight": "head.layers.0.weight",
    }
    assert {n: portable_name(n) for n in names} == names


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="table 'place' has no size; did you mean 'plaza'"):
        Embeddings(SCHEMA, {**{t: TABLES[t] for t in ("item", "city", "device")}, "plaza": TABLES["place"]})
    with pytest.raises(ConfigError, match="'histori' is no id feature; did you mean 'history'"):
        Embeddings(SCHEMA, TABLES, sequence_features=["histori"])
    with pytest.raises(ConfigError, match="one dim, found \\[4, 8\\]"):
        Embeddings(SCHEMA, TABLES, sequence_features=["history", "city"])
    with pytest.raises(ConfigError, match="pooling=max: unknown"):
        Embeddings(SCHEMA, TABLES, pooling="max")
    with pytest.raises(ConfigError, match=r"plan\.send: no table 'itm'; did you mean 'item'"):
        Embeddings(SCHEMA, TABLES, send={"itm": "ids"})
    with pytest.raises(ConfigError, match=r"plan\.send\.item=id: unknown; did you mean 'ids'"):
        Embeddings(SCHEMA, TABLES, send={"item": "id"})
