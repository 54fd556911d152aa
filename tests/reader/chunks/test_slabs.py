"""Memory that is given out belongs to one array at a time, and is used again when it is gone."""

import threading

import numpy as np
import pytest

from recd_dist.reader.chunks.slabs import Slabs
from recd_dist.table.addresses import address_of


@pytest.mark.parametrize("seed", range(4))
def test_what_an_array_holds_stays_as_long_as_a_view_of_it(seed) -> None:
    rng, slabs, alive = np.random.default_rng(seed), Slabs(), []
    for number in range(400):
        size = int(rng.choice([1, 63, 64, 5000, 3 << 20, 20 << 20], p=[0.2, 0.2, 0.2, 0.3, 0.08, 0.02]))
        array = slabs.take(size)
        assert array.nbytes == size
        assert address_of(array) % 64 == 0
        array[[0, -1]] = number % 251
        alive.append((array[-1:], number % 251) if size % 2 else (array[:1].view(np.uint8), number % 251))
        del array
        while len(alive) > 20:
            alive.pop(int(rng.integers(len(alive))))
        assert all(view[0] == value for view, value in alive)


def test_memory_is_used_again_once_nobody_refers_to_it() -> None:
    slabs = Slabs()
    first = {address_of(slabs.take(10 << 20)) for _ in range(9)}
    assert len(first) <= 2
    kept = [slabs.take(10 << 20) for _ in range(4)]
    places = {address_of(array) for array in kept}
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert {address_of(array) for array in [slabs.take(10 << 20) for _ in range(4)]} <= places | first


def test_as_much_stays_as_was_in_use_at_once() -> None:
    slabs, places = Slabs(), set()
    for _ in range(20):
        kept = [slabs.take(6 << 20) for _ in range(10)]
        places |= {address_of(array) >> 24 for array in kept}
        del kept
    assert len(places) <= 2 * 6  # ten of 6 MiB are two in each slab of 16, which may lie across a border of 16 MiB
