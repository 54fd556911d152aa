"""Instructions for compiled loops, against numpy, for rows of every number of columns."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from recd_dist.table import instructions

WIDTHS = (4, 8, 12, 16, 20, 28, 60, 64, 68, 92, 132, 256)
"""Numbers of columns that are divided into 64, 16, 8 and 4 in every way."""


@numba.njit
def sum_rows(target: int, base: int, places: int, factors: int, count: int, columns: int, is_first: bool) -> None:
    instructions.sum_rows(target, base, places, factors, count, columns, is_first)


@numba.njit
def add_scaled(target: int, row: int, factor: float, columns: int) -> None:
    instructions.add_scaled(target, row, np.float32(factor), columns)


@numba.njit
def sum_squares(row: int, columns: int) -> float:
    return instructions.sum_squares(row, columns)


@numba.njit
def adagrad_step(weights: int, sums: int, gradient: int, columns: int) -> None:
    instructions.adagrad_step(weights, sums, gradient, np.float32(0.5), np.float32(1e-3), columns)


@numba.njit
def prefetch(address: int) -> None:
    instructions.prefetch(address)


def draw(columns: int, num_rows: int = 1) -> Any:
    """Rows of random numbers, with a number behind them that must stay."""
    numbers = np.random.default_rng(columns).normal(size=num_rows * columns + 1).astype(np.float32)
    numbers[-1] = 7
    return numbers


def check(change: Callable[[int], object], numbers: Any, expected: Any) -> None:
    change(numbers.ctypes.data)
    np.testing.assert_allclose(numbers[:-1], expected, rtol=1e-5, atol=1e-6)
    assert numbers[-1] == 7


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_rows_are_added_up(columns: int, weighted: bool, is_first: bool) -> None:
    rows, factors = draw(columns, 9), np.array([2, -1, 0.5], np.float32)
    places = np.array([3, 0, 7]) * columns
    chosen = rows[:-1].reshape(9, columns)[[3, 0, 7]]
    added = (factors[:, None] * chosen if weighted else chosen).sum(0)
    target = np.append(np.full(columns, np.nan if is_first else 1, np.float32), np.float32(7))
    given = rows.ctypes.data, places.ctypes.data, factors.ctypes.data if weighted else 0, 3, columns, is_first
    check(lambda address: sum_rows(address, *given), target, added if is_first else added + 1)


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_row_is_added_to_another_and_its_squares_are_summed(columns: int) -> None:
    target, row = draw(columns), draw(columns)[::-1].copy()
    check(lambda a: add_scaled(a, row.ctypes.data, 0.25, columns), target, target[:-1] + np.float32(0.25) * row[:-1])
    assert sum_squares(row.ctypes.data, columns) == pytest.approx(float((row[:-1] ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_step_of_adagrad(columns: int) -> None:
    weights, sums, slope = draw(columns), np.abs(draw(columns)), draw(columns)[::-1].copy()
    total = sums[:-1] + slope[:-1] ** 2
    expected = weights[:-1] - 0.5 * slope[:-1] / (np.sqrt(total) + 1e-3)
    check(lambda a: adagrad_step(a, sums.ctypes.data, slope.ctypes.data, columns), weights, expected)
    np.testing.assert_allclose(sums[:-1], total, rtol=1e-6)


def test_an_address_that_is_not_there_may_be_fetched() -> None:
    prefetch(0)
    prefetch(2**62)
