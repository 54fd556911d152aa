"""The compiled loop that adds up the gradients of equal ids and updates their rows, one exact update per row and step.

It goes over sorted ids. The gradients of a row are added up in the order in which its ids came, so that the result is
the same in every run, however many threads there are. The formulas are those of fbgemm's kernels.
"""

import numpy as np

from recd_dist.embedding.lookup.row_loops import (
    AHEAD,
    CHUNK,
    COLUMNS,
    HALF,
    LOW,
    START,
    STATE,
    UNIT,
    Rows,
    Tables,
    fetch,
    i64,
    ids_of_shard,
    u,
)
from recd_dist.table.column import Array
from recd_dist.table.instructions import adagrad_step, add_number, add_scaled, sum_rows, sum_squares
from recd_dist.table.loops import jit

SGD, ROWWISE_ADAGRAD, ADAGRAD = range(3)
"""The optimizers."""

LR, EPS = range(2)
"""The places of the optimizer's numbers."""

NEAR = 2**19
"""Gradients of so many bytes lie in the second-level cache, and need not be fetched ahead."""


@jit
def update_rows(
    tables: Tables, rows: Rows, gradient: Array, optimizer: int, numbers: Array, part: int, num_parts: int
) -> None:
    """Updates the rows that were looked up.

    Args:
        tables: the tables.
        rows: what was looked up, sorted by ``row_loops.sort_ids``.
        gradient: float32 [stride * width], of the output.
        optimizer: one of the optimizers above.
        numbers: float32, see above.
        part: which part of the ids is taken.
        num_parts: number of parts; a row belongs to the part in which its first id lies.
    """
    shards, packed, weighted = tables.shards, rows.packed, len(rows.factors) > 0
    places, factors = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.float32)
    buffer, is_far = np.zeros(tables.width, np.float32), 4 * len(gradient) > NEAR
    given, total = gradient.ctypes.data, buffer.ctypes.data
    for shard in range(len(shards)):
        lowest, highest = ids_of_shard(tables, rows, shard)
        begin = lowest + (highest - lowest) * part // num_parts
        end = lowest + (highest - lowest) * (part + 1) // num_parts
        while lowest < begin < end and packed[u(begin)] >> HALF == packed[u(begin - 1)] >> HALF:
            begin += 1
        columns, row_bytes = shards[shard, COLUMNS], 4 * shards[shard, COLUMNS]
        state_bytes = _state_bytes(optimizer, row_bytes)
        table = tables.weights.ctypes.data + 4 * shards[shard, START]
        states = tables.state.ctypes.data + 4 * shards[shard, STATE]
        n = fetched = begin
        while n < end:
            x, last = packed[u(n)] >> HALF, n + 1
            while last < highest and packed[u(last)] >> HALF == x:
                last += 1
            while fetched < min(last - 1 + AHEAD, highest):
                one, low = packed[u(fetched)] >> HALF, packed[u(fetched)] & LOW
                if fetched == begin or one != packed[u(fetched - 1)] >> HALF:
                    fetch(table + i64(one) * row_bytes, row_bytes)
                    fetch(states + i64(one) * state_bytes, state_bytes)
                if is_far:
                    fetch(given + 4 * (rows.sources[low] if weighted else UNIT * i64(low)), row_bytes)
                fetched += 1
            if last == n + 1 and not weighted:
                slope = given + 4 * UNIT * i64(packed[u(n)] & LOW)
            else:
                slope = total
                _sum_gradients(rows, gradient, buffer, places, factors, n, last, columns)
            row = i64(x)
            _update_row(table + row * row_bytes, states + row * state_bytes, slope, columns, optimizer, numbers)
            n = last


@jit
def _sum_gradients(
    rows: Rows, gradient: Array, total: Array, places: Array, factors: Array, first: int, last: int, columns: int
) -> None:
    """Adds up the gradients of some sorted ids, each times the weight of its id."""
    weighted = len(rows.factors) > 0
    for n in range(first, last, CHUNK):
        count = min(last - n, CHUNK)
        for i in range(count):
            low = rows.packed[u(n + i)] & LOW
            if weighted:
                places[u(i)], factors[u(i)] = rows.sources[low], rows.factors[low]
            else:
                places[u(i)] = UNIT * i64(low)
        sum_rows(
            total.ctypes.data, gradient.ctypes.data, places.ctypes.data, factors.ctypes.data if weighted else 0,
            count, columns, n == first,
        )  # fmt: skip


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
