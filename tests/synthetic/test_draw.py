"""Random numbers have their distribution, and popular ids are spread over their table."""

import numpy as np
import pytest

from recd_dist.synthetic.draw import mix, normal, spread_multiplier, uniform


def test_random_numbers_are_uniform_and_normal() -> None:
    keys = mix(np.arange(20_000), 7)
    assert np.histogram(uniform(keys), 10, (0, 1))[0] == pytest.approx([2000] * 10, abs=200)
    assert normal(keys).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("size", [2, 10, 1000, 200_000, 65_537])
def test_spread_is_a_bijection(size: int) -> None:
    assert len(np.unique(np.arange(size) * spread_multiplier(size) % size)) == size
