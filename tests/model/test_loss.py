"""The losses of tasks: masked, weighted, in float32 at least; a softmax is over the candidates of a request."""

import math

import pytest
import torch
from torch.nn import functional as F

from recd_dist.errors import ConfigError
from recd_dist.model.loss import TaskLosses, request_log_loss
from recd_dist.model.task import Task

NAN = math.nan
CLICKED = Task("clicked", "clicked")


def loss_of(
    tasks: list[Task],
    logits: list[list[float]],
    labels: list[list[float]],
    weight: int | None = None,
    requests: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and that of each task; the labels' columns are those of the tasks, then the weight."""
    losses = TaskLosses(tasks, range(len(tasks)), weight).to(dtype if dtype == torch.float64 else torch.float32)
    given = torch.tensor(labels)
    of = None if requests is None else torch.tensor(requests)
    return losses(torch.tensor(logits, dtype=dtype), given, losses.count(given), of)


def test_by_hand() -> None:
    loss, _ = loss_of([CLICKED], [[0.0], [math.log(3)]], [[1.0], [0.0]])
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_a_missing_label_and_weights_by_hand() -> None:
    """Sample 1 has no label; sample 0 counts three times as much as sample 2."""
    loss, _ = loss_of([CLICKED], [[0.0], [5.0], [math.log(3)]], [[1.0, 3.0], [NAN, 9.0], [0.0, 1.0]], weight=1)
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(4)) / 4)


def test_several_tasks_add_up_by_their_weights() -> None:
    watched = Task("watched", "watched", "regression", weight=0.1, mean=10.0, std=5.0)
    loss, losses = loss_of([CLICKED, watched], [[0.0, 1.0], [0.0, 0.0]], [[1.0, 25.0], [NAN, 10.0]])
    assert losses.tolist() == pytest.approx([math.log(2), (4.0 + 0.0) / 2])  # (1 - 3)^2 and (0 - 0)^2
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * 2.0)


def test_softmax_is_over_the_request_whose_samples_lie_anywhere() -> None:
    """Request 0 has samples 0 and 2, request 1 has 1 and 3; of request 2 the label of a sample is not known."""
    task = Task("chosen", "chosen", "softmax")
    logits = [[1.0], [0.0], [0.0], [2.0], [50.0], [3.0]]
    loss, _ = loss_of([task], logits, [[1.0], [1.0], [0.0], [0.0], [NAN], [1.0]], requests=[0, 1, 0, 1, 2, 2])
    rows = [(torch.tensor([1.0, 0.0]), 0), (torch.tensor([0.0, 2.0]), 0), (torch.tensor([3.0]), 0)]
    wanted = [F.cross_entropy(row[None], torch.tensor([chosen])).item() for row, chosen in rows]
    assert loss.item() == pytest.approx(sum(wanted) / 3)


def test_a_request_without_a_positive_adds_nothing() -> None:
    task = Task("chosen", "chosen", "softmax")
    whole = loss_of([task], [[1.0], [0.5], [9.0], [8.0]], [[1.0], [0.0], [0.0], [0.0]], requests=[0, 0, 1, 1])
    alone = loss_of([task], [[1.0], [0.5]], [[1.0], [0.0]], requests=[0, 0])
    assert whole[0].item() == pytest.approx(alone[0].item())


@pytest.mark.parametrize("loss", ["binary", "regression", "softmax"])
def test_a_task_without_a_label_in_the_batch_has_no_gradient_and_no_nan(loss: str) -> None:
    losses = TaskLosses([Task("t", "t", loss)], [0])
    logits = torch.tensor([[3.0], [-80.0]], requires_grad=True)
    labels = torch.full((2, 1), NAN)
    found, _ = losses(logits, labels, losses.count(labels), torch.tensor([0, 0]))
    found.backward()
    assert found.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0], [0.0]]


def test_extreme_logits_have_finite_gradients() -> None:
    logits = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    request_log_loss(logits, torch.tensor([True, True, False]), torch.tensor([0, 0, 0]))[:2].sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2] == 0.0


def test_half_precision_is_summed_in_float32() -> None:
    loss, _ = loss_of([CLICKED], [[0.0]] * 3, [[1.0]] * 3, dtype=torch.bfloat16)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2))


def test_double_stays_double() -> None:
    assert loss_of([CLICKED], [[0.0]], [[1.0]], dtype=torch.float64)[0].dtype == torch.float64


def test_a_model_of_another_shape() -> None:
    with pytest.raises(ConfigError, match=r"its logits have shape \[2, 3\], wanted is \[2, 1\]: .* \(clicked\)"):
        loss_of([CLICKED], [[0.0] * 3] * 2, [[0.0]] * 2)


def test_empty_batch() -> None:
    losses = TaskLosses([CLICKED], [0])
    with pytest.raises(ValueError, match=r"an empty batch has no mean"):
        losses(torch.zeros(0, 1), torch.zeros(0, 1), losses.count(torch.zeros(0, 1)))


def test_the_logit_of_a_share_of_the_negatives_is_corrected() -> None:
    """A model that has seen a tenth of the negatives learns the odds 1 where 1 of 11 samples is positive."""
    factor, shift = Task("clicked", "clicked", negatives_kept=0.1).scale
    assert torch.sigmoid(torch.tensor(0.0 * factor + shift)).item() == pytest.approx(1 / 11)
