"""DIN's activation unit between two matrix products, for the host.

For each pair of a candidate c and a vector h of its list::

    x = of_vector[h] + of_candidate[c] + W (h * c)      score = sum over k of out[k] * prelu(x[k])

The products ``W (h * c)`` come from matrices, for slots of candidates that look at one list (model/unit_blocks.py).
What is done here to each number of x would be five passes over memory in torch, and is one.
"""

import numpy as np
import numpy.typing as npt

from recd_dist.table.loops import jit_sums
from recd_dist.tensors.list_loops import Floats, Integers, turn, turn_back

Layers = tuple[Floats, Floats, Floats, Floats]
"""The vectors' part [N, hidden], the candidates' part [M, hidden], the output's weight [hidden], PReLU's slope [1]."""

Slots = tuple[Integers, Integers, npt.NDArray[np.int64], Integers]
"""Where each slot's list begins and how long it is [slots], its candidates [slots, width] (-1 for none), and where each
candidate's pairs begin [M + 1]."""


@jit_sums
def score_slots(x: Floats, layers: Layers, slots: Slots, scores: Floats) -> None:
    """Adds the scores of a block's pairs to zeros.

    Args:
        x: the products, [slots, width * hidden, longest].
        layers: the other parts of the unit.
        slots: the block.
        scores: [pairs].
    """
    of_vector, of_candidate, out, slope = layers
    starts, lengths, queries, offsets = slots
    hidden, a = len(out), slope[0]
    own = np.empty((hidden, x.shape[2]), x.dtype)
    for s in range(len(starts)):
        n = lengths[s]
        turn(of_vector, starts[s], n, own)
        for i in range(queries.shape[1]):
            b = queries[s, i]
            if b < 0:
                continue
            row = scores[offsets[b] : offsets[b] + n]
            for k in range(hidden):
                line, weight, shift = x[s, i * hidden + k], out[k], of_candidate[b, k]
                for j in range(n):
                    value = line[j] + own[k, j] + shift
                    row[j] += weight * (value if value > 0 else a * value)


@jit_sums
def score_slots_backward(x: Floats, layers: Layers, slots: Slots, grad: Floats, grads: Layers) -> None:
    """Puts the gradient of ``score_slots`` by x into x, and adds the other gradients."""
    of_vector, of_candidate, out, slope = layers
    starts, lengths, queries, offsets = slots
    grad_of_vector, grad_of_candidate, grad_out, grad_slope = grads
    hidden, a = len(out), slope[0]
    own, grad_own = np.empty((hidden, x.shape[2]), x.dtype), np.empty((hidden, x.shape[2]), x.dtype)
    for s in range(len(starts)):
        n = lengths[s]
        turn(of_vector, starts[s], n, own)
        grad_own[:, :n] = 0
        for i in range(queries.shape[1]):
            b = queries[s, i]
            if b < 0:
                x[s, i * hidden : (i + 1) * hidden] = 0
                continue
            row = grad[offsets[b] : offsets[b] + n]
            for k in range(hidden):
                line, weight, shift = x[s, i * hidden + k], out[k], of_candidate[b, k]
                of_out, of_slope, total = a * 0, a * 0, a * 0
                for j in range(n):
                    value = line[j] + own[k, j] + shift
                    is_on = value > 0
                    of_out += row[j] * (value if is_on else a * value)
                    of_slope += row[j] * (a * 0 if is_on else value)
                    line[j] = row[j] * (weight if is_on else a * weight)
                    grad_own[k, j] += line[j]
                    total += line[j]
                line[n:] = 0
                grad_out[k] += of_out
                grad_slope[0] += weight * of_slope
                grad_of_candidate[b, k] += total
        turn_back(grad_own, starts[s], n, grad_of_vector)


@jit_sums
def add_slots(grad: Floats, starts: Integers, lengths: Integers, grad_vector: Floats) -> None:
    """Adds the gradients of slots, [slots, longest, dim], to those of the vectors of their lists."""
    for s in range(len(starts)):
        for j in range(lengths[s]):
            for d in range(grad.shape[2]):
                grad_vector[starts[s] + j, d] += grad[s, j, d]


@jit_sums
def add_factors(
    grad: Floats,
    queries: npt.NDArray[np.int64],
    candidate: Floats,
    product: Floats,
    grad_candidate: Floats,
    grad_product: Floats,
) -> None:
    """Adds the gradients of candidates and of the products' weight: those of the factors ``product * candidate``.

    Args:
        grad: the gradient of the factors, [cells, hidden, dim].
        queries: the candidate of each cell, -1 for none.
        candidate: [M, dim].
        product: the weight, [hidden, dim].
        grad_candidate: [M, dim].
        grad_product: [hidden, dim].
    """
    for cell in range(len(queries)):
        b = queries[cell]
        if b < 0:
            continue
        for k in range(product.shape[0]):
            for d in range(product.shape[1]):
                grad_product[k, d] += grad[cell, k, d] * candidate[b, d]
                grad_candidate[b, d] += grad[cell, k, d] * product[k, d]
