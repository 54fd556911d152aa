"""Rows that are windows on one process: the vectors and gradients of lists; each stored id is looked up once."""

import pytest
import torch
from tests.tensors.kjts import kjt_of

from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.tables import Embeddings
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.find_windows import find_windows
from recd_dist.tensors.ikjt import IKJT

TABLES = {"item": Table("item", 10, 4), "shop": Table("shop", 5, 4)}
SAMPLES = {
    "history": [[1, 2, 3], [1, 2, 3], [2, 3, 4], [9]],
    "shops": [[1, 1], [1, 1], [1, 2], []],
    "candidate": [[2], [9], [9], [1]],
}
WEIGHTS = {
    "history": [[0.5, 1.0, 2.0], [0.5, 1.0, 2.0], [1.0, 2.0, -1.0], [3.0]],
    "shops": [[1.0, 2.0], [1.0, 2.0], [2.0, 0.5], []],
    "candidate": [[1.0], [1.0], [1.0], [1.0]],
}


def schema(weighted: bool) -> Schema:
    heat, near = ("heat", "near") if weighted else (None, None)
    return Schema(
        (
            Feature("history", Kind.ids, "user", "item", weights=heat),
            Feature("shops", Kind.ids, "user", "shop", weights=near),
            Feature("candidate", Kind.id, "sample", "item"),
        )
    )


def lists(weighted: bool = False) -> IKJT:
    return deduplicate(kjt_of(SAMPLES, WEIGHTS if weighted else None), {"user": ["history", "shops"]})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("sequences", [[], ["history"]])
@pytest.mark.parametrize("send", ["rows", "ids"])
@pytest.mark.parametrize("dedup", [True, False])
def test_vectors_and_gradients(weighted: bool, pooling: str, sequences: list[str], send: str, dedup: bool) -> None:
    options = {"pooling": pooling, "sequence_features": sequences, "dedup": dedup}
    embeddings = Embeddings(schema(weighted), TABLES, send=dict.fromkeys(TABLES, send), **options)
    windows = find_windows(lists(weighted), ["history", "shops"])
    assert windows.windows == ("history", "shops")
    found = []
    for batch in (windows, lists(weighted)):
        embeddings.zero_grad()
        out = embeddings(batch).expand()
        parts = [*(g.values for g in out.pooled.values()), *(s.values for s in out.sequences.values())]
        sum((p * torch.arange(p.numel()).view(p.shape)).sum() for p in parts).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embeddings.parameters())
        found.append([*parts, *(p.grad.clone() for p in embeddings.parameters())])
        assert [s.lengths.tolist() for s in out.sequences.values()] == [[3, 3, 3, 1] for _ in sequences]
    for window, wanted in zip(*found, strict=True):
        torch.testing.assert_close(window, wanted)


def test_ids_that_windows_share_are_looked_up_once_and_lists_are_made_where_tables_pool() -> None:
    windows = find_windows(lists(), ["history", "shops"])
    embeddings = Embeddings(schema(False), TABLES, send={"item": "ids", "shop": "rows"})
    shops, items = embeddings.classes
    assert class_rows(windows, items).values.tolist() == [1, 2, 3, 4, 9, 2, 9, 9, 1]
    assert class_rows(windows, shops).values.tolist() == [1, 1, 1, 2]
    assert class_rows(windows, shops).lengths.tolist() == [2, 2, 0]
