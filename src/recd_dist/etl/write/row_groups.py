"""Row groups: sessions whole in row groups of about equal size.

::

    session      a  a  a  b  b  c  c  c  c       samples in clustered order: the sessions one after the other
    row group    |     0     |      1     |      at most 5 samples each
    bounds       0           5            9
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd_dist.etl.source.inspection import REQUEST, SESSION, TIMESTAMP
from recd_dist.table.flat_columns import Flags, Order, flag_number_changes, in_one_chunk

MAX_SESSION_ROW_GROUPS = 8
"""A session with more samples than this many row groups is cut."""


def row_group_bounds(session: npt.NDArray[np.int64], num_samples: int) -> Order:
    """Where row groups begin and end: they are about equally large and hold whole sessions, unless one is very long.

    A session of more than ``MAX_SESSION_ROW_GROUPS * num_samples`` samples is cut into pieces of that size, and each
    piece is then treated like a session: a session of a million samples must not make a row group of a million.

    Args:
        session: int64 [N], the session of each sample, in clustered order.
        num_samples: the most samples of a row group, unless one session has more.

    Returns:
        int64 [row groups + 1], from 0 to N.
    """
    ends = np.append(np.flatnonzero(session[1:] != session[:-1]) + 1, len(session))
    ends = _cut_long_sessions(ends, MAX_SESSION_ROW_GROUPS * num_samples)
    bounds = [0]
    while bounds[-1] < len(session):
        start = bounds[-1]
        left = len(session) - start
        aim = start + left / math.ceil(left / num_samples)
        last = int(np.searchsorted(ends, aim))  # the first session that ends at the aim or later
        choices = [int(end) for end in ends[max(last - 1, 0) : last + 1] if start < end <= start + num_samples]
        if not choices:
            choices = [int(ends[np.searchsorted(ends, start, side="right")])]
        bounds.append(min(choices, key=lambda end: abs(end - aim)))
    return np.asarray(bounds, np.int64)


def _cut_long_sessions(ends: Order, limit: int) -> Order:
    """Adds ends inside sessions that have more samples than the limit."""
    starts = np.append(0, ends[:-1])
    long = np.flatnonzero(ends - starts > limit)
    inner = [np.arange(starts[i] + limit, ends[i], limit) for i in long]
    return np.sort(np.concatenate([ends, *inner]))


@dataclass(frozen=True)
class Samples:
    """Samples in clustered order, dealt into row groups.

    Attributes:
        shard: normalised samples, in any order.
        order: int64 [N], the row of the shard that holds each sample.
        bounds: int64 [row groups + 1], where each row group begins and ends, from 0 to N.
    """

    shard: pa.Table
    order: Order
    bounds: Order

    @staticmethod
    def of(shard: pa.Table, order: Order, row_group_samples: int) -> "Samples":
        """Deals the samples of a shard into row groups.

        Args:
            shard: normalised samples, in any order.
            order: int64 [N], rows of the shard in clustered order.
            row_group_samples: the most samples of a row group, unless one session has more.
        """
        session = in_one_chunk(shard[SESSION]).to_numpy()[order]
        return Samples(shard, order, row_group_bounds(session, row_group_samples))

    def __len__(self) -> int:
        return len(self.order)

    def first(self, num_row_groups: int) -> "Samples":
        """The samples of the first row groups, at most so many."""
        bounds = self.bounds[: num_row_groups + 1]
        return Samples(self.shard, self.order[: int(bounds[-1])], bounds)

    def row_groups(self) -> Iterator["Samples"]:
        """The samples of each row group."""
        for start, end in pairwise(self.bounds.tolist()):
            yield Samples(self.shard, self.order[start:end], np.array([0, end - start]))

    def key(self, name: str) -> npt.NDArray[np.int64]:
        """A column of numbers [N], in clustered order."""
        numbers: npt.NDArray[np.int64] = in_one_chunk(self.shard[name]).to_numpy(zero_copy_only=False)[self.order]
        return numbers

    @cached_property
    def new_row_group(self) -> Flags:
        """Bool [N]: a row group begins with this sample."""
        flags = np.zeros(len(self), np.bool_)
        flags[self.bounds[:-1]] = True
        return flags

    @cached_property
    def new_session(self) -> Flags:
        """Bool [N]: a session begins with this sample."""
        return flag_number_changes(self.key(SESSION))

    @cached_property
    def new_request(self) -> Flags:
        """Bool [N]: a request begins with this sample."""
        return self.new_session | flag_number_changes(self.key(REQUEST))

    @cached_property
    def pairs(self) -> Flags:
        """Bool [N]: the sample before this one is of the same session and in the same row group."""
        return ~(self.new_session | self.new_row_group)

    def where(self, row: int) -> str:
        """The name of a row of the shard, for error messages."""
        session, time = self.shard[SESSION][row].as_py(), self.shard[TIMESTAMP][row].as_py()
        return f"samples query, the sample of session {session} at {time}"
