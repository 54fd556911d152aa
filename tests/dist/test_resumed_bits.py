"""A run of four ranks that goes on from a checkpoint has the bits of one that nothing has interrupted."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recd_dist.checkpoint.stored_tensors import StoredTensors, compare
from recd_dist.embedding.gradient_buckets import FixedBuckets
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.training import train

WIDTHS = [40, 700, 700, 30, 1]
"""A model of more than one bucket, with layers that are not of one size."""


def _gradients(ranks: Ranks, kind: type[DistributedDataParallel]) -> list[list[np.ndarray]]:
    """The gradients of the same batch in four steps."""
    torch.manual_seed(1)
    layers = [layer for pair in pairwise(WIDTHS) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = kind(nn.Sequential(*layers[:-1]), gradient_as_bucket_view=True, static_graph=True)
    batch = torch.randn(16, WIDTHS[0], generator=torch.Generator().manual_seed(ranks.rank))
    found = []
    for _ in range(4):
        model.zero_grad()
        model(batch).square().mean().backward()
        found.append([parameter.grad.numpy().copy() for parameter in model.parameters()])
    return found


def test_gradients_are_added_up_in_one_order_from_the_first_step_on(four_ranks) -> None:
    for first, *others in four_ranks(_gradients, FixedBuckets):
        for step in others:
            assert all(map(np.array_equal, first, step))


def test_upstream_adds_up_its_first_steps_in_another_order(four_ranks) -> None:
    """Guard: once torch's DDP does not, `embedding/gradient_buckets.py` has nothing left to do."""
    first, _, third, fourth = four_ranks(_gradients, DistributedDataParallel)[0]
    assert not all(map(np.array_equal, first, third))
    assert all(map(np.array_equal, third, fourth))


def _train_in_parts(ranks: Ranks, overrides: list[str], ends: list[int]) -> None:
    for end in ends:
        train(load("train", [*overrides, f"max_steps={end}"]), ranks)


@pytest.mark.parametrize("plan", ["plan=row_wise", "plan.sharding=data_parallel"])
def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(
    four_ranks, tiny: list[str], tmp_path: Path, plan: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*tiny, "batch_size=32", "model=dlrm", plan]
    four_ranks(_train_in_parts, [*options, f"run_dir={whole}"], [8])
    four_ranks(_train_in_parts, [*options, f"run_dir={parts}"], [3, 5, 8])
    one, other = (StoredTensors(run / "checkpoints/step-00000008") for run in (whole, parts))
    differing = {name: what for name, what, _ in compare(one, other) if what}
    assert not differing
    assert len(one.kinds) > 10
