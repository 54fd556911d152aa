import json
from dataclasses import replace

import pytest
import torch

from recd_dist.reader.transport import BatchLayout, pack
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


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dense", [{}, {"empty": torch.rand(1, 3), "sample": torch.rand(4, 1)}])
@pytest.mark.parametrize("weights", [None, torch.rand(8)])
@pytest.mark.parametrize("sessions", [None, torch.arange(4) * 3])
def test_the_other_side_has_the_same_batch(dtype, dense, weights, sessions):
    batch = a_batch(dtype, dense, weights, sessions)
    packed = pack(batch)
    assert packed.block.is_shared()
    found = packed.unpack()
    assert found.sparse.groups == GROUPS
    assert found.sparse.value_offsets == (0, 3, 4, 8)
    assert found.dense.keys() == dense.keys()
    assert (found.sparse.weights is None) == (weights is None)
    assert (found.session_ids is None) == (sessions is None)
    for a, b in [
        *((getattr(batch, n), getattr(found, n)) for n in ("labels", "sample_ids", "request_ids")),
        *((getattr(batch.sparse, n), getattr(found.sparse, n)) for n in ("values", "lengths", "inverse")),
        *((dense[g], found.dense[g]) for g in dense),
        *([] if weights is None else [(weights, found.sparse.weights)]),
        *([] if sessions is None else [(sessions, found.session_ids)]),
    ]:
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
        assert b.data_ptr() % 64 == 0


def test_every_tensor_takes_whole_cache_lines_of_the_block():
    assert pack(a_batch(torch.int32, {})).block.nbytes == 6 * 64
    assert pack(a_batch(torch.int32, {}, torch.rand(8))).block.nbytes == 7 * 64


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
    found = pack(windowed).unpack()
    assert found.sparse.windows == ("item", "shop")
    assert torch.equal(found.sparse.starts, starts)
    assert (found.sparse.weights is None) == (weights is None)
    assert (found.session_ids is None) == (sessions is None)
    assert found.sparse.as_lists("item", found.sparse.values_of("item")).tolist() == [8, 9, 7]
