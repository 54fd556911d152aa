"""Equal rows of a group: by neighbours and by hash, against comparing every row with every other one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd_dist.reader import equal_rows
from recd_dist.reader.equal_rows import find_equal_rows, flag_changed_rows
from recd_dist.table.column import Column, offsets_of


def lists(rows, dtype=np.int64, weights=None):
    values = np.array([value for row in rows for value in row], dtype)
    flat = None if weights is None else np.array([w for row in weights for w in row], np.float32)
    return Column(values, offsets_of(np.array([len(row) for row in rows])), flat)


def test_the_picture():
    a, b, c = [7, 8], [7], []
    history, age = lists([a, a, b, a, a, c]), Column(np.array([1, 1, 1, 1, 1, 1], np.float32))
    assert flag_changed_rows([history, age]).tolist() == [True, False, True, True, False, True]
    row_of_sample, first = find_equal_rows([history, age], by_hash=False)
    assert (row_of_sample.tolist(), first.tolist()) == ([0, 0, 1, 2, 2, 3], [0, 2, 3, 5])
    row_of_sample, first = find_equal_rows([history, age], by_hash=True)
    assert (row_of_sample.tolist(), first.tolist()) == ([0, 0, 1, 0, 0, 2], [0, 2, 5])


def test_every_bit_counts():
    """0.0 and -0.0 are two values; lists that only differ in how values fall into rows differ; weights count."""
    assert flag_changed_rows([Column(np.array([0.0, -0.0, -0.0], np.float32))]).tolist() == [True, True, False]
    assert flag_changed_rows([lists([[1, 2], [1], [2], [1, 2]])]).all()
    same = lists([[1, 2], [1, 2], [1, 2]], weights=[[1, 1], [1, 2], [1, 2]])
    assert flag_changed_rows([same]).tolist() == [True, True, False]
    assert find_equal_rows([same], by_hash=True)[0].tolist() == [0, 1, 1]


ROWS = st.lists(st.sampled_from([(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**62, -1)]), min_size=1, max_size=30)


@given(ROWS, st.randoms())
def test_by_hash_finds_all_and_mixes_nothing(rows, random):
    scalars = [random.choice([0, 1, -5]) for _ in rows]
    row_of_sample, first = find_equal_rows([lists(rows), Column(np.array(scalars, np.int64))], by_hash=True)
    whole = list(zip(rows, scalars, strict=True))
    assert [whole[first[row]] for row in row_of_sample] == whole
    assert len(first) == len(set(whole))
    assert first.tolist() == sorted(whole.index(row) for row in set(whole))


@given(ROWS)
def test_rows_of_one_hash_stay_apart(rows):
    """All hashes alike: a row may stand there twice, but no sample has the values of another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equal_rows, "_USED_BITS", np.uint64(0))
        row_of_sample, first = find_equal_rows([lists(rows)], by_hash=True)
    assert [rows[first[row]] for row in row_of_sample] == rows
    assert len(first) >= len(set(rows))
