"""Batches from servers are those of the local reader."""

import pytest
import torch
from tests.reader.conftest import batches, ids_of
from tests.reader.tier.conftest import remote

from recd_dist.reader.transport import BatchLayout, tensors_of


def same(a, b):
    assert BatchLayout.of(a) == BatchLayout.of(b)
    others = tensors_of(b)
    for name, tensor in tensors_of(a).items():
        assert torch.equal(tensor, others[name]), name
        assert others[name].data_ptr() % 64 == 0


@pytest.mark.parametrize("num_servers", [1, 2, 3])
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_batches_are_those_of_as_many_workers(serve, small, num_servers, compression):
    services = [serve(small.path) for _ in range(num_servers)]
    found = batches(small, servers=remote(*services, compression=compression))
    wanted = batches(small, num_workers=num_servers if num_servers > 1 else 0)
    for a, b in zip(wanted, found, strict=True):
        same(a, b)
    assert sorted(ids_of(found)) == list(range(len(small.samples)))
