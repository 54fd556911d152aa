"""Makes the compiled loops of the reader ready, before anybody waits for a batch.

Numba sets itself up at the first call of a loop, for which it imports much (0.35 s of a core), and reads the code of
each loop from disk at its own first call, or compiles it. A process that forks others does that once for all of them.
"""

import numpy as np

from recd_dist.reader import kernels, number_chains, row_group_kernels, window_kernels
from recd_dist.reader.chunks import flat_pages, pages, thrift
from recd_dist.reader.equal_rows import find_equal_rows
from recd_dist.reader.taken_rows import take_columns
from recd_dist.table import loops
from recd_dist.table.column import Column
from recd_dist.tensors import row_windows


def load_loops() -> None:
    """Calls the loops that reading a table needs."""
    starts, offsets = np.zeros(1, np.int64), np.array([0, 1], np.int64)
    for kind in (np.int64, np.float32):
        loops.gather_slices(np.zeros(1, kind), starts, offsets, np.zeros(1, kind))
    none, runs, few = np.zeros(0, np.int64), np.zeros((1, 3, 2), np.int32), np.zeros((1, 0), np.int64)
    places, num_runs = np.zeros((1, 0, 6), np.int64), np.zeros(1, np.int64)
    kernels.split_into_runs(starts, offsets[1:], runs[0])
    kernels.find_unique_rows(runs[0], few, few, np.zeros((0, 2), np.int32), runs, num_runs, num_runs)
    kernels.gather_lengths(places, none, runs, num_runs, 0, none)
    kernels.gather_values(places, kernels.VALUES, np.zeros(0, bool), none, runs, num_runs, 4, 0, starts)
    kernels.gather_blocks(few, none, runs[0], none)
    kernels.find_outside(places[0], none, none)
    thrift.read_footer(0, 0, np.zeros((1, 1, 6), np.int64))
    found = np.zeros((1, 7), np.int64)
    pages.find_pages(0, 0, none, none, none, found)
    pages.decode_pages(found[:0], none, none, none, none, none, none, np.zeros(0, np.int32))
    row_group_kernels.count_from_first(none, none, none, none, none)
    row_group_kernels.place_windows(np.zeros((0, 4), np.int64), none, none)
    numbers = np.zeros((0, 0), np.float32)
    number_chains.NumberChains([]).run(none, numbers)
    kernels.gather_numbers(few[0], 0, none, runs[0, :, :1], numbers, 0)
    int32s, segments = np.zeros(0, np.int32), np.zeros((4, 2), np.int64)
    window_kernels.share_windows(places, none, (none, runs, num_runs), int32s, segments, none)
    window_kernels.gather_segments(np.zeros((1, 1, 6), np.int64), kernels.VALUES, segments[:, :1], 4, 0, starts)
    row_windows.find_fault(int32s, int32s, np.zeros((0, 3), np.int64))
    for ids in (np.zeros(0, np.int32), np.zeros(0, np.int64)):
        row_windows.copy_rows(ids, int32s, int32s, ids)


def load_direct_loops() -> None:
    """Calls the loops that flat files need beside those of a table: few jobs read them, so that no rank loads these."""
    none, scratch = np.zeros(0, np.int64), np.zeros(0, np.int32)
    flat_pages.decode_flat_pages(
        np.zeros((0, 7), np.int64), none, np.zeros((0, flat_pages.FAILED + 1), np.int64), scratch
    )
    column = Column(np.arange(3))
    _, first = find_equal_rows([column], by_hash=True)
    take_columns({"": column}, first)
