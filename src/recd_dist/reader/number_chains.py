"""Transforms of dense features, those of a whole group in one call of a compiled loop.

::

    features      age               price                     fast
    chain         standardize       clamp, log, standardize   (a function of the user's)
    columns       25 31 ..          1.5 80. ..                -
    out           -.4 .1 ..         .3 2.1 ..                 left as it is, for the careful way

A row group has some hundred distinct rows of a group. A call of numpy costs as much as 500 numbers, so that transforms
of unique rows, three calls a feature, would save a third of what they could.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from recd_dist.reader.transform_steps import Step
from recd_dist.table.column import Array
from recd_dist.table.loops import jit, load_float

_CLAMP, _LOG, _BUCKETIZE, _SCALE, _FILL = range(5)
_FEW = 8
"""Boundaries that are looked at one after the other, which is faster than halving them."""


class NumberChains:
    """What becomes of the dense features of a group, as far as the loop knows their transforms.

    Args:
        chains: for each feature its transforms, in order.

    Attributes:
        places: which of the features the loop transforms.
    """

    def __init__(self, chains: Sequence[Sequence[Step]]) -> None:
        found = [[_code(step.name, step.arguments) for step in steps] for steps in chains]
        self.places = [n for n, codes in enumerate(found) if None not in codes]
        steps = [step for n in self.places for step in found[n] if step is not None]
        self._starts = np.cumsum([0, *(len(found[n]) for n in self.places)])
        self._codes = np.array([code for code, _, _, _ in steps], np.int64)
        self._numbers = np.array([(a, b) for _, a, b, _ in steps], np.float32).reshape(len(steps), 2)
        self._ends = np.cumsum([0, *(len(bounds) for _, _, _, bounds in steps)])
        self._bounds = np.array([b for _, _, _, bounds in steps for b in bounds], np.float64)
        self._columns = np.array(self.places, np.int64)

    def run(self, columns: Array, out: Array) -> bool:
        """Transforms the numbers of all features in ``places``.

        Args:
            columns: int64 [len(places)], addresses of float32 [rows].
            out: float32 [rows, features of the group], receives them in the columns ``places``.

        Returns:
            Whether all numbers are finite, those that come in (unless the first transform fills them) and go out.
        """
        work = np.empty(len(out), np.float32)
        program = self._starts, self._codes, self._numbers, self._ends, self._bounds
        return bool(run_chains(columns, self._columns, program, work, out))


def _code(name: str, given: Mapping[str, object]) -> tuple[int, float, float, Sequence[float]] | None:
    """A transform as the loop knows it: what to do, two numbers and boundaries; None where it does not know it."""

    def number(key: str, absent: float = math.nan) -> float:
        value = given.get(key)
        return absent if value is None else float(value)  # type: ignore[arg-type]

    if name == "clamp":
        return _CLAMP, number("min", -math.inf), number("max", math.inf), ()
    if name == "log":
        return _LOG, 0.0, 0.0, ()
    if name == "bucketize":
        return _BUCKETIZE, 0.0, 0.0, list(given["boundaries"])  # type: ignore[call-overload]
    if name == "standardize":
        return _SCALE, number("mean"), number("std") or 1.0, ()
    if name == "min_max":
        return _SCALE, number("min"), number("max") - number("min") or 1.0, ()
    if name == "fill":
        return _FILL, number("value"), 0.0, ()
    return None


@jit
def count_below(bounds: Array, numbers: Array) -> None:
    """Puts in place of each number how many boundaries are at most it; nan is above all of them, as numpy has it.

    Args:
        bounds: float64, ascending.
        numbers: float32 [rows].
    """
    for i in range(len(numbers)):
        number, first, end = np.float64(numbers[i]), 0, len(bounds)
        if end <= _FEW:
            for bound in bounds:
                first += not number < bound
            end = first
        while first < end:
            middle = (first + end) // 2
            is_below = number < bounds[middle]
            first, end = first if is_below else middle + 1, middle if is_below else end
        numbers[i] = first


@jit
def run_step(code: int, a: float, b: float, bounds: Array, numbers: Array) -> None:
    """Runs one transform in place.

    Args:
        code: what to do.
        a: float32, its first argument.
        b: float32, its second one.
        bounds: float64, its boundaries, ascending.
        numbers: float32 [rows].
    """
    if code == _SCALE:
        for i in range(len(numbers)):
            numbers[i] = (numbers[i] - a) / b
    elif code == _CLAMP:
        for i in range(len(numbers)):
            raised = a if numbers[i] < a else numbers[i]
            numbers[i] = b if raised > b else raised
    elif code == _LOG:
        for i in range(len(numbers)):
            number = np.float64(numbers[i])
            numbers[i] = math.copysign(math.log1p(abs(number)), number)
    elif code == _FILL:
        for i in range(len(numbers)):
            numbers[i] = numbers[i] if numbers[i] - numbers[i] == 0 else a
    else:
        count_below(bounds, numbers)


@jit
def run_chains(
    columns: Array, places: Array, program: tuple[Array, Array, Array, Array, Array], work: Array, out: Array
) -> bool:
    """Runs chains of transforms; see ``NumberChains.run``.

    Args:
        columns: int64 [n], addresses of float32 [rows].
        places: int64 [n], the columns of ``out`` that receive them.
        program: where the transforms of each feature begin, int64 [n + 1]; what each does, int64 [S], with two numbers,
            float32 [S, 2]; where the boundaries of each begin, int64 [S + 1], and the boundaries, float64.
        work: float32 [rows], scratch.
        out: float32 [rows, at least n].
    """
    starts, codes, numbers, ends, bounds = program
    are_finite = True
    for n in range(len(columns)):
        column, first, end = columns[n], starts[n], starts[n + 1]
        is_filled = first < end and codes[first] == _FILL
        for i in range(len(work)):
            x = load_float(column, i)
            are_finite &= (x - x == 0) | is_filled  # neither nan nor infinite
            work[i] = x
        for s in range(first, end):
            run_step(codes[s], numbers[s, 0], numbers[s, 1], bounds[ends[s] : ends[s + 1]], work)
        place = places[n]
        for i in range(len(work)):
            are_finite &= work[i] - work[i] == 0
            out[i, place] = work[i]
    return are_finite
