"""Who is seen when: sessions, interleaved in time, and when each group changes.

::

    time ->       a1 b1 c1 a2 d1 b2 a3 ...     a, b, c, d: sessions, of heavy-tailed size
    version of a  0        0        1          the group changed between a2 and a3

A sample takes about 40 bytes here, and 4 more for each group. The feature values, which are much wider, are drawn
later, chunk by chunk.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recd_dist.synthetic.draw import I64
from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.schema import SAMPLE

EPOCH_US = 1_767_225_600_000_000
"""Time at which the logs begin: 2026-01-01 00:00:00 UTC, in microseconds."""


@dataclass(frozen=True)
class Traffic:
    """Who is seen in each of N samples, in the order of time.

    Attributes:
        session: int64 [N], number of the session; sessions are numbered by their first sample.
        request: int64 [N], number of the request; requests are numbered by their first sample.
        timestamp_us: int64 [N], time in microseconds, strictly rising.
        user: int64 [N], number of the user.
        versions: group -> int32 [N], how often the group has changed for this user so far.
    """

    session: I64
    request: I64
    timestamp_us: I64
    user: I64
    versions: dict[str, NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.session)


def draw_traffic(spec: SyntheticSpec) -> Traffic:
    """Draws the traffic that a spec describes; equal specs give equal traffic."""
    rng = np.random.default_rng([spec.seed, 1])
    sizes = _draw_session_sizes(spec, rng)
    session = np.repeat(np.arange(len(sizes)), sizes)
    first = np.zeros(len(session), bool)
    first[np.cumsum(sizes) - sizes] = True
    new_request = first | (rng.random(len(session)) < 1 / spec.request_mean)
    time_s = _draw_times(spec, rng, sizes, session, first, new_request)
    user_of = rng.integers(0, spec.num_users, len(sizes))
    versions = {
        g.name: _draw_versions(spec, rng, g.stay, user_of, session, time_s[first], first, new_request)
        for g in spec.groups
        if g.name != SAMPLE
    }
    order = np.argsort(time_s, kind="stable")
    # Session and request numbers rise with the time of their first sample, as counters of a live service do.
    request = np.cumsum(new_request) - 1
    return Traffic(
        session=_number_by_first_sample(session[order]),
        request=_number_by_first_sample(request[order]),
        timestamp_us=_separate_times(EPOCH_US + (time_s[order] * 1e6).astype(np.int64)),
        user=user_of[session[order]],
        versions={name: version[order] for name, version in versions.items()},
    )


def _draw_session_sizes(spec: SyntheticSpec, rng: np.random.Generator) -> I64:
    """Draws log-normal sizes of sessions: int64, num_samples in sum, for which the last session is cut."""
    sigma = np.sqrt(2 * np.log(spec.session_mean / spec.session_median))
    sizes = np.empty(0, np.int64)
    while sizes.sum() < spec.num_samples:
        num = int(spec.num_samples / spec.session_mean) + 16
        drawn = np.rint(np.exp(np.log(spec.session_median) + sigma * rng.standard_normal(num)))
        sizes = np.concatenate([sizes, np.clip(drawn, 1, spec.session_max).astype(np.int64)])
    ends = np.cumsum(sizes)
    sizes = sizes[: int(np.searchsorted(ends, spec.num_samples)) + 1].copy()
    sizes[-1] -= sizes.sum() - spec.num_samples
    return sizes


def _draw_times(
    spec: SyntheticSpec,
    rng: np.random.Generator,
    sizes: I64,
    session: I64,
    first: NDArray[np.bool_],
    new_request: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Draws the second of each sample: float64 [N].

    The gaps between requests have a gamma distribution of shape 2. A session that lasts longer than the whole log is
    squeezed, so that all sessions are whole. With few samples, therefore, few sessions are open at once, and a batch
    holds more samples of each.

    Args:
        spec: what to generate.
        rng: random generator, advanced here.
        sizes: int64 [S], number of samples of each session.
        session: int64 [N], session of each sample, session by session.
        first: bool [N], whether a sample is the first of its session.
        new_request: bool [N], whether a sample begins a request.
    """
    duration_s = spec.num_samples / spec.rate_per_s
    gaps = np.where(first, 0.0, np.where(new_request, rng.gamma(2.0, spec.gap_s / 2, len(session)), 0.0))
    total = np.cumsum(gaps)
    since_start = total - total[first][session]
    span = since_start[np.cumsum(sizes) - 1]
    squeeze = np.minimum(1.0, 0.95 * duration_s / np.maximum(span, 1e-9))
    start = rng.random(len(sizes)) * (duration_s - span * squeeze)
    return np.asarray(start[session] + since_start * squeeze[session], np.float64)


def _draw_versions(
    spec: SyntheticSpec,
    rng: np.random.Generator,
    stay: float,
    user_of: I64,
    session: I64,
    start_s: NDArray[np.float64],
    first: NDArray[np.bool_],
    new_request: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Draws how often a group has changed for its user before each sample: int32 [N].

    A group changes only between requests, and there more often by the factor ``request_mean``, so that ``stay`` is the
    probability from sample to sample.

    Args:
        spec: what to generate.
        rng: random generator, advanced here.
        stay: probability that the group stays the same from one sample of a session to the next.
        user_of: int64 [S], user of each session.
        session: int64 [N], session of each sample, session by session.
        start_s: float64 [S], second at which each session starts.
        first: bool [N], whether a sample is the first of its session.
        new_request: bool [N], whether a sample begins a request.
    """
    change = min(1.0, (1 - stay) * spec.request_mean)
    changed = ~first & new_request & (rng.random(len(session)) < change)
    total: I64 = np.cumsum(changed)
    within: I64 = total - total[first][session]
    last = np.append(np.flatnonzero(first)[1:], len(session)) - 1
    # A user's next session continues where the last session ended, with one change in between.
    num_changes: I64 = within[last] + 1
    order = np.lexsort((start_s, user_of))
    before: I64 = np.cumsum(num_changes[order]) - num_changes[order]
    new_user = np.append(True, np.diff(user_of[order]) != 0)
    before -= before[np.maximum.accumulate(np.where(new_user, np.arange(len(order)), 0))]
    version_at_start = np.empty(len(order), np.int64)
    version_at_start[order] = before
    return (version_at_start[session] + within).astype(np.int32)


def _number_by_first_sample(values: I64) -> I64:
    """Numbers distinct values 0, 1, 2, ... in the order in which they first appear: int64 [N] -> int64 [N]."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _separate_times(time_us: I64) -> I64:
    """Moves equal times apart by a microsecond each, so that a time names its sample: int64 [N] -> int64 [N]."""
    index = np.arange(len(time_us))
    return np.asarray(np.maximum.accumulate(time_us - index) + index, np.int64)
