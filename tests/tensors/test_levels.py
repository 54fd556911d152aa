"""Levels of a batch: which lies in which, and where two of them meet."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.tensors.levels import MIN_SHARED, Level, Levels, join_levels


def find(levels: Levels, *inverse: int) -> Level:
    level = levels.find(torch.tensor(inverse, dtype=torch.int32), max(inverse) + 1)
    assert level is not None
    return level


def test_a_level_lies_in_another() -> None:
    levels = Levels()
    session, request = find(levels, 0, 0, 0, 0, 1, 1), find(levels, 2, 2, 1, 1, 0, 0)
    index = session.index_in(request)
    assert index is not None
    assert index.rows.tolist() == index.known.tolist() == [1, 0, 0]
    assert request.index_in(session) is None
    assert join_levels([session, request]) is request
    assert join_levels([request, session]) is request
    values = torch.tensor([5.0, 7.0])
    assert session.expand_to(request, values).tolist() == [7, 5, 5]
    assert session.expand_to(None, values).tolist() == session.expand(values).tolist() == [5, 5, 5, 5, 7, 7]
    assert session.expand_to(session, values) is values
    with pytest.raises(ValueError, match="cut by the level"):
        request.expand_to(session, torch.zeros(3))


def test_levels_that_cut_each_other_meet_in_their_pairs() -> None:
    levels = Levels()
    user, page = find(levels, 0, 0, 0, 0, 1, 1), find(levels, 0, 0, 1, 1, 1, 1)
    joined = join_levels([user, page])
    assert joined is not None
    assert joined.inverse.tolist() == joined.known_inverse.tolist() == [0, 0, 1, 1, 2, 2]
    assert join_levels([page, user]) is joined
    assert user.expand_to(joined, torch.tensor([0, 1])).tolist() == [0, 0, 1]
    assert page.expand_to(joined, torch.tensor([0, 1])).tolist() == [0, 1, 1]
    assert joined.num_samples.tolist() == [2, 2, 2]


def test_where_too_little_is_shared_samples_are_the_level() -> None:
    levels = Levels()
    assert levels.find(None, 4) is None
    assert levels.find(torch.arange(4), 4) is None
    assert levels.find(torch.zeros(0, dtype=torch.int32), 0) is None
    user, page = find(levels, 0, 0, 1, 1, 2, 2), find(levels, 0, 1, 1, 2, 2, 3)
    assert join_levels([user, page]) is None
    assert join_levels([user, None]) is None
    assert join_levels([]) is None


def test_equal_inverses_are_one_level() -> None:
    levels = Levels()
    assert find(levels, 0, 0, 1, 1) is find(levels, 0, 0, 1, 1)
    assert find(levels, 0, 0, 1, 1) is not find(levels, 1, 1, 0, 0)


def test_levels_end_with_their_batch_without_the_garbage_collector() -> None:
    levels = Levels()
    user, page = find(levels, 0, 0, 0, 0, 1, 1), find(levels, 0, 0, 1, 1, 1, 1)
    joined = join_levels([user, page])
    seen = [weakref.ref(x) for x in (user, page, joined)]
    gc.disable()
    try:
        del levels, user, page, joined
        assert [x() for x in seen] == [None] * 3
    finally:
        gc.enable()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
def test_the_join_of_any_two(pairs: list[tuple[int, int]]) -> None:
    pairs = [pair for pair in pairs for _ in range(2)]
    levels = Levels()
    one, other = (levels.find(torch.tensor(n, dtype=torch.int32), 3) for n in zip(*pairs, strict=True))
    if one is None or other is None:
        return
    joined = join_levels([one, other])
    if joined is None:
        assert len(pairs) < MIN_SHARED * (1 + sum(a != b for a, b in pairwise(pairs)))
        return
    for level, number in ((one, 0), (other, 1)):
        index = level.index_in(joined)
        assert index is not None
        assert index.rows[joined.inverse.long()].tolist() == [pair[number] for pair in pairs]
        assert np.array_equal(index.rows.numpy(), index.known)
