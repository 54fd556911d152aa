"""Compiled loops that find the rows of a batch and gather their values.

Rows lie where they were decoded, row group by row group, and are copied once, into the batch. Samples and rows of a
batch are runs: some of them side by side in a row group, from a first one on. A session's samples are a run, and so are
their rows of a group, so that mostly a few numbers say what to copy, and one copy takes many rows.

``places`` is int64 [row groups, features, 6]: the addresses of a feature's values, offsets, starts, lengths and weights
in each row group, 0 where there are none, and the number of its values, which only windows need. Single values have no
offsets; lists have int32 offsets [rows + 1]; windows have int32 starts and lengths [rows].
"""

import numpy as np

from recd_dist.table.column import Array
from recd_dist.table.loops import copy_bytes, jit, load_float, load_int32, prefetch, splitmix64_one, store_int32

VALUES, OFFSETS, STARTS, LENGTHS, WEIGHTS, NUM_VALUES = range(6)
"""The columns of ``places``."""


_AHEAD, _LINE = 6, 64
"""How many runs ahead a loop asks for what it will copy, and bytes of a line of the cache."""


@jit
def split_into_runs(order: Array, ends: Array, runs: Array) -> int:
    """Finds the runs of samples side by side.

    Args:
        order: int64 [N], places of samples in the row groups laid side by side.
        ends: int64 [row groups], where each row group ends there.
        runs: int32 [3, N], receives for each run its row group, its first sample in it and its length.

    Returns:
        The number of runs.
    """
    size, row_group, start, end, last = 0, 0, 0, 0, -2
    for i in range(len(order)):
        place = order[i]
        if place == last + 1 and place < end:
            runs[2, size - 1] += 1
        else:
            if place < start or place >= end:
                row_group = 0
                while ends[row_group] <= place:
                    row_group += 1
                start, end = ends[row_group - 1] if row_group else 0, ends[row_group]
            runs[0, size], runs[1, size], runs[2, size] = row_group, place - start, 1
            size += 1
        last = place
    return size


@jit
def find_unique_rows(
    samples: Array, rows: Array, seen: Array, inverse: Array, chosen: Array, num_runs: Array, num_rows: Array
) -> None:
    """Finds the distinct rows of each group, in order of first appearance.

    Args:
        samples: int32 [3, runs], the samples of the batch.
        rows: int64 [row groups, G], addresses of the row of each sample, int32 [samples].
        seen: int64 [row groups, G], addresses of int32 [rows], all -1 before and after.
        inverse: int32 [G, B], receives for each sample the place of its row among the distinct ones.
        chosen: int32 [at least G, 3, B], receives the runs of distinct rows.
        num_runs: int64 [at least G], receives their number.
        num_rows: int64 [at least G], receives the number of distinct rows.
    """
    num_samples = inverse.shape[1]
    for g in range(rows.shape[1]):
        size, run, sample = 0, -1, inverse.ctypes.data + 4 * g * num_samples
        row_groups, firsts, sizes = chosen[g]
        for r in range(samples.shape[1]):
            row_group, first, end = samples[0, r], samples[1, r], samples[1, r] + samples[2, r]
            row_of, number_of = rows[row_group, g], seen[row_group, g]
            last, number = -1, 0
            for i in range(first, end):
                row = load_int32(row_of, i)
                if row != last:
                    number = load_int32(number_of, row)
                    if number < 0:
                        number = size
                        store_int32(number_of, row, size)
                        size += 1
                        if run >= 0 and row_groups[run] == row_group and firsts[run] + sizes[run] == row:
                            sizes[run] += 1
                        else:
                            run += 1
                            row_groups[run], firsts[run], sizes[run] = row_group, row, 1
                    last = row
                store_int32(sample, i - first, number)
            sample += 4 * (end - first)
        for k in range(run + 1):
            number_of = seen[row_groups[k], g]
            for row in range(firsts[k], firsts[k] + sizes[k]):
                store_int32(number_of, row, -1)
        num_runs[g], num_rows[g] = run + 1, size


@jit
def list_rows(samples: Array, rows: Array, chosen: Array) -> int:
    """Lists the row of every sample, for a group that is read expanded.

    Args:
        samples: int32 [3, runs], the samples of the batch.
        rows: int64 [row groups], addresses of the row of each sample, int32 [samples].
        chosen: int32 [3, B], receives the runs of rows.

    Returns:
        The number of runs.
    """
    run = -1
    for r in range(samples.shape[1]):
        row_group, first, end = samples[0, r], samples[1, r], samples[1, r] + samples[2, r]
        for i in range(first, end):
            row = load_int32(rows[row_group], i)
            if run >= 0 and chosen[0, run] == row_group and chosen[1, run] + chosen[2, run] == row:
                chosen[2, run] += 1
            else:
                run += 1
                chosen[0, run], chosen[1, run], chosen[2, run] = row_group, row, 1
    return run + 1


@jit
def gather_lengths(
    places: Array, homes: Array, chosen: Array, num_runs: Array, lengths: int, num_values: Array
) -> None:
    """Writes the lengths of the rows of all features, feature after feature.

    Args:
        places: see above.
        homes: int64 [F], for each feature which of the chosen rows it has.
        chosen: int32 [homes, 3, capacity], runs of rows.
        num_runs: int64 [homes].
        lengths: the address that receives the lengths, int32.
        num_values: int64 [F], receives the number of values of each feature, over its rows.
    """
    place = 0
    for f in range(len(homes)):
        home, total = homes[f], 0
        for k in range(num_runs[home]):
            row_group, first, size = chosen[home, 0, k], chosen[home, 1, k], chosen[home, 2, k]
            offsets, windows = places[row_group, f, OFFSETS], places[row_group, f, LENGTHS]
            if windows:
                for i in range(first, first + size):
                    length = load_int32(windows, i)
                    store_int32(lengths, place, length)
                    place, total = place + 1, total + length
            elif offsets:
                begin = load_int32(offsets, first)
                total -= begin
                for i in range(first + 1, first + size + 1):
                    end = load_int32(offsets, i)
                    store_int32(lengths, place, end - begin)
                    place, begin = place + 1, end
                total += begin
            else:
                for i in range(place, place + size):
                    store_int32(lengths, i, 1)
                place, total = place + size, total + size
        num_values[f] = total


@jit
def gather_values(
    places: Array,
    column: int,
    is_shared: Array,
    homes: Array,
    chosen: Array,
    num_runs: Array,
    item: int,
    out: int,
    offsets: Array,
) -> None:
    """Copies the values of the rows of all features (RecD's O6, JaggedIndexSelect).

    Args:
        places: see above.
        column: VALUES, or WEIGHTS, where features without weights are passed over.
        is_shared: bool [F], features that ``window_kernels`` copies.
        homes: int64 [F], for each feature which of the chosen rows it has.
        chosen: int32 [homes, 3, capacity], runs of rows.
        num_runs: int64 [homes].
        item: bytes of a value.
        out: the address to which values are copied.
        offsets: int64 [F + 1], where the values of each feature begin there, in values.
    """
    for f in range(len(homes)):
        if is_shared[f]:
            continue
        home, to = homes[f], out + offsets[f] * item
        size = num_runs[home]
        for k in range(size):
            row_group, first, num_rows = chosen[home, 0, k], chosen[home, 1, k], chosen[home, 2, k]
            place = places[row_group, f]
            values, bounds = place[column], place[OFFSETS]
            if k + _AHEAD < size:
                _prefetch_run(places[chosen[home, 0, k + _AHEAD], f], column, chosen[home, 1, k + _AHEAD], item)
            if not values:
                continue
            if place[STARTS]:
                lengths = place[LENGTHS]
                for i in range(first, first + num_rows):
                    num_bytes = load_int32(lengths, i) * item
                    copy_bytes(to, values + load_int32(place[STARTS], i) * item, num_bytes)
                    to += num_bytes
            else:
                begin, end = int(first), int(first) + num_rows
                if bounds:
                    begin, end = int(load_int32(bounds, begin)), int(load_int32(bounds, end))
                copy_bytes(to, values + begin * item, (end - begin) * item)
                to += (end - begin) * item


@jit
def _prefetch_run(place: Array, column: int, first: int, item: int) -> None:
    """Asks for the first values of a run of rows, whose bounds are in the cache still."""
    if place[STARTS]:
        prefetch(place[column] + load_int32(place[STARTS], first) * item)
    elif place[OFFSETS]:
        begin = place[column] + load_int32(place[OFFSETS], first) * item
        prefetch(begin)
        prefetch(begin + _LINE)
    else:
        prefetch(place[column] + first * item)


@jit
def gather_numbers(blocks: Array, stride: int, columns: Array, runs: Array, out: Array, first_column: int) -> None:
    """Copies rows of some dense features of a group side by side.

    Args:
        blocks: int64 [row groups], addresses of float32 [rows, stride].
        stride: the dense features that a block has.
        columns: int64 [n], those to take.
        runs: int32 [3, runs], the rows to take.
        out: float32 [rows, at least n], receives them.
        first_column: the column of out that receives the first of them.
    """
    is_whole = len(columns) == stride == out.shape[1]  # nobody asks for the same ones in another order
    place = 0
    for k in range(runs.shape[1]):
        first, size = int(runs[1, k]), int(runs[2, k])
        block = blocks[runs[0, k]]
        if is_whole:
            copy_bytes(out.ctypes.data + 4 * place * stride, block + 4 * first * stride, 4 * size * stride)
        else:
            for i in range(size):
                for c in range(len(columns)):
                    out[place + i, first_column + c] = load_float(block, (first + i) * stride + columns[c])
        place += size


@jit
def gather_blocks(columns: Array, items: Array, runs: Array, out: Array) -> None:
    """Copies what samples have beside their features: keys and labels.

    Args:
        columns: int64 [row groups, n], addresses of an array of each row group.
        items: int64 [n], bytes of a sample in each.
        runs: int32 [3, runs], the samples to take.
        out: int64 [n], the addresses to which each is copied.
    """
    for c in range(len(items)):
        to, item = out[c], items[c]
        for k in range(runs.shape[1]):
            num_bytes = runs[2, k] * item
            copy_bytes(to, columns[runs[0, k], c] + runs[1, k] * item, num_bytes)
            to += num_bytes


@jit
def find_outside(places: Array, num_rows: Array, limits: Array) -> int:
    """The first feature of a row group with an id outside [0, limit); -1 where there is none.

    Args:
        places: int64 [F, 6], see above; values are int32.
        num_rows: int64 [F], rows of each feature.
        limits: int64 [F], the rows of the features' tables; -1 for a feature that is not looked at.
    """
    for f in range(len(limits)):
        first, end, limit, is_outside = 0, int(num_rows[f]), limits[f], False
        if places[f, STARTS]:
            end = places[f, NUM_VALUES]
        elif places[f, OFFSETS]:
            first, end = int(load_int32(places[f, OFFSETS], 0)), int(load_int32(places[f, OFFSETS], end))
        for i in range(first, end if limit >= 0 else first):
            value = load_int32(places[f, VALUES], i)
            is_outside |= (value < 0) | (value >= limit)
        if is_outside:
            return f
    return -1


@jit
def hash_ids(ids: Array, num_embeddings: int, out: Array) -> None:
    """Maps ids into [0, num_embeddings): splitmix64, then modulo.

    Args:
        ids: int64 [V].
        num_embeddings: rows of the embedding table.
        out: int64 [V], receives the rows; may be ids.
    """
    for i in range(len(ids)):
        out[i] = np.int64(splitmix64_one(np.uint64(ids[i])) % np.uint64(num_embeddings))
