"""Batch: ids, dense features and labels together, deduplicated or expanded."""

import pickle

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.tensors.batch import Batch
from recd_dist.tensors.deduplicate import deduplicate


@pytest.fixture
def batch() -> Batch:
    kjt = KeyedJaggedTensor(
        keys=["u", "c"], values=torch.tensor([7, 7, 8, 1, 2, 3]), lengths=torch.ones(6, dtype=torch.int32), stride=3
    )
    return Batch(
        sparse=deduplicate(kjt, {"user": ["u"]}),
        dense={"user": torch.tensor([[0.5, 0.6], [0.7, 0.8]]), "sample": torch.tensor([[1.0], [2.0], [3.0]])},
        labels=torch.tensor([[0.0], [1.0], [0.0]]),
        sample_ids=torch.tensor([10, 11, 12]),
        request_ids=torch.tensor([1, 1, 2]),
    )


def test_dense_rows_share_the_inverse(batch: Batch) -> None:
    assert batch.batch_size == 3
    user = batch.dense_of("user")
    assert (user.num_rows, user.batch_size) == (2, 3)
    assert user.expand()[:, 0].tolist() == pytest.approx([0.5, 0.5, 0.7])
    assert batch.dense_of("sample").inverse is None


def test_expand(batch: Batch) -> None:
    full = batch.expand()
    assert full.sparse.dedup_groups == ()
    assert full.sparse.values_of("u").tolist() == [7, 7, 8]
    assert list(full.dense) == ["sample"]
    torch.testing.assert_close(full.dense["sample"], torch.tensor([[0.5, 0.6, 1.0], [0.5, 0.6, 2.0], [0.7, 0.8, 3.0]]))
    assert full.labels is batch.labels
    assert full.expand().dense["sample"].tolist() == full.dense["sample"].tolist()


def test_expand_without_dense(batch: Batch) -> None:
    plain = Batch(batch.sparse, {}, batch.labels, batch.sample_ids, batch.request_ids)
    assert plain.expand().dense == {}


def test_pickle_and_moves(batch: Batch) -> None:
    for other in (pickle.loads(pickle.dumps(batch)), batch.to(device=torch.device("cpu"))):
        assert repr(other.sparse) == repr(batch.sparse)
        assert {g: t.tolist() for g, t in other.dense.items()} == {g: t.tolist() for g, t in batch.dense.items()}
        assert other.sample_ids.tolist() == [10, 11, 12]
        assert other.request_ids.tolist() == [1, 1, 2]
        assert other.labels.tolist() == batch.labels.tolist()
    batch.record_stream(None)  # type: ignore[arg-type]


def test_expand_some_groups(batch: Batch) -> None:
    full = batch.expand(["user"])
    assert [(g.name, g.keys) for g in full.sparse.groups] == [("sample", ("u", "c"))]
    assert torch.equal(full.dense["sample"], batch.expand().dense["sample"])
    same = batch.expand([])
    assert same.sparse.groups == batch.sparse.groups
    assert torch.equal(same.sparse.inverse, batch.sparse.inverse)
    assert list(same.dense) == ["user", "sample"]


def test_a_device_gets_what_the_model_needs(batch: Batch) -> None:
    """Ids of samples and requests are read on the host only; lengths and inverse are known there as well."""
    moved = batch.to(device=torch.device("meta"))
    assert {t.device.type for t in (moved.labels, moved.sparse.values, *moved.dense.values())} == {"meta"}
    assert moved.sample_ids is batch.sample_ids
    assert moved.request_ids is batch.request_ids
    for known in (batch.sparse, moved.sparse, moved.to(device=torch.device("meta")).sparse):
        assert known.known_lengths_of("u").tolist() == batch.sparse.lengths_of("u").tolist()
        assert known.known_inverse_of("user").tolist() == [0, 0, 1]
        assert known.known_inverse_of("sample") is None
    assert moved.sparse.select(["u"]).known_lengths_of("u") is None
    assert moved.dense_of("user").known_inverse.tolist() == [0, 0, 1]
