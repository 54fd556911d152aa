"""The compiled loop that adds up the gradients of equal ids and updates their rows, one exact update per row and step.

It goes over sorted ids. The gradients of a row are added up in the order in which its ids came, so that the result is
the same in every run, however many threads there are. The formulas are those of fbgemm's kernels.
"""

import numpy as np

from recd_dist.embedding.lookup.row_loops import (
    AHEAD,
    COLUMNS,
    FIRST_KEY,
    HALF,
    LOW,
    NUM_KEYS,
    START,
    UNIT,
    fetch,
    u,
)
from recd_dist.table.column import Array
from recd_dist.table.instructions import adagrad_step, add_number, add_scaled, set_scaled, sum_squares
from recd_dist.table.loops import jit

STATE = COLUMNS + 1
"""The column of ``shards`` that says where the optimizer's state of a table begins."""

SGD, ROWWISE_ADAGRAD, ADAGRAD = range(3)
"""The optimizers."""

LR, EPS = range(2)
"""The places of the optimizer's numbers."""


@jit
def update_rows(
    weights: Array, state: Array, shards: Array, stride: int, offsets: Array,
    packed: Array, sources: Array, factors: Array, gradient: Array,
    optimizer: int, numbers: Array, part: int, num_parts: int,
) -> None:  # fmt: skip
    """Updates the rows that were looked up.

    Args:
        weights: float32, of all tables.
        state: float32, of all tables: the sums of squares; empty for sgd.
        shards: see ``row_loops``.
        stride: number of rows of the output.
        offsets: int64 [K * stride + 1], where the ids of each row of each key begin.
        packed: uint64 [N], sorted by ``row_loops.sort_ids``.
        sources: int64 [N], the first element of each id's gradient; empty if ids have no weights.
        factors: float32 [N], the weight of each id; empty for 1.
        gradient: float32 [stride * width], of the output.
        optimizer: one of the optimizers above.
        numbers: float32, see above.
        part: which part of the ids is taken.
        num_parts: number of parts; a row belongs to the part in which its first id lies.
    """
    weighted, factor, buffer = len(factors) > 0, np.float32(1), np.zeros(_widest(shards), np.float32)
    given, total = gradient.ctypes.data, buffer.ctypes.data
    for shard in range(len(shards)):
        first_key = shards[shard, FIRST_KEY]
        lowest, highest = offsets[first_key * stride], offsets[(first_key + shards[shard, NUM_KEYS]) * stride]
        begin = lowest + (highest - lowest) * part // num_parts
        end = lowest + (highest - lowest) * (part + 1) // num_parts
        while lowest < begin < end and packed[u(begin)] >> HALF == packed[u(begin - 1)] >> HALF:
            begin += 1
        columns, row_bytes = shards[shard, COLUMNS], 4 * shards[shard, COLUMNS]
        state_bytes = _state_bytes(optimizer, row_bytes)
        table = weights.ctypes.data + 4 * shards[shard, START]
        states = state.ctypes.data + 4 * shards[shard, STATE]
        n = fetched = begin
        while n < end:
            x, last = packed[u(n)] >> HALF, n + 1
            while last < highest and packed[u(last)] >> HALF == x:
                last += 1
            while fetched < min(last - 1 + AHEAD, highest):
                y = np.int64(packed[u(fetched)] >> HALF)
                fetch(table + y * row_bytes, row_bytes)
                fetch(states + y * state_bytes, state_bytes)
                fetched += 1
            if last == n + 1 and not weighted:
                slope = given + 4 * UNIT * np.int64(packed[u(n)] & LOW)
            else:
                slope = total
                for i in range(n, last):
                    low = packed[u(i)] & LOW
                    if weighted:
                        one, factor = given + 4 * sources[low], factors[low]
                    else:
                        one = given + 4 * UNIT * np.int64(low)
                    if i == n:
                        set_scaled(total, one, factor, columns)
                    else:
                        add_scaled(total, one, factor, columns)
            row = np.int64(x)
            _update_row(table + row * row_bytes, states + row * state_bytes, slope, columns, optimizer, numbers)
            n = last


@jit
def _widest(shards: Array) -> int:
    widest = 0
    for shard in range(len(shards)):
        widest = max(widest, shards[shard, COLUMNS])
    return widest


@jit
def _state_bytes(optimizer: int, row_bytes: int) -> int:
    """Bytes of the optimizer's state of a row."""
    if optimizer == SGD:
        return 0
    return 4 if optimizer == ROWWISE_ADAGRAD else row_bytes


@jit
def _update_row(row: int, state: int, slope: int, columns: int, optimizer: int, numbers: Array) -> None:
    """Updates one row of a table; the row, its state and its gradient are given by their addresses."""
    lr, eps = numbers[LR], numbers[EPS]
    if optimizer == SGD:
        add_scaled(row, slope, -lr, columns)
    elif optimizer == ROWWISE_ADAGRAD:
        total = add_number(state, sum_squares(slope, columns) / np.float32(columns))
        add_scaled(row, slope, -lr / (np.sqrt(total) + eps), columns)
    elif optimizer == ADAGRAD:
        adagrad_step(row, state, slope, lr, eps, columns)
