"""What is decided from the keys of samples alone: order, sessions, duplicates, splits, partitions, bounded pieces.

::

    key   time   hash        order   session   partition   dropped
    u1    09:00    7           0       s1       monday
    u2    09:01    3           2       s2       monday
    u1    09:00    7           -                              duplicate
    u1    11:30    5           1       s3       monday                     2.5 hours after 09:00: another session

Samples are ordered by (session key, time, request, order column, content hash), never by arrival: two engines, or a
run that was killed and one that was not, come to the same table. Only where a source names no timestamp does a
sample's place in the query's result stand for its time.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP
from recd_dist.etl.source.source import Source
from recd_dist.table.hash import GOLDEN, MIX_1, MIX_2, scramble

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

HASH, SIZE = "__hash", "__size"
"""Columns that preparing adds: the content of a sample in 64 bits (int64), and its bytes in memory (int32)."""

KEY_COLUMNS = (SESSION, REQUEST, TIMESTAMP, ORDER_KEY, SAMPLE_KEY, HASH, SIZE, TEST)

_PARTITION_US = {"": 0, "hour": 3_600_000_000, "day": 86_400_000_000}


@dataclass(frozen=True)
class Rules:
    """What a source says of its keys.

    Attributes:
        gap_us: time after which a session key's next sample begins another session; None: the key is the session.
        drop_duplicates: a sample is left out that has the sample key of an earlier one, or without sample keys equals
            it in every value.
        fail_on_duplicates: the run ends at the first one.
        share: of the sessions that are sampled, 1.0 for all.
        partition: ``day``, ``hour`` or nothing.
        test_share: of the sessions, the last in time, that are the test split; None: there is a predicate or no split.
        piece: samples after which a session is cut.
        taken: partitions that the table has already; samples of theirs come late.
        late: ``error``, ``keep`` or ``drop``.
    """

    gap_us: int | None = None
    drop_duplicates: bool = False
    fail_on_duplicates: bool = False
    share: float = 1.0
    partition: str = ""
    test_share: float | None = None
    piece: int = 65536
    taken: frozenset[str] = frozenset()
    late: str = "error"

    @staticmethod
    def of(source: Source, piece: int, taken: frozenset[str] = frozenset()) -> "Rules":
        """The rules of a source."""
        duplicates = source.policy.duplicates
        return Rules(
            gap_us=source.gap_us,
            drop_duplicates=duplicates == "drop",
            fail_on_duplicates=duplicates == "error",
            share=source.sample if source.gap_us is not None else 1.0,  # other sessions are sampled as they are read
            partition=source.partition,
            test_share=source.split if isinstance(source.split, float) else None,
            piece=piece,
            taken=taken,
            late=source.policy.late,
        )


@dataclass(frozen=True)
class Arrangement:
    """Samples of a shard in the order of the table; all arrays [K] of the samples that are kept.

    Attributes:
        rows: int64, places in the shard.
        session, request, time: int64.
        start: int64, the first time of the sample's session.
        partition: int64, number of the day or hour since 1970 in which the session began; 0 without partitions.
        piece: int64, rises with every session and every piece of one that is cut.
        test: bool, what the predicate said.
        dropped: places in the shard of samples that are left out, by reason.
        originals: int64, for each sample dropped as a duplicate by its hash the one that it should equal.
        kept: counts of what a policy kept but wants told.
    """

    rows: I64
    session: I64
    request: I64
    time: I64
    start: I64
    partition: I64
    piece: I64
    test: Flags
    dropped: dict[str, I64] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    originals: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def where(self, chosen: Flags) -> "Arrangement":
        """Some of the samples."""
        return replace(
            self,
            rows=self.rows[chosen],
            session=self.session[chosen],
            request=self.request[chosen],
            time=self.time[chosen],
            start=self.start[chosen],
            partition=self.partition[chosen],
            piece=self.piece[chosen],
            test=self.test[chosen],
        )


def arranged(keys: pa.Table, rules: Rules) -> Arrangement:
    """Orders the samples of a shard and decides which stay.

    Args:
        keys: the key columns of every sample of some sessions; REQUEST, ORDER_KEY, SAMPLE_KEY, TEST may be absent.
        rules: of the source.

    Raises:
        DataError: duplicates or late samples where a policy says so.
    """
    columns = {name: _numbers(keys[name]) for name in KEY_COLUMNS if name in keys.column_names and name != TEST}
    key, time, content = columns[SESSION], columns[TIMESTAMP], columns[HASH]
    ties = [columns[name] for name in (REQUEST, ORDER_KEY) if name in columns]
    rows = np.lexsort([content, *reversed(ties), time, key]).astype(np.int64)
    key, time = key[rows], time[rows]
    dropped: dict[str, I64] = {}
    kept: dict[str, int] = {}
    again = _again(columns, rows, ties)
    originals = np.zeros(0, np.int64)
    if again.any() and rules.drop_duplicates and SAMPLE_KEY not in columns:
        originals = rows[np.maximum.accumulate(np.where(again, 0, np.arange(len(rows))))][again]
    if again.any():
        again = _judged(again, rows, columns, rules, dropped, kept)
    new = _first(key)
    if rules.gap_us is not None:
        new[1:] |= time[1:] - time[:-1] > rules.gap_us
    number = np.cumsum(new) - 1
    start = time[new][number]
    session = key if rules.gap_us is None else _session_ids(key, start)
    found = Arrangement(
        rows=rows,
        session=session,
        request=columns[REQUEST][rows] if REQUEST in columns else session,
        time=time,
        start=start,
        partition=start // _PARTITION_US[rules.partition] if rules.partition else np.zeros(len(rows), np.int64),
        piece=number,
        test=np.asarray(keys[TEST].to_numpy(), bool)[rows] if TEST in keys.column_names else np.zeros(len(rows), bool),
        dropped=dropped,
        kept=kept,
        originals=originals,
    )
    stays = ~again
    if rules.share < 1:
        out = ~in_sample(session, rules.share) & stays
        dropped["sampled"] = rows[out]
        stays &= ~out
    stays &= ~_late(found, rules, stays)
    return _cut(found.where(stays), rules.piece)


def in_sample(session: I64, share: float) -> Flags:
    """Which sessions belong to a sample of them: bool [N], the same in every run and on every machine."""
    # Other shifts and multipliers than splitmix64's: tables that were sampled so far depend on them.
    mixed = (session.view(np.uint64) ^ (session.view(np.uint64) >> np.uint64(31))) * GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX_1
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53)


def partition_name(number: int, partition: str) -> str:
    """``2026-11-25`` of a day, ``2026-11-25T07`` of an hour, nothing without partitions."""
    if not partition:
        return ""
    try:
        moment = datetime.fromtimestamp(number * _PARTITION_US[partition] // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(
            f"partition: timestamp {number * _PARTITION_US[partition]} is no time in microseconds since 1970; mend "
            "keys.timestamp in the SQL, or leave data.partition out"
        ) from None
    return moment.strftime("%Y-%m-%d" if partition == "day" else "%Y-%m-%dT%H")


def ranges(found: Arrangement, sizes: npt.NDArray[np.int32], limit: int) -> I64:
    """Where to cut an arrangement so that no piece of it is larger than a limit, sessions (or their pieces) whole.

    Args:
        found: of a shard.
        sizes: int32 [all samples of the shard], bytes of each.
        limit: bytes; a single session (or its piece) may have more.

    Returns:
        int64 [pieces + 1], from 0 to K.
    """
    total = np.cumsum(sizes[found.rows], dtype=np.int64)
    ends = np.append(np.flatnonzero(np.diff(found.piece)) + 1, len(found.rows))
    bounds = [0]
    while bounds[-1] < len(found.rows):
        before = int(total[bounds[-1] - 1]) if bounds[-1] else 0
        fits = np.searchsorted(total[ends - 1], before + limit, side="right") - 1
        place = max(int(fits), int(np.searchsorted(ends, bounds[-1], side="right")))
        bounds.append(int(ends[place]))
    return np.asarray(bounds, np.int64)


def test_threshold(sessions: I64, starts: I64, share: float) -> tuple[int, int]:
    """The first (start, session) of the test split, when it is to hold a share of the sessions, the last in time.

    Args:
        sessions: int64 [n], ids.
        starts: int64 [n], first times.
        share: between 0 and 1.
    """
    order = np.lexsort((sessions, starts))
    place = len(order) - round(share * len(order))
    if place >= len(order):
        return np.iinfo(np.int64).max, np.iinfo(np.int64).max
    return int(starts[order[place]]), int(sessions[order[place]])


def is_test(found: Arrangement, threshold: tuple[int, int] | None) -> Flags:
    """Which samples are of the test split: bool [K]."""
    if threshold is None:
        return found.test
    start, session = threshold
    return (found.start > start) | ((found.start == start) & (found.session >= session))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(column.to_numpy())


def _first(values: I64) -> Flags:
    flags = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def _again(columns: dict[str, I64], rows: I64, ties: list[I64]) -> Flags:
    """Samples that are there already, in the order of ``rows``: bool [N]."""
    if SAMPLE_KEY in columns:
        key = columns[SAMPLE_KEY][rows]
        by_key = np.argsort(key, kind="stable")
        again = np.zeros(len(rows), bool)
        again[by_key] = ~_first(key[by_key])
        return again
    same = np.ones(max(len(rows) - 1, 0), bool)
    for values in (columns[SESSION], columns[TIMESTAMP], columns[HASH], *ties):
        ordered = values[rows]
        same &= ordered[1:] == ordered[:-1]
    return np.append(False, same) if len(rows) else same


def _judged(
    again: Flags, rows: I64, columns: dict[str, I64], rules: Rules, dropped: dict[str, I64], kept: dict[str, int]
) -> Flags:
    """Duplicates that are left out; counts them either way."""
    if rules.fail_on_duplicates:
        row = rows[int(np.argmax(again))]
        what = f"sample key {columns[SAMPLE_KEY][row]}" if SAMPLE_KEY in columns else "equal in every value"
        raise DataError(
            f"samples: {int(again.sum())} duplicates in one shard, the first of session {columns[SESSION][row]} at "
            f"{columns[TIMESTAMP][row]} ({what}); data.policy.duplicates=drop leaves them out, keep keeps them"
        )
    if rules.drop_duplicates:
        dropped["duplicate"] = rows[again]
        return again
    kept["duplicate_kept"] = int(again.sum())
    return np.zeros(len(rows), bool)


def _session_ids(key: I64, start: I64) -> I64:
    """Ids of sessions that were found by a gap: 63 bits of (key, first time), the same in every run."""
    mixed = scramble((key.view(np.uint64) * GOLDEN) ^ (start.view(np.uint64) + MIX_2))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _late(found: Arrangement, rules: Rules, stays: Flags) -> Flags:
    """Samples that come late for their partition and are left out: bool [N]."""
    none = np.zeros(len(found.rows), bool)
    if not rules.taken or not len(found.rows):
        return none
    numbers, place = np.unique(found.partition, return_inverse=True)
    names = [partition_name(number, rules.partition) for number in numbers.tolist()]
    late = np.array([name in rules.taken for name in names])[place] & stays
    if not late.any():
        return none
    if rules.late == "error":
        name = names[place[int(np.argmax(late))]]
        raise DataError(
            f"partition {name} is in the table already, and {int(late.sum())} samples of one shard belong to it; "
            f"data.policy.late=keep adds them, drop leaves them out, replace=[{name}] puts them in its place"
        )
    if rules.late == "drop":
        found.dropped["late"] = found.rows[late]
        return late
    found.kept["late_kept"] = int(late.sum())
    return none


def _cut(found: Arrangement, piece: int) -> Arrangement:
    """Numbers the pieces: a session with more samples than ``piece`` is cut."""
    if not len(found.rows):
        return found
    begins = np.flatnonzero(_first(found.piece))
    lengths = np.diff(np.append(begins, len(found.rows)))
    within = np.arange(len(found.rows)) - np.repeat(begins, lengths)
    new = within % piece == 0
    if (num_cut := int((lengths > piece).sum())) > 0:
        found.kept["session_cut"] = num_cut
    return replace(found, piece=np.cumsum(new) - 1)
