"""Schedules, clipping and the moving average, in a real job on one rank."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recd_dist.checkpoint.stored_tensors import StoredTensors, compare
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.job import Job
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.training import shard_model, start_pipeline, train

SGD = ["optim=sgd", "batch_size=64"]


@pytest.fixture
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


def steps(job: Job, ranks: Ranks, num: int) -> Iterator[tuple[Any, Any]]:
    """The model and its optimizer after each of some steps."""
    model, optimizer, _ = shard_model(job, ranks)
    pipeline = start_pipeline(model, optimizer, ranks.device)
    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    batches = iter(loader)
    for _ in range(num):
        pipeline.progress(batches)
        yield model, optimizer
    loader.close()


def rows_of(model: Any) -> dict[str, Tensor]:
    """The weights of the tables of this rank."""
    state = model.state_dict().items()
    return {n: v.local_shards()[0].tensor.clone() for n, v in state if hasattr(v, "local_shards")}


@pytest.mark.parametrize("plan", ["plan=table_wise", "plan.sharding=data_parallel"])
def test_tables_take_the_rate_of_the_step_itself(alone: Ranks, checked: Callable[..., Job], plan: str) -> None:
    """A rate of 0 in the second step leaves the tables as they are then, and not in the third."""
    schedule = ["optim.tables.schedule.decay=linear", "optim.tables.schedule.decay_steps=1"]
    job = checked(*SGD, plan, *schedule)
    first, second, third = (
        {n: v.clone() for n, v in model.state_dict().items() if "embeddings" in n and isinstance(v, Tensor)}
        | rows_of(model)
        for model, _ in steps(job, alone, 3)
    )
    again = checked(*SGD, plan)
    (unscheduled,) = (
        {n: v.clone() for n, v in model.state_dict().items() if "embeddings" in n and isinstance(v, Tensor)}
        | rows_of(model)
        for model, _ in steps(again, alone, 1)
    )
    assert len(first) == 5
    for name, rows in first.items():
        assert torch.equal(rows, unscheduled[name])
        assert torch.equal(rows, second[name])
        assert torch.equal(rows, third[name])


@pytest.mark.parametrize(("share", "warmup_steps"), [(0.5, 2), (0.25, 4)])
def test_a_first_step_of_warm_up_moves_weights_by_its_share(
    alone: Ranks, checked: Callable[..., Job], share: float, warmup_steps: int
) -> None:
    warm = [f"optim.{part}.schedule.warmup_steps={warmup_steps}" for part in ("tables", "dense")]
    (start,) = (model.state_dict() for model, *_ in [shard_model(checked(*SGD), alone)])
    before = {n: as_tensor(v).clone() for n, v in start.items()}
    ((whole, _),), ((part, optimizer),) = (list(steps(checked(*SGD, *more), alone, 1)) for more in ([], warm))
    for name, value in whole.state_dict().items():
        moved, wanted = as_tensor(part.state_dict()[name]) - before[name], as_tensor(value) - before[name]
        torch.testing.assert_close(moved, wanted * share, atol=2e-7, rtol=1e-3)
        assert wanted.abs().max() > 0
    assert optimizer.numbers() == {"rate_tables": 0.1 * share, "rate_dense": 0.1 * share}


def as_tensor(value: Any) -> Tensor:
    return value.local_shards()[0].tensor if hasattr(value, "local_shards") else value


def test_the_dense_gradient_is_shortened_and_tables_are_not(alone: Ranks, checked: Callable[..., Job]) -> None:
    ((free, _),), ((cut, optimizer),) = (
        list(steps(checked(*SGD, *more), alone, 1)) for more in ([], ["optim.clip_norm=0.01"])
    )
    grads = [p.grad for p in cut.module.head.model.parameters()]
    assert torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads])).item() == pytest.approx(0.01, rel=1e-4)
    whole = torch.cat([p.grad.flatten() for p in free.module.head.model.parameters()])
    assert optimizer.numbers()["gradient_norm"] == pytest.approx(whole.norm().item())
    torch.testing.assert_close(torch.cat([g.flatten() for g in grads]), whole * 0.01 / whole.norm())
    for name, rows in rows_of(free).items():
        assert torch.equal(rows, rows_of(cut)[name])


def test_the_average_moves_as_it_should_and_evaluation_takes_it(alone: Ranks, checked: Callable[..., Job]) -> None:
    job = checked(*SGD, "optim.ema=0.15")
    start = [p.detach().clone() for p in shard_model(job, alone)[0].module.head.model.parameters()]
    wanted = start
    for number, (model, _) in enumerate(steps(job, alone, 3)):
        kept, head = min(0.15, (1 + number) / (10 + number)), model.module.head
        wanted = [kept * a + (1 - kept) * p.detach() for a, p in zip(wanted, head.model.parameters(), strict=True)]
        for average, value in zip(head.averaged.parameters(), wanted, strict=True):
            torch.testing.assert_close(average, value, rtol=1e-5, atol=1e-7)
            assert not average.requires_grad
    head.eval()
    with torch.no_grad():
        for parameter in head.averaged.parameters():
            parameter.zero_()
    loader = build.build_loader(job, alone, job.transforms.fit(job.table))
    _, output = model.eval()(next(iter(loader)))
    loader.close()
    assert output.logits.abs().max() == 0


OPTIONS = {
    "schedule": [
        *(f"optim.{part}.schedule.warmup_steps=3" for part in ("tables", "dense")),
        *(f"optim.{part}.schedule.decay=cosine" for part in ("tables", "dense")),
        "optim.tables.schedule.decay_steps=4",
        "optim.dense.schedule.decay_steps=6",
        "optim.clip_norm=0.05",
    ],
    "average": ["optim.ema=0.9", "optim=adam", "model.batch_norm=true"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    alone: Ranks, tiny: list[str], tmp_path: Path, options: list[str]
) -> None:
    """Bit for bit, and an evaluation of the checkpoint is that of the run's end."""
    common = [*tiny, "batch_size=64", *options]
    whole = train(load("train", [*common, f"run_dir={tmp_path / 'whole'}", "max_steps=8"]), alone)
    for end in (2, 5, 8):
        train(load("train", [*common, f"run_dir={tmp_path / 'parts'}", f"max_steps={end}"]), alone)
    one, other = (StoredTensors(tmp_path / run / "checkpoints/step-00000008") for run in ("whole", "parts"))
    assert not {name: what for name, what, _ in compare(one, other) if what}
    assert any("averaged" in name for name in one.kinds) == ("optim.ema=0.9" in options)
    evaluated = evaluate_run(load("evaluate", [f"run_dir={tmp_path / 'whole'}"]), alone)
    assert evaluated["auc"] == whole["auc"]


def test_an_average_does_not_begin_in_the_middle(alone: Ranks, tiny: list[str], tmp_path: Path) -> None:
    overrides = [*tiny, "batch_size=64", f"run_dir={tmp_path}"]
    train(load("train", [*overrides, "max_steps=1"]), alone)
    with pytest.raises(ConfigError, match=r"holds a run with optim.ema=null, now 0.9; optim.ema=null goes on with it"):
        train(load("train", [*overrides, "max_steps=2", "optim.ema=0.9"]), alone)
