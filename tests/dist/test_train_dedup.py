"""A whole job on two ranks, dedup=on against dedup=off: the same batches give the same losses and the same tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks
from recd_dist.train import build
from recd_dist.train.training import shard_model, start_pipeline

NUM_STEPS = 20


def _trained(ranks: Ranks, overrides: list[str]) -> tuple[list[float], list[int], dict[str, Any], dict[str, Any]]:
    """Losses, batch sizes, and this rank's pieces of the tables before and after."""
    job = check(load("train", overrides), ranks.world_size)
    transforms = job.transforms.fitted(job.table)
    model, optimizer, _ = shard_model(job, ranks)
    pipeline = start_pipeline(model, optimizer, ranks.device)
    before = _tables(model)
    losses, sizes = [], []
    loader = build.build_loader(job, ranks, transforms)
    batches = iter(loader)
    for _ in range(NUM_STEPS):
        loss, _, batch = pipeline.progress(batches)
        losses.append(float(loss))
        sizes.append(batch.batch_size)
    loader.close()
    return losses, sizes, before, _tables(model)


def _tables(model: Any) -> dict[str, Any]:
    found = {}
    for name, value in model.state_dict().items():
        for shard in value.local_shards() if hasattr(value, "local_shards") else []:
            found[name.split(".")[-2], tuple(shard.metadata.shard_offsets)] = shard.tensor.numpy().copy()
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["model=dlrm"],
        ["model=sequence"],
        ["model=dlrm", "plan.expand=[history]", "plan.send.item=ids"],
        ["model=sequence", "plan.expand=[profile]", "plan.send.item=rows"],
        ["model=sequence", "plan.expand=[history]"],
        ["model=sequence", "plan.expand=[history,profile]"],
    ],
    ids=[
        "dlrm",
        "sequence",
        "dlrm, expanded",
        "sequence, expanded",
        "sequence, history expanded",
        "sequence, all expanded",
    ],
)
def test_losses_and_tables_agree(two_ranks, tiny: list[str], tmp_path: Path, options: list[str]) -> None:
    # Adagrad turns a gradient that is nothing but rounding into a whole step, unless eps is above the rounding.
    steady = ["optim.dense.eps=1e-4", "optim.tables.eps=1e-4"]
    overrides = [*tiny, *options, *steady, "batch_size=64", f"run_dir={tmp_path / 'run'}", "plan=row_wise"]
    on = two_ranks(_trained, [*overrides, "dedup=on"])
    off = two_ranks(_trained, [*overrides, "dedup=off"])

    for (losses, sizes, before, after), (plain, plain_sizes, plain_before, plain_after) in zip(on, off, strict=True):
        assert sizes == plain_sizes
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        assert before.keys() == plain_before.keys()
        assert {name for name, _ in before} == {"item", "category", "region", "device", "position"}
        for name, weights in after.items():
            np.testing.assert_array_equal(before[name], plain_before[name])
            np.testing.assert_allclose(weights, plain_after[name], atol=1e-4, err_msg=str(name))
            assert np.abs(weights - before[name]).max() > 0.01, f"{name} was not trained"
