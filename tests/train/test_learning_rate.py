"""The learning rate of each step, in literals."""

import pytest

from recd_dist.job.optimizer_options import Schedule
from recd_dist.train.learning_rate import share_at


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Schedule(), [1, 1, 1, 1]),
        (Schedule(warmup_steps=4), [0.25, 0.5, 0.75, 1, 1, 1]),
        (Schedule(decay="linear", decay_steps=4), [1, 0.75, 0.5, 0.25, 0, 0]),
        (Schedule(decay="linear", decay_steps=2, end=0.5), [1, 0.75, 0.5, 0.5]),
        (Schedule(decay="quadratic", decay_steps=4), [1, 0.5625, 0.25, 0.0625, 0, 0]),
        (Schedule(decay="cosine", decay_steps=2), [1, 0.5, 0, 0]),
        (Schedule(decay="exponential", decay_steps=2, end=0.25), [1, 0.5, 0.25, 0.25]),
        (Schedule(warmup_steps=2, decay="linear", decay_steps=2), [0.5, 1, 1, 0.5, 0]),
        (Schedule(warmup_steps=2, decay="linear", decay_from=4, decay_steps=2, end=0.5), [0.5, 1, 1, 1, 1, 0.75, 0.5]),
        (Schedule(warmup_steps=4, decay="inverse_root"), [0.25, 0.5, 0.75, 1, 1, *[(4 / n) ** 0.5 for n in (5, 6)]]),
    ],
)
def test_shares(schedule: Schedule, shares: list[float]) -> None:
    assert [share_at(schedule, step) for step in range(len(shares))] == pytest.approx(shares)
