"""A run goes on under another plan: column-wise tables, whose row-wise optimizer has a number for each shard, too."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recd_dist.checkpoint.state import flatten, initialize_state
from recd_dist.embedding.tables import portable_name
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.run import resume
from recd_dist.train.training import shard_model, train


def _train(ranks: Ranks, overrides: list[str]) -> float:
    return float(train(load("train", overrides), ranks)["loss"])


def _accumulators(ranks: Ranks, overrides: list[str]) -> dict[tuple[int, ...], Any]:
    """This rank's pieces of the state of the table ``item`` after the checkpoint was loaded, by their offsets."""
    job = check(load("train", overrides), ranks.world_size)
    model, optimizer, _ = shard_model(job, ranks)
    initialize_state(optimizer)
    resume(job, ranks, model, optimizer)
    states = flatten({}, optimizer.state_dict(), portable_name).items()
    shards = [s for name, state in states if "tables.item.weight/" in name for s in state.local_shards()]
    return {tuple(s.metadata.shard_offsets): s.tensor.numpy().copy() for s in shards}


def _item_state(two_ranks, overrides: list[str]) -> torch.Tensor:
    pieces: dict[tuple[int, ...], Any] = {}
    for one in two_ranks(_accumulators, overrides):
        pieces |= one
    return torch.cat([torch.from_numpy(pieces[at]).flatten() for at in sorted(pieces)])


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad"])
def test_column_wise_and_back(two_ranks, tiny: list[str], tmp_path: Path, optimizer: str) -> None:
    options = [*tiny, f"run_dir={tmp_path / 'run'}", "batch_size=64", f"optim.tables.name={optimizer}"]
    plan = "plan.tables.item={type: CW, ranks: [0, 1]}"
    two_ranks(_train, [*options, plan, "max_steps=4"])
    split = _item_state(two_ranks, [*options, plan, "max_steps=8"])
    whole = _item_state(two_ranks, [*options, "plan=row_wise", "max_steps=8"])
    if optimizer == "rowwise_adagrad":
        first, second = split.view(2, -1)
        assert not torch.equal(first, second)
        assert torch.allclose(whole, (first + second) / 2)

    losses = two_ranks(_train, [*options, "plan=row_wise", "max_steps=8"])
    assert losses[0] < 0.8
    two_ranks(_train, [*options, plan, "max_steps=12"])
