"""Blocks in which batches are made: where they lie, when a block is used again, and what the other side gets."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.reader.test_transport import a_batch, assert_same

from recd_dist.reader.shared_blocks import BlockWriter, SharedBlocks
from recd_dist.tensors.batch import Batch


def make(blocks: SharedBlocks, number: int = 0, size: int = 100) -> tuple[Batch, object]:
    """A batch whose sample ids were made in a block, and what is handed over."""
    writer = blocks.open()
    ids = writer.empty(size, np.int64)
    ids[:] = np.arange(size) + number
    batch = a_batch(torch.int32, {})
    kept = {n: torch.from_numpy(writer.empty(t.shape, t.numpy().dtype)) for n, t in tensors_to_move(batch)}
    for name, tensor in tensors_to_move(batch):
        kept[name].copy_(tensor)
    sparse = type(batch.sparse)(
        batch.sparse.groups, 4, kept["values"], kept["lengths"], kept["inverse"], batch.sparse.value_offsets
    )
    made = Batch(sparse, {}, kept["labels"], torch.from_numpy(ids), kept["request_ids"], None)
    return made, blocks.pack(made, writer)


def tensors_to_move(batch: Batch) -> list[tuple[str, torch.Tensor]]:
    named = {name: getattr(batch.sparse, name) for name in ("values", "lengths", "inverse")}
    return [*named.items(), ("labels", batch.labels), ("request_ids", batch.request_ids)]


def receive(packed):
    """What the trainer has after the batch went through a queue; without the file that a queue sends along."""
    function, arguments = packed.__reduce__()
    return function(*arguments)


@pytest.mark.parametrize("dense", [{}, {"empty": torch.rand(1, 3), "sample": torch.rand(4, 1)}])
@pytest.mark.parametrize(("weights", "sessions"), [(None, None), (torch.rand(8), torch.arange(4) * 3)])
def test_a_batch_of_other_memory_is_copied(dense, weights, sessions):
    blocks, batch = SharedBlocks(), a_batch(torch.int64, dense, weights, sessions)
    packed = blocks.pack(batch, blocks.open())
    assert packed.block.is_shared()
    assert_same(batch, receive(packed).unpack())


def test_what_was_made_in_a_block_stays_where_it_is():
    blocks = SharedBlocks()
    make(blocks)  # tells how large batches are
    batch, packed = make(blocks, 7)
    found = packed.unpack()
    assert found.sample_ids.data_ptr() == batch.sample_ids.data_ptr()
    assert_same(batch, found)
    assert all(t.data_ptr() % 64 == 0 for _, t in tensors_to_move(found))


@pytest.mark.parametrize("num_bytes", range(64, 700, 20))
def test_a_layout_never_counts_more_bytes_than_the_block_has(num_bytes):
    batch = a_batch(torch.int32, {})
    for size in (1, 8, 15, 16, 17):
        writer = BlockWriter(torch.empty(num_bytes, dtype=torch.uint8))
        arrays = {}
        for name, tensor in [*tensors_to_move(batch), ("sample_ids", torch.arange(size))]:
            arrays[name] = torch.from_numpy(writer.empty(tuple(tensor.shape), tensor.numpy().dtype))
        sparse = replace(batch.sparse, **{name: arrays[name] for name in ("values", "lengths", "inverse")})
        others = {name: arrays[name] for name in ("labels", "sample_ids", "request_ids")}
        layout = writer.find(replace(batch, sparse=sparse, **others))
        assert layout is None or layout.num_bytes <= num_bytes


def test_a_block_is_used_again_when_the_last_tensor_is_gone():
    blocks = SharedBlocks()
    make(blocks)
    batch, packed = make(blocks, 1)
    first = packed.block.data_ptr()
    found = receive(packed).unpack()
    kept, doubled = found.sample_ids[3:5], found.labels
    del batch, packed, found
    assert make(blocks, 2)[1].block.data_ptr() != first
    assert kept.tolist() == [4, 5]
    loss = (doubled.requires_grad_() * 2).sum()  # the graph holds the tensor
    del kept, doubled
    assert make(blocks, 3)[1].block.data_ptr() != first
    loss.backward()
    del loss
    gc.collect()
    assert make(blocks, 4)[1].block.data_ptr() == first


def test_a_batch_that_nobody_unpacks_gives_its_block_back():
    blocks = SharedBlocks()
    make(blocks)
    first = make(blocks)[1]
    address = first.block.data_ptr()
    receive(first)
    assert make(blocks)[1].block.data_ptr() == address


def test_blocks_grow_with_batches_and_small_ones_are_let_go():
    blocks = SharedBlocks()
    for size in (100, 100, 5000, 5000, 100):
        batch, packed = make(blocks, 9, size)
        assert_same(batch, receive(packed).unpack())
    assert len(blocks._blocks) == 1


def test_few_free_blocks_are_kept():
    blocks = SharedBlocks()
    held = [receive(make(blocks)[1]) for _ in range(30)]
    assert len(blocks._blocks) == 30
    del held
    make(blocks)
    assert len(blocks._blocks) < 10
