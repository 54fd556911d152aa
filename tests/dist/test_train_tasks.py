"""Several tasks on ranks: losses over all ranks' samples, and dedup=on against dedup=off with weights and gaps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recd_dist.cli import main
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.model.loss import TaskLosses
from recd_dist.model.task import Task
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import shard_model, start_pipeline, train

NUM_STEPS = 50
TASKS = [
    "tasks.clicked.loss=binary",
    "tasks.liked={loss: binary, weight: 0.5}",
    "tasks.watch_s={loss: regression, weight: 0.2}",
    "tasks.chosen={label: clicked, loss: softmax, no_positive: skip}",
]

# --- the losses alone ---

MIXED = [
    Task("clicked", "clicked"),
    Task("watch", "watch", "regression", 0.3, mean=2.0, std=3.0),
    Task("chosen", "clicked", "softmax"),
]


def _rows(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels (clicked, watch, weight) and requests; rank 1 has fewer labels and larger weights."""
    generator = torch.Generator().manual_seed(rank)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    labels = torch.rand(6, 3, generator=generator) * (1 + 4 * rank)
    labels[:, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, math.nan if rank else 1.0])
    labels[1 : 2 + 2 * rank, 1] = math.nan
    return logits, labels, torch.tensor([0, 0, 1, 1, 2, 2])


def _gradient(ranks: Ranks) -> tuple[float, np.ndarray]:
    logits, labels, requests = _rows(ranks.rank)
    losses = TaskLosses(MIXED, [0, 1, 0], weight=2).double()
    loss, _ = losses(logits.requires_grad_(), labels, losses.count(labels), requests)
    loss.backward()
    return loss.item(), logits.grad.numpy()


def test_the_mean_over_ranks_is_that_over_all_samples(two_ranks) -> None:
    """Though ranks have other numbers of labels and other weights: loss and gradients."""
    found = two_ranks(_gradient)
    logits, labels, requests = (torch.cat(of) for of in zip(_rows(0), _rows(1), strict=True))
    requests[6:] += 3
    losses = TaskLosses(MIXED, [0, 1, 0], weight=2).double()
    whole, _ = losses(logits.requires_grad_(), labels, losses.count(labels), requests)
    whole.backward()
    assert np.mean([loss for loss, _ in found]) == pytest.approx(whole.item(), rel=1e-6)
    gradient = np.concatenate([grad for _, grad in found]) / 2  # as data-parallel training averages it
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-6, atol=1e-9)


def _gradient_of_a_cut_request(ranks: Ranks) -> float:
    """A request of four candidates of which each rank has two; the one that is chosen is on rank 0."""
    losses = TaskLosses([Task("chosen", "chosen", "softmax")], [0])
    labels = torch.tensor([[1.0], [0.0]]) if ranks.is_first else torch.zeros(2, 1)
    loss, _ = losses(torch.zeros(2, 1), labels, losses.count(labels), torch.tensor([0, 0]))
    return loss.item()


def test_a_request_that_is_cut_is_one_request_on_each_rank(two_ranks) -> None:
    """The piece with the positive is a choice among two, and counts once; the other one adds nothing."""
    assert np.mean(two_ranks(_gradient_of_a_cut_request)) == pytest.approx(math.log(2))


# --- whole jobs ---


def raw_logs(num_requests: int = 700) -> pa.Table:
    """Requests of a few candidates; half of the likes are missing, watch times are there where it was clicked."""
    random = np.random.default_rng(0)
    taste = random.normal(size=60)
    rows = []
    for request in range(num_requests):
        history = random.integers(0, 60, 8).tolist()
        for _ in range(random.integers(2, 7)):
            item = int(random.integers(0, 60))
            clicked = float(random.random() < 1 / (1 + math.exp(-taste[item])))
            rows.append(
                {
                    "session": request // 3,
                    "request": request,
                    "t": request,
                    "clicked": clicked,
                    "liked": float(taste[item] > 0.3) if random.random() < 0.5 else None,
                    "watch_s": 60 + 30 * taste[item] if clicked else None,
                    "importance": float(random.integers(0, 4)),
                    "history": history,
                    "item": item,
                    "price": float(random.normal()),
                }
            )
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a table with three labels and a weight."""
    path = tmp_path_factory.mktemp("tasks")
    pq.write_table(raw_logs(), path / "raw.parquet")
    overrides = [
        "data=parquet",
        f"data.path={path / 'raw.parquet'}",
        f"data.table={path / 'table'}",
        "data.keys={session: session, request: request, timestamp: t}",
        "data.labels=[clicked,liked,watch_s]",
        "data.weight=importance",
        "data.policy.unlabelled=keep",
        "data.split=0.2",
        "data.groups={user: [history]}",
        "data.features.history={table: item, window: false}",
    ]
    assert main(["etl", *overrides, "row_group_samples=256"]) == 0
    return overrides


def _train_steps(ranks: Ranks, overrides: list[str]) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    """Losses, and this rank's weights before and after: pieces of the tables, and the dense layers."""
    job = check(load("train", overrides), ranks.world_size)
    model, optimizer, _ = shard_model(job, ranks)
    pipeline = start_pipeline(model, optimizer, ranks.device)
    before = _weights(model)
    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    losses = []
    while len(losses) < NUM_STEPS:
        batches = iter(loader)
        while (output := _step(pipeline, batches)) is not None:
            losses.append(float(output.loss))
        loader.start_epoch(loader.epoch + 1)
    loader.close()
    return losses, before, _weights(model)


def _step(pipeline: Any, batches: Any) -> build.Output | None:
    try:
        return pipeline.progress(batches)
    except StopIteration:
        return None


def _weights(model: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, value in model.state_dict().items():
        if hasattr(value, "local_shards"):
            for shard in value.local_shards():
                found[f"{name.split('.')[-2]}{shard.metadata.shard_offsets}"] = shard.tensor.numpy().copy()
        else:
            found[name] = value.numpy().copy()
    return found


def _alone(overrides: list[str]) -> list[tuple[list[float], dict[str, Any], dict[str, Any]]]:
    with process_group("cpu") as ranks:
        return [_train_steps(ranks, overrides)]


@pytest.mark.parametrize("model", ["dlrm", "sequence"])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_dedup_on_equals_off(two_ranks, table: list[str], tmp_path: Path, model: str, num_ranks: int) -> None:
    overrides = [*table, *TASKS, f"model={model}", "model.dim=8", "batch_size=64", f"run_dir={tmp_path / 'run'}"]
    # Adagrad would make whole steps of the rounding of gradients near 0, so the optimizer is SGD.
    overrides += ["plan=row_wise", "optim=sgd", "optim.tables.lr=20", "optim.dense.lr=0.2"]
    runs = [
        two_ranks(_train_steps, [*overrides, f"dedup={mode}"])
        if num_ranks == 2
        else _alone([*overrides, f"dedup={mode}"])
        for mode in ("on", "off")
    ]
    for (losses, before, after), (plain, plain_before, plain_after) in zip(*runs, strict=True):
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        assert before.keys() == plain_before.keys()
        for name, weights in after.items():
            np.testing.assert_array_equal(before[name], plain_before[name], err_msg=name)
            moved = np.abs(weights - before[name]).max()
            assert moved > (1e-7 if ".pools." in name else 1e-5), f"{name} was not trained"  # attention hardly begins
            assert np.abs(weights - plain_after[name]).max() < max(1e-2 * moved, 1e-6), name


def _train_and_evaluate(ranks: Ranks, overrides: list[str], run_dir: Path) -> tuple[dict, dict]:
    summary = train(load("train", overrides), ranks)
    return summary, evaluate_run(load("evaluate", [f"run_dir={run_dir}"]), ranks)


def test_every_task_is_measured_saved_and_evaluated(two_ranks, table: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    options = ["batch_size=64", f"run_dir={run_dir}", "max_steps=20", "evaluate.every=10", "evaluate.best=watch_s.r2"]
    summary, evaluation = two_ranks(_train_and_evaluate, [*table, *TASKS, *options], run_dir)[0]
    assert list(summary["tasks"]) == list(evaluation["tasks"]) == ["clicked", "liked", "watch_s", "chosen"]
    assert summary["best"]["by"] == "watch_s.r2"
    for name, numbers in summary["tasks"].items():
        assert evaluation["tasks"][name] == pytest.approx(numbers, rel=1e-5, nan_ok=True)
        assert math.isfinite(numbers["loss"])
    assert summary["auc"] == summary["tasks"]["clicked"]["auc"]  # the first task stands above the others
    rows = pq.read_table(Path(table[2].partition("=")[2]) / "test/samples")
    known = rows["liked"].to_numpy()
    assert (
        summary["tasks"]["liked"]["num_samples"]
        == np.isfinite(known).sum()
        < summary["tasks"]["clicked"]["num_samples"]
    )
    weights = rows["importance"].to_numpy()
    rate = np.average(known[np.isfinite(known)], weights=weights[np.isfinite(known)])
    assert summary["tasks"]["liked"]["base_rate"] == pytest.approx(rate)
