"""Compiled loops over the rows of embedding tables: find them, pool them, sort what looked them up.

The rows lie apart in memory, where a table is larger than every cache. So the loops go over positions that are known
beforehand, and begin to fetch a row ``AHEAD`` rows before they need it. All tables of a kernel lie in one array::

    shards  uint-like int64 [T, 5]: first key, keys, first element of the weights, rows, columns
    keys    int64 [K, 2]: shard, first column in the output

Indices are computed as int64 and cast to uint64 where they are used: numba then leaves out the code for negative ones,
and LLVM can use vector instructions.
"""

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.instructions import LINE, add_scaled, prefetch, set_scaled
from recd_dist.table.loops import jit

FIRST_KEY, NUM_KEYS, START, ROWS, COLUMNS = range(5)
"""The columns of ``shards``; those of the optimizer's states follow."""

SHARD, OUT_COLUMN = range(2)
"""The columns of ``keys``."""

AHEAD = 32
"""How many rows ahead a row is fetched; on an AMD EPYC 16 to 64 were equally fast."""

UNIT = 4
"""What every width is a multiple of, in columns; fbgemm asks for it."""

u = np.uint64
LOW = u(0xFFFFFFFF)
HALF = u(32)


@jit
def fetch(address: int, num_bytes: int) -> None:
    """Begins to fetch the cache lines of some bytes."""
    for line in range(address & ~(LINE - 1), address + num_bytes, LINE):
        prefetch(line)


@jit
def place_ids(
    ids: Array, lengths: Array, keys: Array, shards: Array, stride: int, width: int, weighted: bool,
    offsets: Array, positions: Array, sources: Array, packed: Array,
) -> int:  # fmt: skip
    """Finds where the rows lie that ids look up.

    Args:
        ids: int32 or int64 [N], key after key, row after row.
        lengths: int32 [K * stride], the number of ids of each row of the output.
        keys: see above.
        shards: see above.
        stride: number of rows of the output.
        width: number of columns of the output.
        weighted: True if ids have weights.
        offsets: int64 [K * stride + 1], receives where the ids of each row of each key begin.
        positions: int64 [N], receives for each id the first element of its row in the weights.
        sources: int64 [N] if weighted, else empty; receives for each id the first element of its gradient.
        packed: uint64 [N], or empty if nothing is updated; receives for each id the id, and in the lower 32 bits its
            number if weighted, else the first element of its gradient divided by ``UNIT``.

    Returns:
        How many ids lie outside their table. They look up row 0.
    """
    num_bad, i, offsets[0] = 0, 0, 0
    for k in range(len(keys)):
        shard = keys[k, SHARD]
        start, rows, columns = shards[shard, START], shards[shard, ROWS], shards[shard, COLUMNS]
        for j in range(stride):
            row = k * stride + j
            source = j * width + keys[k, OUT_COLUMN]
            end = i + lengths[row]
            offsets[row + 1] = end
            for n in range(i, end):
                x = np.int64(ids[u(n)])
                if x < 0 or x >= rows:
                    num_bad += 1
                    x = 0
                positions[u(n)] = start + x * columns
                if len(packed):
                    if weighted:
                        sources[u(n)] = source
                        packed[u(n)] = (u(x) << HALF) | u(n)
                    else:
                        packed[u(n)] = (u(x) << HALF) | u(source // UNIT)
            i = end
    return num_bad


@jit
def pool_rows(
    weights: Array, keys: Array, shards: Array, stride: int, width: int,
    offsets: Array, positions: Array, factors: Array, out: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Sums up the rows of each list of ids.

    Args:
        weights: float32, of all tables.
        keys: see above.
        shards: see above.
        stride: number of rows of the output.
        width: number of columns of the output.
        offsets: int64 [K * stride + 1], where the ids of each row of each key begin.
        positions: int64 [N], the first element of each row in the weights.
        factors: float32 [N], what each row is multiplied by; empty for 1.
        out: float32 [stride * width], receives the sums.
        first: the first row of a key that is computed, of K * stride.
        last: where the rows end that are computed.
    """
    base, target = weights.ctypes.data, out.ctypes.data
    total, weighted, factor, fetched = len(positions), len(factors) > 0, np.float32(1), offsets[first]
    for k in range(first // stride, (last - 1) // stride + 1):
        columns, column = shards[keys[k, SHARD], COLUMNS], keys[k, OUT_COLUMN]
        for row in range(max(first, k * stride), min(last, (k + 1) * stride)):
            place = (row - k * stride) * width + column
            sums, begin, end = target + 4 * place, offsets[row], offsets[row + 1]
            if begin == end:
                for c in range(place, place + columns):
                    out[u(c)] = 0
            for n in range(begin, end):
                while fetched < min(n + AHEAD, total):
                    fetch(base + 4 * positions[u(fetched)], 4 * columns)
                    fetched += 1
                if weighted:
                    factor = factors[u(n)]
                row_address = base + 4 * positions[u(n)]
                if n == begin:
                    set_scaled(sums, row_address, factor, columns)
                else:
                    add_scaled(sums, row_address, factor, columns)


@jit
def sort_ids(packed: Array, spare: Array, offsets: Array, shards: Array, stride: int, part: int, num_parts: int) -> None:
    """Sorts the ids of each table, so that equal ones stand side by side, in the order in which they came.

    Args:
        packed: uint64 [N], ids in the upper 32 bits; sorted in place.
        spare: uint64 [N], for intermediate results.
        offsets: int64 [K * stride + 1], where the ids of each row of each key begin.
        shards: see above.
        stride: number of rows of the output.
        part: which of the parts of the tables is sorted.
        num_parts: number of parts.
    """
    counts = np.empty(1 << 11, np.int64)
    for shard in range(part, len(shards), num_parts):
        first_key = shards[shard, FIRST_KEY]
        begin, end = offsets[first_key * stride], offsets[(first_key + shards[shard, NUM_KEYS]) * stride]
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
