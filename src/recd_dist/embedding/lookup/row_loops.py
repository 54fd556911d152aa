"""Compiled loops over the rows of embedding tables: find them, pool them, sort what looked them up.

The rows lie apart in memory, where a table is larger than every cache. So the loops go over positions that are known
beforehand, and begin to fetch a row ``AHEAD`` rows before they need it. All tables of a kernel lie in one array::

    shards  int64 [T, 6]: first key, number of keys, first element of the weights, rows, columns, first element of the
            optimizer's state
    keys    int64 [K, 2]: shard, first column in the output

Indices are computed as int64 and cast to uint64 where they are used: numba then leaves out the code for negative ones,
and LLVM can use vector instructions.
"""

from typing import Any, NamedTuple

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.instructions import LINE, prefetch, sum_rows
from recd_dist.table.loops import jit

FIRST_KEY, NUM_KEYS, START, ROWS, COLUMNS, STATE = range(6)
"""The columns of ``shards``."""

SHARD, OUT_COLUMN = range(2)
"""The columns of ``keys``."""

AHEAD = 32
"""How many rows ahead a row is fetched; on an AMD EPYC 16 to 64 were equally fast."""

CHUNK = 8
"""How many rows are added up at once, before further ones are fetched."""

UNIT = 4
"""What every width is a multiple of, in columns; fbgemm asks for it."""

u: Any = np.uint64
"""Casts a number to uint64, and ``i64`` to int64; numba takes both."""

i64: Any = np.int64

LOW = u(0xFFFFFFFF)
HALF = u(32)


class Tables(NamedTuple):
    """What the loops know of a kernel's tables; numba takes such tuples.

    Attributes:
        weights: float32, of all tables.
        state: float32, the optimizer's sums of squares, of all tables; empty if it has none.
        shards: see above.
        keys: see above.
        width: number of columns of the output.
    """

    weights: Array
    state: Array
    shards: Array
    keys: Array
    width: int


class Rows(NamedTuple):
    """What a batch looks up: N ids in ``stride`` rows of each of K keys.

    Attributes:
        stride: number of rows of the output.
        factors: float32 [N], what the row of each id is multiplied by; empty for 1.
        offsets: int64 [K * stride + 1], where the ids of each row of each key begin.
        positions: int64 [N], for each id the first element of its row in the weights.
        sources: int64 [N], for each id the first element of its gradient; only with factors, else empty.
        packed: uint64 [N], each id, and in the lower 32 bits its number if there are factors, else the first element of
            its gradient divided by ``UNIT``; empty if nothing is updated.
    """

    stride: int
    factors: Array
    offsets: Array
    positions: Array
    sources: Array
    packed: Array


@jit
def fetch(address: int, num_bytes: int) -> None:
    """Begins to fetch the cache lines of some bytes."""
    for line in range(address & ~(LINE - 1), address + num_bytes, LINE):
        prefetch(line)


@jit
def place_ids(tables: Tables, rows: Rows, ids: Array, lengths: Array) -> int:
    """Finds where the rows lie that ids look up, and fills the arrays of ``rows`` but the factors.

    Args:
        tables: the tables.
        rows: what is filled.
        ids: int32 or int64 [N], key after key, row after row.
        lengths: int32 [K * stride], the number of ids of each row of each key.

    Returns:
        How many ids lie outside their table, which look up row 0; -1 if the lengths do not sum to N.
    """
    keys, shards, stride, weighted = tables.keys, tables.shards, rows.stride, len(rows.factors) > 0
    offsets, positions, sources, packed = rows.offsets, rows.positions, rows.sources, rows.packed
    num_bad, i, offsets[0] = 0, 0, 0
    for k in range(len(keys)):
        shard = keys[k, SHARD]
        start, size, columns = shards[shard, START], shards[shard, ROWS], shards[shard, COLUMNS]
        for j in range(stride):
            row = k * stride + j
            source = j * tables.width + keys[k, OUT_COLUMN]
            end = i + lengths[row]
            if end < i or end > len(ids):
                return -1
            offsets[row + 1] = end
            for n in range(i, end):
                x = i64(ids[u(n)])
                if x < 0 or x >= size:
                    num_bad += 1
                    x = 0
                positions[u(n)] = start + x * columns
                if len(packed) and weighted:
                    sources[u(n)] = source
                    packed[u(n)] = (u(x) << HALF) | u(n)
                elif len(packed):
                    packed[u(n)] = (u(x) << HALF) | u(source // UNIT)
            i = end
    return num_bad if i == len(ids) else -1


@jit
def pool_rows(tables: Tables, rows: Rows, out: Array, first: int, last: int) -> None:
    """Sums up the rows of each list of ids.

    Args:
        tables: the tables.
        rows: what is looked up.
        out: float32 [stride * width], receives the sums.
        first: the first row of a key that is computed, of K * stride.
        last: where the rows end that are computed.
    """
    base, target = tables.weights.ctypes.data, out.ctypes.data
    stride, offsets, positions, weighted = rows.stride, rows.offsets, rows.positions, len(rows.factors) > 0
    total, fetched = len(positions), offsets[first]
    for k in range(first // stride, (last - 1) // stride + 1):
        columns, column = tables.shards[tables.keys[k, SHARD], COLUMNS], tables.keys[k, OUT_COLUMN]
        for row in range(max(first, k * stride), min(last, (k + 1) * stride)):
            place = (row - k * stride) * tables.width + column
            sums, begin, end = target + 4 * place, offsets[row], offsets[row + 1]
            if begin == end:
                for c in range(place, place + columns):
                    out[u(c)] = 0
            for n in range(begin, end, CHUNK):
                stop = min(n + CHUNK, end)
                while fetched < min(stop + AHEAD, total):
                    fetch(base + 4 * positions[u(fetched)], 4 * columns)
                    fetched += 1
                factors = rows.factors.ctypes.data + 4 * n if weighted else 0
                sum_rows(sums, base, positions.ctypes.data + 8 * n, factors, stop - n, columns, n == begin)


@jit
def sort_ids(tables: Tables, rows: Rows, spare: Array, part: int, num_parts: int) -> None:
    """Sorts the packed ids of each table, so that equal ones stand side by side, in the order in which they came.

    Args:
        tables: the tables.
        rows: what was looked up; ``packed`` is sorted in place.
        spare: uint64 [N], for intermediate results.
        part: which of the parts of the tables is sorted.
        num_parts: number of parts.
    """
    shards, packed, counts = tables.shards, rows.packed, np.empty(1 << 11, np.int64)
    for shard in range(part, len(shards), num_parts):
        begin, end = ids_of_shard(tables, rows, shard)
        if end - begin <= 64:
            _insert(packed, begin, end)
            continue
        bits = 1
        while shards[shard, ROWS] > 1 << bits:
            bits += 1
        widest = 11 if end - begin > 8192 else 8
        num_passes = (bits + widest - 1) // widest
        digit = (bits + num_passes - 1) // num_passes
        for n in range(num_passes):
            shift = u(32 + n * digit)
            if n % 2:
                _scatter(spare, packed, begin, end, shift, digit, counts)
            else:
                _scatter(packed, spare, begin, end, shift, digit, counts)
        if num_passes % 2:
            for i in range(begin, end):
                packed[u(i)] = spare[u(i)]


@jit
def ids_of_shard(tables: Tables, rows: Rows, shard: int) -> tuple[int, int]:
    """Where the ids of a table begin and end."""
    first = tables.shards[shard, FIRST_KEY]
    return rows.offsets[first * rows.stride], rows.offsets[(first + tables.shards[shard, NUM_KEYS]) * rows.stride]


@jit
def _insert(packed: Array, begin: int, end: int) -> None:
    """Sorts few ids by insertion."""
    for i in range(begin + 1, end):
        one = packed[u(i)]
        j = i
        while j > begin and packed[u(j - 1)] >> HALF > one >> HALF:
            packed[u(j)] = packed[u(j - 1)]
            j -= 1
        packed[u(j)] = one


@jit
def _scatter(given: Array, sorted_: Array, begin: int, end: int, shift: np.uint64, digit: int, counts: Array) -> None:
    """Sorts by one digit of the ids."""
    mask = u((1 << digit) - 1)
    for n in range(1 << digit):
        counts[u(n)] = 0
    for i in range(begin, end):
        counts[(given[u(i)] >> shift) & mask] += 1
    place = begin
    for n in range(1 << digit):
        count = counts[u(n)]
        counts[u(n)] = place
        place += count
    for i in range(begin, end):
        one = given[u(i)]
        slot = (one >> shift) & mask
        sorted_[u(counts[slot])] = one
        counts[slot] += 1
