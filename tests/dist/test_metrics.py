"""Metrics over two ranks with uneven rows."""

import numpy as np
import pytest
import torch

from recd_dist.metrics.gather import gather_on_first_rank, reduce_over_ranks
from recd_dist.metrics.quality import measure_quality
from recd_dist.metrics.speed import Speed
from recd_dist.metrics.training_quality import TrainingQuality
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.seen_records import EpochCount, SeenRecords, count_trained


def _gathered(ranks: Ranks, sizes: list[int]) -> dict | None:
    n = sizes[ranks.rank]
    ids = torch.arange(n) + 10 * ranks.rank
    return gather_on_first_rank({"ids": ids, "logits": ids.float() / 2})


@pytest.mark.parametrize("sizes", [[3, 1], [0, 2], [2, 2]])
def test_gathers_uneven_ranks_on_rank_0(two_ranks, sizes: list[int]) -> None:
    first, second = two_ranks(_gathered, sizes)
    assert second is None
    wanted = [*range(sizes[0]), *range(10, 10 + sizes[1])]
    assert first["ids"].tolist() == wanted
    assert first["ids"].dtype == np.int64
    assert first["logits"].tolist() == [i / 2 for i in wanted]


def _reduced(ranks: Ranks) -> dict[str, float]:
    mine = {"a": 1.0 + ranks.rank, "b": 1.0 + ranks.rank, "c": 1.0 + ranks.rank}
    return reduce_over_ranks(mine, {"a": "sum", "b": "mean", "c": "max"}, ranks.device)


def test_over_ranks(two_ranks) -> None:
    assert two_ranks(_reduced) == [{"a": 3.0, "b": 1.5, "c": 2.0}] * 2


def _speed(ranks: Ranks) -> dict[str, float]:
    now = [0.0]
    speed = Speed(ranks.device, lambda: now[0])
    now[0] = 1.0 + ranks.rank  # the slower rank decides
    speed.count_step(100)
    return speed.compute()


def test_speed_is_that_of_all_ranks(two_ranks) -> None:
    assert two_ranks(_speed) == [{"samples_per_s": 100.0, "step_ms": 2000.0, "reader_wait_share": 0.0}] * 2


def _samples(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    size = 64 if step < 9 else 7 + rank  # a smaller, uneven last batch
    logits = torch.randn(size, generator=generator)
    return logits, (torch.rand(size, generator=generator) < torch.sigmoid(logits)).float()


def _tasks(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and weights of two tasks; of the second a third of the labels is missing, and others weigh."""
    logits, labels = _samples(rank, step)
    weights = torch.stack([torch.ones(len(labels)), torch.arange(len(labels)).remainder(3).float()], 1)
    labels = torch.stack([labels, labels.masked_fill(weights[:, 1] == 0, torch.nan)], 1)
    return torch.stack([logits, logits + 1], 1), labels, weights


def _window(ranks: Ranks) -> tuple[dict, dict]:
    window = TrainingQuality(batch_size=64, num_last=10_000, device=ranks.device, tasks=("plain", "weighted"))
    before = window.compute()
    for step in range(10):
        window.update(*_tasks(ranks.rank, step))
    return before, window.compute()


def test_window_equals_the_exact_numbers_of_each_task(two_ranks) -> None:
    (before, first), (_, second) = two_ranks(_window)
    columns = [_tasks(rank, step) for rank in (0, 1) for step in range(10)]
    logits, labels, weights = (torch.cat(c).numpy() for c in zip(*columns, strict=True))
    assert before == second == {}
    for number, task in enumerate(("plain", "weighted")):
        exact, found = measure_quality(logits[:, number], labels[:, number], None, weights[:, number]), first[task]
        assert found["auc"] == pytest.approx(exact.auc, abs=1e-5)
        assert found["ne"] == found["lifetime_ne"] == pytest.approx(exact.ne, abs=1e-5)
        assert found["calibration"] == found["lifetime_calibration"] == pytest.approx(exact.calibration, abs=1e-5)


def _one_class(ranks: Ranks, label: float) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers after steps of one class, and after some of both."""
    window = TrainingQuality(batch_size=64, num_last=128, device=ranks.device, tasks=("clicked",))
    window.update(torch.zeros(64, 1), torch.full((64, 1), label), torch.ones(64, 1))
    alone = window.compute().get("clicked", {})
    window.update(*(column[:, :1] for column in _tasks(ranks.rank, 0)))
    return alone, window.compute().get("clicked", {})


@pytest.mark.parametrize(("label", "undefined"), [(0.0, {"ne", "auc", "calibration"}), (1.0, {"ne", "auc"})])
def test_a_window_of_one_class_has_no_figures(two_ranks, label: float, undefined: set[str]) -> None:
    """TorchRec says AUC 0.5, NE 6e10 and calibration 0, as if they meant something."""
    (alone, both), _ = two_ranks(_one_class, label)
    assert {name for name, value in alone.items() if np.isnan(value)} == {
        *undefined,
        *(f"lifetime_{name}" for name in undefined if name != "auc"),
    }
    assert "ctr" not in alone
    assert all(np.isfinite(value) for value in both.values())


def _see(ranks: Ranks, run_dir, start: int, batches: list[list[int]]) -> None:
    with SeenRecords(run_dir, start) as seen:
        for step, ids in enumerate(batches, start=start + 1):
            seen.append(0, step, np.array(ids[ranks.rank :: 2]))


def test_seen_by_two_ranks_and_resumed(two_ranks, tmp_path) -> None:
    two_ranks(_see, tmp_path, 0, [[0, 1], [2, 3]])
    two_ranks(_see, tmp_path, 1, [[4, 5], [3, 2]])
    assert count_trained(tmp_path, 6) == [EpochCount(0, 6, 0, 6, 0)]
