"""Slices of time, the shuffle windows of a table that is read sample by sample in order of time.

::

    time          0 ............................................ 100
    row groups    |== rg0 ==|      |===== rg3 =====|                      a row group lies where its samples lie in time
                       |== rg1 ==|          |== rg2 ==|
    slices        |         0         |          1           |            a slice is read whole and sorted
    held          rg0 rg1 rg3          rg3 rg2                            rg3 is read twice

A slice ends where a row group begins that would make it hold too many. Sessions lie in no order of time inside a part,
so that each row group reaches over most of its partition: a slice is then about a partition, and holds all of it. Small
partitions (hours) keep that small; in a table without any, every slice holds every row group.
"""

import logging
from dataclasses import replace

import numpy as np

from recd_dist.errors import ConfigError
from recd_dist.reader.open_files import AnyTable, require_clustered
from recd_dist.reader.order import TIME, Int64s, RowGroup, Shuffle, ShuffleWindow, row_groups_of
from recd_dist.reader.table_files import TableFiles, read_key
from recd_dist.table.schema import TIMESTAMP

logger = logging.getLogger(__name__)

GROWTH = 2
"""How many times as many row groups as lie across its beginning a slice may hold."""

MANY = 4
"""A slice of so many times ``reader.window`` row groups is worth a warning: it lies in memory whole."""


def order_of(table: AnyTable, shuffle: Shuffle) -> Shuffle:
    """The order of a table with all that it needs: where it is that of time, its slices, from the timestamps.

    Args:
        table: one split, perhaps some of its partitions only.
        shuffle: how its epochs are ordered.

    Raises:
        ConfigError: the table knows no times, or is made of files that are read directly.
        DataError: damaged files.
    """
    if shuffle.order != TIME or shuffle.slices is not None:
        return shuffle
    manifest, files = table.manifest, TableFiles(require_clustered(table, "reader.order=time"))
    row_groups = row_groups_of(manifest)
    if not row_groups:
        return replace(shuffle, slices=())
    spans = [(int(times.min()), int(times.max())) for g in row_groups for times in [times_of(files, g)]]
    lows, highs = np.array(spans, np.int64).reshape(-1, 2).T
    if lows.min() == highs.max() and manifest.num_samples > 1:
        raise ConfigError(
            f"reader.order=time: all samples of table {manifest.name}/{manifest.split} have the time {lows[0]}; make "
            "it from a source with keys.timestamp, or take reader.order=table"
        )
    bounds = slice_bounds(lows, highs, shuffle.window_size)
    counts = np.zeros(len(bounds) - 1, np.int64)
    for row_group in row_groups:
        counts += np.diff(np.searchsorted(np.sort(times_of(files, row_group)), bounds))
    slices: list[ShuffleWindow] = []
    for first, end, count in zip(bounds[:-1].tolist(), bounds[1:].tolist(), counts.tolist(), strict=True):
        if count:
            held = np.flatnonzero((lows < end) & (highs >= first)).tolist()
            start = slices[-1].end if slices else 0
            members = tuple(row_groups[n] for n in held)
            slices.append(ShuffleWindow(len(slices), members, start, start + count, (first, end)))
    return replace(shuffle, slices=tuple(slices))


def times_of(files: TableFiles, row_group: RowGroup) -> Int64s:
    """The timestamps of a row group's samples, int64.

    Raises:
        DataError: damaged files.
    """
    part = files.table.manifest.parts[row_group.part]
    table, origin = files.read_columns(part.samples, row_group.index, [TIMESTAMP])
    return read_key(table, TIMESTAMP, origin)


def slice_bounds(lows: Int64s, highs: Int64s, window_size: int) -> Int64s:
    """Where slices begin, and where the last one ends, so that few row groups are held at once and read twice.

    Args:
        lows: int64 [row groups], the first time of each.
        highs: int64 [row groups], the last time of each.
        window_size: row groups that a slice may hold anyhow.

    Returns:
        int64, increasing.
    """
    begins = np.sort(lows)
    bounds, begun = begins[:1].tolist(), 0
    while begun < len(begins):
        across = int(((lows < bounds[-1]) & (highs >= bounds[-1])).sum())
        begun = min(begun + max(window_size, GROWTH * across) - across, len(begins))
        begun = int(np.searchsorted(begins, begins[begun - 1], "right"))  # those that begin at the same time as well
        bounds.append(int(begins[begun]) if begun < len(begins) else int(highs.max()) + 1)
    return np.array(bounds, np.int64)


def tell_cost(shuffle: Shuffle) -> None:
    """Logs what the order of time costs in a table, once its slices are known."""
    held = [s.row_groups for s in shuffle.slices or ()]
    if not held:
        return
    num, most = len({row_group for members in held for row_group in members}), max(map(len, held))
    text = "reader.order=time: every rank and worker reads all %d row groups, each %.1f times; %d lie in memory at once"
    logger.info(text, num, sum(map(len, held)) / num, most)
    if most > MANY * shuffle.window_size:
        logger.warning(
            "reader.order=time: %d row groups lie in memory at once, not reader.window=%d: sessions of a partition lie "
            "in no order of time; data.partition=hour (`recd etl`) or reader.order=partitions need less",
            most,
            shuffle.window_size,
        )
