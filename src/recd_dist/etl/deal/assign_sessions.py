"""Which sessions are taken, and to which partition and split each of them belongs.

::

    session   first time          share 0.5   partition    test_share 0.3
    s1        2026-11-25 09:00    taken       2026-11-25   train
    s2        2026-11-25 23:50    -
    s3        2026-11-26 00:10    taken       2026-11-26   test

All of it follows from a session's id and first time alone: it is the same in every run and on every machine.
"""

from datetime import UTC, datetime

import numpy as np

from recd_dist.errors import DataError
from recd_dist.etl.deal.keys import I64, Flags
from recd_dist.table.hash import GOLDEN, MIX_1, MIX_2, scramble

_PARTITION_US = {"hour": 3_600_000_000, "day": 86_400_000_000}

Threshold = tuple[int, int]
"""First time and id of the first session of the test split, in the order of (first time, id)."""


def session_ids(key: I64, start: I64) -> I64:
    """Ids of sessions that gaps tell apart: a hash of 63 bits of the session key and the first time.

    Args:
        key: int64 [N], the session key of each sample.
        start: int64 [N], the first time of each sample's session.

    Returns:
        int64 [N], not negative.
    """
    mixed = scramble((key.view(np.uint64) * GOLDEN) ^ (start.view(np.uint64) + MIX_2))
    return (mixed >> np.uint64(1)).astype(np.int64)


def is_in_share(sessions: I64, share: float) -> Flags:
    """Which sessions are taken when only a share of them is.

    Args:
        sessions: int64 [N], ids.
        share: between 0 and 1. A larger share takes the sessions of a smaller one and more.

    Returns:
        bool [N].
    """
    # The shifts and multipliers are not those of splitmix64: tables that were sampled so far depend on them.
    mixed = (sessions.view(np.uint64) ^ (sessions.view(np.uint64) >> np.uint64(31))) * GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX_1
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53)


def partition_numbers(starts: I64, partition: str) -> I64:
    """The day or hour, counted from 1970, of each first time (int64 [N], microseconds); 0 without partitions."""
    return starts // _PARTITION_US[partition] if partition else np.zeros(len(starts), np.int64)


def partition_name(number: int, partition: str) -> str:
    """``2026-11-25`` for a day, ``2026-11-25T07`` for an hour, an empty string without partitions.

    Args:
        number: the day or hour, counted from 1970.
        partition: ``day``, ``hour`` or an empty string.

    Raises:
        DataError: no calendar has such a day.
    """
    if not partition:
        return ""
    microseconds = number * _PARTITION_US[partition]
    try:
        moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(
            f"partition: timestamp {microseconds} is no time in microseconds since 1970; mend keys.timestamp in the "
            "SQL, or leave data.partition out"
        ) from None
    return moment.strftime("%Y-%m-%d" if partition == "day" else "%Y-%m-%dT%H")


def split_threshold(sessions: I64, starts: I64, share: float) -> Threshold:
    """Where the test split begins, when it is to hold a share of the sessions, the last in time.

    Args:
        sessions: int64 [n], the ids of all sessions.
        starts: int64 [n], their first times.
        share: the test split's share of the sessions, between 0 and 1.
    """
    order = np.lexsort((sessions, starts))
    place = len(order) - round(share * len(order))
    if place >= len(order):
        return np.iinfo(np.int64).max, np.iinfo(np.int64).max
    return int(starts[order[place]]), int(sessions[order[place]])


def is_from_threshold(sessions: I64, starts: I64, threshold: Threshold) -> Flags:
    """Which sessions (ids and first times, int64 [N]) belong to the test split: bool [N]."""
    start, session = threshold
    return (starts > start) | ((starts == start) & (sessions >= session))
