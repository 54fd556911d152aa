"""Loops over lists of vectors and the queries that look at them, for the host.

The lists of a batch are jagged: list u is ``values[starts[u] : starts[u] + lengths[u]]``. Its queries are
``order[bounds[u] : bounds[u + 1]]``. What is computed for each pair of a query and a vector of its list stands in a
matrix [heads, pairs]: n numbers for each query, from ``offsets[query]``.

Loops get whole arrays and a first line, not slices of lines: numba would not know that such a slice's numbers stand
side by side, and a loop over them would not run in vectors.

Inside, a list is turned, [dim, n], so that every inner loop runs along the list: it needs no padding, runs in vectors
whatever the width, and a list is read once however many queries it has.
"""

import numpy as np
import numpy.typing as npt

from recd_dist.table.loops import jit, jit_sums

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Places = tuple[Integers, Integers, Integers, Integers, Integers]
"""Starts and lengths of the lists; order, bounds and offsets of their queries."""


@jit_sums
def turn(values: Floats, start: int, length: int, lines: Floats) -> None:
    """``lines[d, j] = values[start + j, d]``."""
    for j in range(length):
        for d in range(values.shape[1]):
            lines[d, j] = values[start + j, d]


@jit_sums
def turn_back(lines: Floats, start: int, length: int, values: Floats) -> None:
    """``values[start + j, d] += lines[d, j]``."""
    for j in range(length):
        for d in range(values.shape[1]):
            values[start + j, d] += lines[d, j]


@jit_sums
def add_products(factors: Floats, lines: Floats, low: int, row: Floats) -> None:
    """``row[j] += sum over d of factors[d] * lines[low + d, j]``, four lines at a time: the row is read less often."""
    num, n = len(factors), len(row)
    whole = num - num % 4
    for d in range(0, whole, 4):
        a, b, c, e = factors[d], factors[d + 1], factors[d + 2], factors[d + 3]
        k = low + d
        for j in range(n):
            row[j] += a * lines[k, j] + b * lines[k + 1, j] + c * lines[k + 2, j] + e * lines[k + 3, j]
    for d in range(whole, num):
        a = factors[d]
        for j in range(n):
            row[j] += a * lines[low + d, j]


@jit_sums
def add_dots(lines: Floats, low: int, row: Floats, sums: Floats) -> None:
    """``sums[d] += sum over j of lines[low + d, j] * row[j]``."""
    for d in range(len(sums)):
        total = sums[d] * 0
        for j in range(len(row)):
            total += lines[low + d, j] * row[j]
        sums[d] += total


@jit_sums
def add_outer(factors: Floats, row: Floats, lines: Floats, low: int) -> None:
    """``lines[low + d, j] += factors[d] * row[j]``."""
    for d in range(len(factors)):
        factor = factors[d]
        for j in range(len(row)):
            lines[low + d, j] += factor * row[j]


@jit_sums
def score_pairs(
    query: Floats,
    key: Floats,
    bias: Floats,
    places: Places,
    heads: int,
    scores: Floats,
) -> None:
    """Dot products of each query with the vectors of its list, head by head, plus a bias by the age of the vector.

    ``bias`` is [heads, longest], or [heads, 0] for none; the age of the last vector is 0.
    """
    starts, lengths, order, bounds, offsets = places
    width = query.shape[1] // heads
    lines = np.empty((key.shape[1], lengths.max()), key.dtype)
    for u in range(len(starts)):
        n = lengths[u]
        turn(key, starts[u], n, lines)
        for i in range(bounds[u], bounds[u + 1]):
            b = order[i]
            for h in range(heads):
                first = offsets[b]
                row = scores[h, first : first + n]
                for j in range(n):
                    row[j] = bias[h, n - 1 - j] if bias.shape[1] else 0
                add_products(query[b, h * width : (h + 1) * width], lines, h * width, row)


@jit_sums
def score_pairs_backward(
    query: Floats,
    key: Floats,
    places: Places,
    grad: Floats,
    grad_query: Floats,
    grad_key: Floats,
    grad_bias: Floats,
) -> None:
    """Adds the gradients of ``score_pairs`` to arrays of zeros."""
    starts, lengths, order, bounds, offsets = places
    heads = len(grad_bias)
    width = query.shape[1] // heads
    longest = lengths.max()
    lines, grad_lines = np.empty((key.shape[1], longest), key.dtype), np.empty((key.shape[1], longest), key.dtype)
    for u in range(len(starts)):
        n = lengths[u]
        turn(key, starts[u], n, lines)
        grad_lines[:, :n] = 0
        for i in range(bounds[u], bounds[u + 1]):
            b = order[i]
            for h in range(heads):
                first, low, high = offsets[b], h * width, (h + 1) * width
                row = grad[h, first : first + n]
                if grad_bias.shape[1]:
                    for j in range(n):
                        grad_bias[h, n - 1 - j] += row[j]
                add_dots(lines, low, row, grad_query[b, low:high])
                add_outer(query[b, low:high], row, grad_lines, low)
        turn_back(grad_lines, starts[u], n, grad_key)


@jit_sums
def sum_pairs(
    weights: Floats,
    value: Floats,
    places: Places,
    heads: int,
    sums: Floats,
) -> None:
    """Adds to zeros, for each query and head, the weighted sum of the vectors of its list."""
    starts, lengths, order, bounds, offsets = places
    width = value.shape[1] // heads
    lines = np.empty((value.shape[1], lengths.max()), value.dtype)
    for u in range(len(starts)):
        n = lengths[u]
        turn(value, starts[u], n, lines)
        for i in range(bounds[u], bounds[u + 1]):
            b = order[i]
            for h in range(heads):
                first = offsets[b]
                low, high = h * width, (h + 1) * width
                add_dots(lines, low, weights[h, first : first + n], sums[b, low:high])


@jit_sums
def sum_pairs_backward(
    weights: Floats,
    value: Floats,
    places: Places,
    heads: int,
    grad: Floats,
    grad_weights: Floats,
    grad_value: Floats,
) -> None:
    """Adds the gradients of ``sum_pairs`` to arrays of zeros."""
    starts, lengths, order, bounds, offsets = places
    width = value.shape[1] // heads
    longest = lengths.max()
    lines, grad_lines = (
        np.empty((value.shape[1], longest), value.dtype),
        np.empty((value.shape[1], longest), value.dtype),
    )
    for u in range(len(starts)):
        n = lengths[u]
        turn(value, starts[u], n, lines)
        grad_lines[:, :n] = 0
        for i in range(bounds[u], bounds[u + 1]):
            b = order[i]
            for h in range(heads):
                first, low, high = offsets[b], h * width, (h + 1) * width
                add_products(grad[b, low:high], lines, low, grad_weights[h, first : first + n])
                add_outer(grad[b, low:high], weights[h, first : first + n], grad_lines, low)
        turn_back(grad_lines, starts[u], n, grad_value)


@jit
def subtract_largest(scores: Floats, lengths: Integers) -> None:
    """Subtracts from each run of numbers its largest, in place; ``lengths`` has the lengths of a row's runs."""
    for h in range(len(scores)):
        first = 0
        for n in lengths:
            if n:
                largest = scores[h, first]
                for j in range(first, first + n):
                    largest = max(largest, scores[h, j])
                for j in range(first, first + n):
                    scores[h, j] -= largest
            first += n


@jit_sums
def divide_by_sums(weights: Floats, lengths: Integers) -> None:
    """Divides each run of numbers by its sum, in place."""
    for h in range(len(weights)):
        first = 0
        for n in lengths:
            total = weights[h, first : first + n].sum()
            for j in range(first, first + n):
                weights[h, j] /= total
            first += n


@jit_sums
def softmax_backward(weights: Floats, grad: Floats, lengths: Integers, grad_scores: Floats) -> None:
    """The gradient of a softmax over runs of numbers."""
    for h in range(len(weights)):
        first = 0
        for n in lengths:
            total = weights[h, :1].sum() * 0
            for j in range(first, first + n):
                total += weights[h, j] * grad[h, j]
            for j in range(first, first + n):
                grad_scores[h, j] = weights[h, j] * (grad[h, j] - total)
            first += n
