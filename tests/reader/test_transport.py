import json
from dataclasses import replace

import pytest
import torch

from recd_dist.reader.transport import BatchLayout, PackedBatch, tensors_of
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout

GROUPS = (GroupLayout("history", ("item", "shop"), 2), GroupLayout("empty", (), 1), GroupLayout("sample", ("cand",), 4))


def a_batch(dtype, dense, weights=None, sessions=None):
    ikjt = IKJT(
        groups=GROUPS,
        batch_size=4,
        values=torch.tensor([7, 8, 9, 1, 5, 6, 5, 5], dtype=dtype),
        lengths=torch.tensor([2, 1, 1, 0, 1, 1, 1, 1], dtype=torch.int32),
        inverse=torch.tensor([0, 0, 1, 0, 0, 0, 0, 0], dtype=torch.int32),
        value_offsets=(0, 3, 4, 8),
        weights=weights,
    )
    return Batch(ikjt, dense, torch.rand(4, 2), torch.arange(4), torch.arange(4) * 2, sessions)


def assert_same(batch, found):
    assert found.sparse.groups == batch.sparse.groups
    assert found.sparse.value_offsets == batch.sparse.value_offsets
    assert found.dense.keys() == batch.dense.keys()
    mine, theirs = tensors_of(batch), tensors_of(found)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dense", [{}, {"empty": torch.rand(1, 3), "sample": torch.rand(4, 1)}])
@pytest.mark.parametrize("weights", [None, torch.rand(8)])
@pytest.mark.parametrize("sessions", [None, torch.arange(4) * 3])
def test_the_other_side_has_the_same_batch(dtype, dense, weights, sessions):
    batch = a_batch(dtype, dense, weights, sessions)
    layout = BatchLayout.of(batch)
    block = torch.empty(layout.num_bytes, dtype=torch.uint8)
    layout.fill(block, batch)
    assert_same(batch, PackedBatch(block, layout).unpack())
    assert all(place.start % 64 == 0 for place in layout.tensors)


def test_every_tensor_takes_whole_cache_lines_of_the_block():
    assert BatchLayout.of(a_batch(torch.int32, {})).num_bytes == 6 * 64
    assert BatchLayout.of(a_batch(torch.int32, {}, torch.rand(8)), first=64).num_bytes == 8 * 64


def test_a_layout_goes_through_json():
    layout = BatchLayout.of(a_batch(torch.int64, {"sample": torch.rand(4, 1)}, torch.rand(8), torch.arange(4)))
    assert BatchLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert [place.name for place in layout.tensors] == [
        "values", "lengths", "inverse", "weights", "labels", "sample_ids", "request_ids", "session_ids", "dense.sample",
    ]  # fmt: skip


@pytest.mark.parametrize("weights", [None, torch.rand(8)])
@pytest.mark.parametrize("sessions", [None, torch.arange(4) * 3])
def test_windows_travel(weights, sessions):
    batch = a_batch(torch.int32, {"empty": torch.rand(1, 3)}, weights, sessions)
    starts = torch.tensor([1, 0, 0, 1], dtype=torch.int32)
    windowed = replace(batch, sparse=replace(batch.sparse, windows=("item", "shop"), starts=starts))
    layout = BatchLayout.of(windowed)
    assert BatchLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    block = torch.empty(layout.num_bytes, dtype=torch.uint8)
    layout.fill(block, windowed)
    found = layout.unpack(block)
    assert found.sparse.windows == ("item", "shop")
    assert torch.equal(found.sparse.starts, starts)
    assert (found.sparse.weights is None) == (weights is None)
    assert (found.session_ids is None) == (sessions is None)
    assert found.sparse.as_lists("item", found.sparse.values_of("item")).tolist() == [8, 9, 7]
