"""The samples of a shard in the order of the table, and those that are left out.

::

    key   time   hash        order   session   partition   dropped
    u1    09:00    7           0       s1       monday
    u2    09:01    3           2       s2       monday
    u1    09:00    7           -                              duplicate
    u1    11:30    5           1       s3       monday                     2.5 hours after 09:00: another session

The keys of the samples alone decide. Samples are ordered by (session key, time, request, order column, content hash),
never by arrival: two engines, or a run that was killed and one that was not, come to the same table. Only where a
source names no timestamp does a sample's place in the query's result stand for its time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from recd_dist.errors import DataError
from recd_dist.etl.deal.assign_sessions import (
    Threshold,
    is_from_threshold,
    is_in_share,
    partition_name,
    partition_numbers,
    session_ids,
)
from recd_dist.etl.deal.keys import HASH, I64, KEY_COLUMNS, Flags, Rules
from recd_dist.etl.source.inspection import ORDER_KEY, REQUEST, SAMPLE_KEY, SESSION, TEST, TIMESTAMP


@dataclass(frozen=True)
class Arrangement:
    """Samples of a shard in the order of the table. Arrays are [K], one value for each sample that is kept.

    Attributes:
        rows: int64, the place of each sample in the shard.
        session, request, time: int64, the final session id, request id and time of each sample.
        start: int64, the first time of each sample's session.
        partition: int64, the day or hour since 1970 in which each sample's session began; 0 without partitions.
        session_slice: int64, the number of each sample's slice. A session is one slice; a session that is too long is
            cut into several.
        test: bool, what the split's predicate says of each sample.
        dropped: int64 [n], the places in the shard of the n samples that are left out for a reason, by reason.
        kept: the numbers of samples or sessions that a policy keeps but counts, by reason.
        originals: int64 [n], for each of the n samples that are dropped as duplicates by their hash, the place in the
            shard of the sample that it should equal.
    """

    rows: I64
    session: I64
    request: I64
    time: I64
    start: I64
    partition: I64
    session_slice: I64
    test: Flags
    dropped: dict[str, I64] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    originals: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def select(self, chosen: Flags) -> "Arrangement":
        """The arrangement of the chosen samples alone; ``chosen`` is bool [K]."""
        return replace(
            self,
            rows=self.rows[chosen],
            session=self.session[chosen],
            request=self.request[chosen],
            time=self.time[chosen],
            start=self.start[chosen],
            partition=self.partition[chosen],
            session_slice=self.session_slice[chosen],
            test=self.test[chosen],
        )

    def is_test(self, threshold: Threshold | None) -> Flags:
        """Which samples are of the test split: bool [K].

        Args:
            threshold: where the test split begins, if it is a share of the sessions; None leaves it to the predicate.
        """
        return self.test if threshold is None else is_from_threshold(self.session, self.start, threshold)


def arrange(keys: pa.Table, rules: Rules) -> Arrangement:
    """Orders the samples of a shard and decides which of them stay.

    Args:
        keys: the key columns of every sample of some sessions; REQUEST, ORDER_KEY, SAMPLE_KEY and TEST may be absent.
        rules: what the source says about its keys.

    Raises:
        DataError: there are duplicates or late samples, and a policy says that they are errors.
    """
    names = [name for name in KEY_COLUMNS if name in keys.column_names and name != TEST]
    columns: dict[str, I64] = {name: np.asarray(keys[name].to_numpy()) for name in names}
    rows = np.lexsort([columns[name] for name in reversed(_order(columns))]).astype(np.int64)
    key, time = columns[SESSION][rows], columns[TIMESTAMP][rows]
    repeats = _find_repeats(columns, rows)
    dropped, kept = _judge_repeats(repeats, columns, rows, rules)
    number, start = _find_sessions(key, time, rules.gap_us)
    session = key if rules.gap_us is None else session_ids(key, start)
    arrangement = Arrangement(
        rows=rows,
        session=session,
        request=columns[REQUEST][rows] if REQUEST in columns else session,
        time=time,
        start=start,
        partition=partition_numbers(start, rules.partition),
        session_slice=number,
        test=np.asarray(keys[TEST].to_numpy(), bool)[rows] if TEST in keys.column_names else np.zeros(len(rows), bool),
        dropped=dropped,
        kept=kept,
        originals=_find_originals(repeats, rows) if dropped and SAMPLE_KEY not in columns else np.zeros(0, np.int64),
    )
    stays = ~repeats if dropped else np.ones(len(rows), bool)
    if rules.share < 1:
        outside = ~is_in_share(session, rules.share) & stays
        dropped["sampled"] = rows[outside]
        stays &= ~outside
    stays &= ~_leave_out_late(arrangement, rules, stays)
    return _cut_long_sessions(arrangement.select(stays), rules.max_session_samples)


def _order(columns: Mapping[str, I64]) -> list[str]:
    """The columns by which samples are ordered, the first one first."""
    return [name for name in (SESSION, TIMESTAMP, REQUEST, ORDER_KEY, HASH) if name in columns]


def _differs_from_neighbour(values: I64) -> Flags:
    """Where a value is another one than that before it: bool [N], true for the first one."""
    flags = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def _find_sessions(key: I64, time: I64, gap_us: int | None) -> tuple[I64, I64]:
    """The number and the first time of each sample's session, from keys and times in order: int64 [N] each."""
    begins = _differs_from_neighbour(key)
    if gap_us is not None:
        begins[1:] |= time[1:] - time[:-1] > gap_us
    number = np.cumsum(begins) - 1
    return number, time[begins][number]


def _find_repeats(columns: Mapping[str, I64], rows: I64) -> Flags:
    """Which samples are there already, in the order of ``rows``: by the sample key, or by every value. bool [N]."""
    if SAMPLE_KEY in columns:
        key = columns[SAMPLE_KEY][rows]
        by_key = np.argsort(key, kind="stable")
        repeats = np.zeros(len(rows), bool)
        repeats[by_key] = ~_differs_from_neighbour(key[by_key])
        return repeats
    repeats = np.ones(len(rows), bool)
    for name in _order(columns):
        repeats &= ~_differs_from_neighbour(columns[name][rows])
    return repeats


def _find_originals(repeats: Flags, rows: I64) -> I64:
    """For each repeated sample the place in the shard of the nearest sample before it that is no repeat."""
    place = np.where(repeats, 0, np.arange(len(rows)))
    return np.asarray(rows[np.maximum.accumulate(place)][repeats])


def _judge_repeats(
    repeats: Flags, columns: Mapping[str, I64], rows: I64, rules: Rules
) -> tuple[dict[str, I64], dict[str, int]]:
    """Applies the policy for duplicates: the samples to drop by reason, and the number that is kept by reason.

    Raises:
        DataError: duplicates are errors, and there is one.
    """
    if not repeats.any():
        return {}, {}
    if rules.fail_on_duplicates:
        row = rows[int(np.argmax(repeats))]
        what = f"sample key {columns[SAMPLE_KEY][row]}" if SAMPLE_KEY in columns else "equal in every value"
        raise DataError(
            f"samples: {int(repeats.sum())} duplicates in one shard, the first of session {columns[SESSION][row]} at "
            f"{columns[TIMESTAMP][row]} ({what}); data.policy.duplicates=drop leaves them out, keep keeps them"
        )
    if rules.drop_duplicates:
        return {"duplicate": rows[repeats]}, {}
    return {}, {"duplicate_kept": int(repeats.sum())}


def _leave_out_late(arrangement: Arrangement, rules: Rules, stays: Flags) -> Flags:
    """Applies the policy for late samples, and notes them: which of them to leave out, bool [N].

    Raises:
        DataError: late samples are errors, and there is one.
    """
    none = np.zeros(len(arrangement.rows), bool)
    if not rules.existing or not len(arrangement.rows):
        return none
    numbers, place = np.unique(arrangement.partition, return_inverse=True)
    names = [partition_name(number, rules.partition) for number in numbers.tolist()]
    late = np.array([name in rules.existing for name in names])[place] & stays
    if not late.any():
        return none
    if rules.late == "error":
        name = names[place[int(np.argmax(late))]]
        raise DataError(
            f"partition {name} is in the table already, and {int(late.sum())} samples of one shard belong to it; "
            f"data.policy.late=keep adds them, drop leaves them out, replace=[{name}] puts them in its place"
        )
    if rules.late == "drop":
        arrangement.dropped["late"] = arrangement.rows[late]
        return late
    arrangement.kept["late_kept"] = int(late.sum())
    return none


def _cut_long_sessions(arrangement: Arrangement, max_samples: int) -> Arrangement:
    """Numbers the slices: a session with more samples than ``max_samples`` is cut, and counted."""
    num_samples = len(arrangement.rows)
    if not num_samples:
        return arrangement
    begins = np.flatnonzero(_differs_from_neighbour(arrangement.session_slice))
    lengths = np.diff(np.append(begins, num_samples))
    place_in_session = np.arange(num_samples) - np.repeat(begins, lengths)
    if (num_cut := int((lengths > max_samples).sum())) > 0:
        arrangement.kept["session_cut"] = num_cut
    return replace(arrangement, session_slice=np.cumsum(place_in_session % max_samples == 0) - 1)
