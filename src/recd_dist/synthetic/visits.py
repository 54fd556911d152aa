"""Who is seen when: sessions of heavy-tailed size, their requests, interleaved in time; and when each group changes.

::

    time ->      a1 b1 c1 a2 d1 b2 a3 ...      a, b, c, d: sessions
    version of a     0     0        1          the group changed between a2 and a3

A sample costs about 40 bytes here plus 4 a group; the wide values are made later, chunk by chunk.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recd_dist.synthetic.spec import SyntheticSpec
from recd_dist.table.schema import SAMPLE

EPOCH_US = 1_767_225_600_000_000
"""2026-01-01 00:00:00 UTC in microseconds: when the logs begin."""

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Traffic:
    """Samples in time order, N of them.

    Attributes:
        session: int64 [N], sessions numbered by their first sample.
        request: int64 [N].
        timestamp_us: int64 [N], strictly rising.
        user: int64 [N].
        versions: group -> int32 [N]: how often the group changed for this user so far.
    """

    session: I64
    request: I64
    timestamp_us: I64
    user: I64
    versions: dict[str, NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.session)


def traffic(spec: SyntheticSpec) -> Traffic:
    """The traffic that a spec describes; a pure function of it."""
    rng = np.random.default_rng([spec.seed, 1])
    sizes = _session_sizes(spec, rng)
    session = np.repeat(np.arange(len(sizes)), sizes)
    first = np.zeros(len(session), bool)
    first[np.cumsum(sizes) - sizes] = True
    new_request = first | (rng.random(len(session)) < 1 / spec.request_mean)
    time_s = _times(spec, rng, sizes, session, first, new_request)
    user_of = rng.integers(0, spec.num_users, len(sizes))
    versions = {
        g.name: _versions(spec, rng, g.stay, user_of, session, time_s[first], first, new_request)
        for g in spec.groups
        if g.name != SAMPLE
    }
    order = np.argsort(time_s, kind="stable")
    # Session and request numbers rise with the time of their first sample, as counters of a live service do.
    request = np.cumsum(new_request) - 1
    return Traffic(
        session=_by_first_seen(session[order]),
        request=_by_first_seen(request[order]),
        timestamp_us=_strictly_rising(EPOCH_US + (time_s[order] * 1e6).astype(np.int64)),
        user=user_of[session[order]],
        versions={name: version[order] for name, version in versions.items()},
    )


def _session_sizes(spec: SyntheticSpec, rng: np.random.Generator) -> I64:
    """Log-normal session sizes, int64, that sum to num_samples (the last one is cut)."""
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


def _times(
    spec: SyntheticSpec,
    rng: np.random.Generator,
    sizes: I64,
    session: I64,
    first: NDArray[np.bool_],
    new_request: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Seconds of each sample, session by session: float64 [N].

    Gaps are gamma distributed (shape 2). A session longer than the whole log is squeezed to fit, so that sessions
    are whole: at small num_samples few sessions are open at once and batches hold more samples of each.
    """
    duration_s = spec.num_samples / spec.rate_per_s
    gaps = np.where(first, 0.0, np.where(new_request, rng.gamma(2.0, spec.gap_s / 2, len(session)), 0.0))
    total = np.cumsum(gaps)
    since_start = total - total[first][session]
    span = since_start[np.cumsum(sizes) - 1]
    squeeze = np.minimum(1.0, 0.95 * duration_s / np.maximum(span, 1e-9))
    start = rng.random(len(sizes)) * (duration_s - span * squeeze)
    return np.asarray(start[session] + since_start * squeeze[session], np.float64)


def _versions(
    spec: SyntheticSpec,
    rng: np.random.Generator,
    stay: float,
    user_of: I64,
    session: I64,
    start_s: NDArray[np.float64],
    first: NDArray[np.bool_],
    new_request: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """How often a group changed for its user before each sample: int32 [N].

    Changes happen between requests, more often there by request_mean, so that stay holds from sample to sample.
    """
    change = min(1.0, (1 - stay) * spec.request_mean)
    changed = ~first & new_request & (rng.random(len(session)) < change)
    total: I64 = np.cumsum(changed)
    within: I64 = total - total[first][session]
    last = np.append(np.flatnonzero(first)[1:], len(session)) - 1
    # A user's next session goes on where the last one ended, one change later.
    spent: I64 = within[last] + 1
    order = np.lexsort((start_s, user_of))
    before: I64 = np.cumsum(spent[order]) - spent[order]
    new_user = np.append(True, np.diff(user_of[order]) != 0)
    before -= before[np.maximum.accumulate(np.where(new_user, np.arange(len(order)), 0))]
    base = np.empty(len(order), np.int64)
    base[order] = before
    return (base[session] + within).astype(np.int32)


def _by_first_seen(values: I64) -> I64:
    """Renumbers values 0, 1, 2, ... in order of first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _strictly_rising(time_us: I64) -> I64:
    """Pushes equal times apart by a microsecond each: a timestamp names its sample."""
    index = np.arange(len(time_us))
    return np.asarray(np.maximum.accumulate(time_us - index) + index, np.int64)
