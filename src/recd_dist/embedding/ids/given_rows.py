"""Hands out the rows of a mapped table to ids, ahead of training."""

from typing import NamedTuple

import numpy as np

from recd_dist.embedding.ids import id_loops
from recd_dist.embedding.ids.id_loops import Nodes
from recd_dist.embedding.ids.kept_ids import NEVER, Change, KeptIds, empty_index
from recd_dist.embedding.ids.zones import UNKNOWN
from recd_dist.table.column import Array


class Given(NamedTuple):
    """What came of the ids of a step.

    Attributes:
        rows: int64 [n], the row of each id; the unknown one for ids that have none.
        reset: int64, rows that were taken from other ids.
        change: what is to be kept of it once the step is trained.
        num_admitted: ids that have got a row.
    """

    rows: Array
    reset: Array
    change: Change
    num_admitted: int


class GivenRows:
    """Which id has which row, in this rank's zones of one table.

    Args:
        kept: the ids as of the last step that was trained, from which this goes on.
    """

    def __init__(self, kept: KeptIds) -> None:
        rules, zones = kept.rules, kept.zones
        self._first = kept.rows.start
        evict, age = int(rules.evict == "lru"), rules.max_age if rules.max_age is not None else -1
        self._rules = np.array([rules.admit_after, evict, age], np.int64)
        size, num_zones = len(kept.row_ids) + len(kept.waiting_ids), len(zones.mine)
        self._num_rows = len(kept.row_ids)
        self._nodes = Nodes(
            ids=np.concatenate([kept.row_ids, kept.waiting_ids]),
            seen=np.concatenate([kept.row_seen, kept.waiting_seen]),
            counts=kept.waiting_counts.copy(),
            newer=np.full(size, -1, np.int32),
            older=np.full(size, -1, np.int32),
            ends=np.full((2 * num_zones, 2), -1, np.int32),
            slots=empty_index(size),
            starts=zones.firsts[zones.mine.start : zones.mine.stop + 1] - self._first,
            used=np.zeros(num_zones, np.int64),
            zones=np.array([zones.mine.start, zones.num_zones], np.int64),
        )
        known = np.flatnonzero(self._nodes.seen != NEVER)
        order = np.lexsort((self._nodes.ids[known], self._nodes.seen[known]))
        id_loops.restore(self._nodes, known[order])

    def give(self, ids: Array, counts: Array, step: int) -> Given:
        """Finds or hands out the rows of the ids of a step.

        Args:
            ids: int64 [n], distinct, sorted, of this rank's zones.
            counts: int64 [n], lookups of each.
            step: the number of the step, larger than that of the step before.
        """
        rows, reset, changed = (np.empty(len(ids), np.int64) for _ in range(3))
        nodes = self._nodes
        sizes = id_loops.give_rows(nodes, ids, counts, step, self._rules, rows, reset, changed)
        num_reset, num_changed, num_admitted = sizes
        has_row = rows >= 0
        waiting = changed[:num_changed] - self._num_rows
        seen = nodes.seen[changed[:num_changed]]
        waiting_ids = np.where(seen == NEVER, 0, nodes.ids[changed[:num_changed]])
        change = Change(step, rows[has_row], ids[has_row], waiting, waiting_ids, seen, nodes.counts[waiting])
        found = np.where(has_row, rows + self._first, UNKNOWN)
        return Given(found, reset[:num_reset] + self._first, change, num_admitted)
