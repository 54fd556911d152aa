"""The loss over the items of a batch: by hand, against a loop over samples, and on unique rows as on expanded ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.model.in_batch import InBatchSoftmax, ItemsAndUsers
from recd_dist.model.task import Task
from recd_dist.model.towers import Towers
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Rows, Shared

NAN = math.nan


def task(**options: object) -> Task:
    return Task("bought", "bought", "in_batch", **options)


def by_loop(
    query: torch.Tensor, item: torch.Tensor, whose: ItemsAndUsers, labels: list[float], loss: InBatchSoftmax
) -> torch.Tensor:
    """The same, sample by sample, as the paper has it."""
    losses = []
    drawn = [s for s, y in enumerate(labels) if (y == 1 if loss.task.candidates == "positives" else not math.isnan(y))]
    for sample, label in enumerate(labels):
        if label != 1:
            losses.append(query.new_zeros(()))
            continue
        bought = {whose.items[s] for s, y in enumerate(labels) if y == 1 and whose.users[s] == whose.users[sample]}
        own = query[sample] @ item[sample]
        total = own.exp()
        for other in drawn:
            if whose.items[other] not in bought:
                weight = 1.0 if loss.log_q is None else 1 / (len(drawn) * math.exp(loss.log_q[whose.items[other]]))
                total = total + weight * (query[sample] @ item[other]).exp()
        losses.append(total.log() - own)
    return torch.stack(losses)


def test_by_hand() -> None:
    """User 0 bought items 0 and 1, user 1 item 2; item 3 was shown to user 1."""
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    towers = Towers(torch.ones(4, 1, dtype=torch.float64), scores[:, None])
    whose = ItemsAndUsers(np.arange(4), np.array([0, 0, 1, 1]))

    losses = InBatchSoftmax(task(log_q=False))(towers, whose, torch.tensor([1.0, 1.0, 1.0, 0.0]))

    e = np.exp(scores.numpy())
    wanted = [math.log(1 + (e[2] + e[3]) / e[0]), math.log(1 + (e[2] + e[3]) / e[1]), 0.0, 0.0]
    wanted[2] = math.log(1 + (e[0] + e[1] + e[3]) / e[2])
    assert losses.tolist() == pytest.approx(wanted, rel=1e-12)


def test_an_item_that_another_user_bought_too_is_no_negative_in_any_sample() -> None:
    vectors = torch.tensor([[1.0], [1.0], [5.0]])
    whose = ItemsAndUsers(np.array([7, 7, 8]), np.array([0, 1, 2]))
    losses = InBatchSoftmax(task(log_q=False))(Towers(torch.ones(3, 1), vectors), whose, torch.ones(3))
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(4))] * 2 + [math.log1p(2 * math.exp(-4))])


def test_with_log_q_a_batch_like_the_table_has_the_loss_over_all_items() -> None:
    """Each item as often as its share says: the estimate of the sum over all items is that sum."""
    draws = np.array([1, 2, 5, 8])
    items = np.repeat(np.arange(4), draws)
    torch.manual_seed(0)
    vectors, query = torch.randn(4, 3, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    labels = torch.zeros(16)
    labels[3] = 1.0  # the first sample of item 2

    loss = InBatchSoftmax(task(), np.log(draws / draws.sum()))
    losses = loss(Towers(query.expand(16, -1), vectors[items]), ItemsAndUsers(items, np.arange(16)), labels)

    scores = (query @ vectors.T)[0]
    assert losses[3].item() == pytest.approx((scores.logsumexp(0) - scores[2]).item(), rel=1e-12)


@pytest.mark.parametrize("labels", [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [NAN, NAN, NAN], [1.0, 0.0, NAN]])
@pytest.mark.parametrize("candidates", ["all", "positives"])
def test_without_negatives_nothing_is_learnt_and_nothing_is_nan(labels: list[float], candidates: str) -> None:
    query, item = (torch.randn(3, 2, requires_grad=True) for _ in range(2))
    whose = ItemsAndUsers(np.array([4, 4, 4]), np.array([1, 1, 1]))
    losses = InBatchSoftmax(task(candidates=candidates))(Towers(query, item), whose, torch.tensor(labels))
    assert losses.tolist() == [0.0, 0.0, 0.0]
    losses.sum().backward()
    for grad in (query.grad, item.grad):
        assert grad is not None  # other ranks wait for it
        assert not grad.any()


def test_a_sample_without_an_item_takes_no_part() -> None:
    whose = ItemsAndUsers(np.array([-1, 0, 1]), np.array([0, 1, 2]))
    vectors = torch.tensor([[9.0], [0.0], [0.0]])
    losses = InBatchSoftmax(task(log_q=False))(Towers(torch.ones(3, 1), vectors), whose, torch.ones(3))
    assert losses.tolist() == pytest.approx([0.0, math.log(2), math.log(2)])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_unique_rows_give_what_a_loop_over_samples_gives(data: st.DataObject) -> None:
    """Losses and gradients, for any labels, users, items and rows."""
    size = data.draw(st.integers(1, 14))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    whose = ItemsAndUsers(random.integers(0, 6, size), random.integers(0, 4, size))
    labels = random.choice([1.0, 0.0, NAN], size, p=[0.5, 0.35, 0.15]).tolist()
    log_q = np.log(random.dirichlet(np.ones(6))) if data.draw(st.booleans()) else None
    loss = InBatchSoftmax(task(candidates=data.draw(st.sampled_from(["all", "positives"]))), log_q)
    rows, of_items = np.sort(random.integers(0, 3, size)), np.unique(whose.items, return_inverse=True)[1]
    query = torch.from_numpy(random.normal(size=(3, 2))).requires_grad_()
    item = torch.from_numpy(random.normal(size=(int(of_items.max()) + 1, 2))).requires_grad_()

    levels = Levels()
    shared: list[Rows] = []
    for values, inverse in ((query, rows), (item, of_items)):
        known = inverse.astype(np.int32)
        level = levels.find(torch.from_numpy(known), len(values), known)
        shared.append(values[torch.from_numpy(inverse)] if level is None else Shared(values, level))
    found = loss(Towers(*shared), whose, torch.tensor(labels))
    wanted = by_loop(query[torch.from_numpy(rows)], item[torch.from_numpy(of_items)], whose, labels, loss)

    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found.sum(), (query, item), allow_unused=True),
        torch.autograd.grad(wanted.sum(), (query, item), allow_unused=True) if wanted.requires_grad else (None, None),
        strict=True,
    ):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=1e-11, atol=1e-12)
