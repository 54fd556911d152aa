"""Synthetic listening events, as flat as Yambda publishes them.

::

    uid  item_id  timestamp  is_organic  event_type  played_ratio_pct  track_length_seconds
     10      812        340           1      listen               100                   215      in order of (uid,
     10      812        445           1        like              null                  null       timestamp)
     10       77        555           0      listen                 3                   180

Times are seconds since the first moment, rounded down to 5: a track that is skipped at once and the next one have equal
times. Whether a track is played to its half is drawn from a hidden model, so that the AUC of the best possible model is
known::

    logit = bias + signal * sum over terms of sqrt(share) * standardised term
    taste     the user likes the track's genre: what earlier days show
    mood      it is the genre of this session: what the session's earlier plays show
    item      how good the track is
    organic   the user chose it
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.synthetic.draw import I64
from recd_dist.synthetic.event_spec import EventSpec
from recd_dist.synthetic.labels import F64, find_bias, score
from recd_dist.synthetic.write_once import write_once

_log = logging.getLogger(__name__)

EVENTS_FILE = "multi_event.parquet"
"""The name of the file, as published."""

EVENT_TYPES = ("listen", "like", "dislike", "unlike", "undislike")

VERSION = 1
"""Version of the generator; logs of another version are written again."""

_DAY, _BIN = 86_400, 5
_NUM_LIKED = 3
_LISTEN, _LIKE, _DISLIKE, _UNLIKE, _UNDISLIKE = range(len(EVENT_TYPES))

Flags = NDArray[np.bool_]


def generate_events(spec: EventSpec, out: Path, *, seed: int = 0) -> Path:
    """Writes the event log of a spec, unless it is there already.

    Args:
        spec: what to write.
        out: directory for ``multi_event.parquet`` and ``oracle.json``; replaced where it holds the log of another spec.
        seed: seed of every random draw; the same spec and seed give the same log.

    Returns:
        The directory.

    Raises:
        DataError: the directory holds something else, or cannot be written.
        ConfigError: the seed has more than 64 bits.
    """
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed={seed}: must be from 0 to {(1 << 64) - 1}, a number of 64 bits")
    out, spec = Path(out), replace(spec, seed=seed)

    def write(work: Path) -> None:
        plays = draw_plays(spec)
        pq.write_table(event_table(spec, plays), work / EVENTS_FILE, compression="zstd")
        is_test = plays.second > plays.second.max() - _DAY
        sides = {"all": np.ones(len(is_test), bool), "train": ~is_test, "test": is_test}
        scores = {name: score(plays.probability[side], plays.listened[side] * 1.0) for name, side in sides.items()}
        (work / "oracle.json").write_text(json_text({name: oracle.to_json() for name, oracle in scores.items()}))
        best = scores["test"]
        _log.info("%d plays; the best possible AUC on the last day is %.4f, NE %.4f", len(is_test), best.auc, best.ne)

    write_once(out, json_text({"version": VERSION, "events": asdict(spec)}), write)
    return out


@dataclass(frozen=True)
class Plays:
    """Tracks that were played: arrays [N], user by user in the order of time.

    Attributes:
        user, item: int64, numbers of user and track, from 0.
        second: int64, seconds since the first moment, a multiple of 5.
        organic: bool, the user chose the track.
        ratio: int64, the percentage that was played; more than 100 where a user went back.
        length: int64, the track's length in seconds.
        liked: bool, the user likes the track's genre.
        listened: bool, at least half was played.
        probability: float64, the true probability of that.
    """

    user: I64
    item: I64
    second: I64
    organic: Flags
    ratio: I64
    length: I64
    liked: Flags
    listened: Flags
    probability: F64


@dataclass(frozen=True)
class _Tracks:
    """Tracks, genre by genre: ``genre`` int64, ``quality`` float64, ``length`` int64 seconds, all [num_items].

    ``ends`` is float64 [num_items], the running sum of popularities; ``bounds`` int64 [num_genres + 1] says where the
    tracks of each genre begin and end.
    """

    genre: I64
    quality: F64
    length: I64
    ends: F64
    bounds: I64


def draw_plays(spec: EventSpec) -> Plays:
    """Draws who plays what and for how long; equal specs give equal plays."""
    rng = np.random.default_rng([spec.seed, 7])
    tracks = _draw_tracks(spec, rng)
    liked = rng.random((spec.num_users, spec.num_genres)).argsort(axis=1)[:, :_NUM_LIKED]
    user_of, start, mood, sizes = _draw_sessions(spec, rng, liked)
    session = np.repeat(np.arange(len(sizes)), sizes)
    user = user_of[session]
    organic = rng.random(len(session)) < spec.organic_rate
    likes = liked[user, rng.integers(0, _NUM_LIKED, len(session))]
    roll = rng.random(len(session))
    any_genre = rng.integers(0, spec.num_genres, len(session))
    chosen = np.where(roll < spec.focus, mood[session], np.where(roll < (1 + spec.focus) / 2, likes, any_genre))
    item = _draw_items(tracks, chosen, rng)
    genre = tracks.genre[item]
    is_liked = (liked[user] == genre[:, None]).any(axis=1)
    terms = {"taste": is_liked, "mood": mood[session] == genre, "item": tracks.quality[item], "organic": organic}
    probability = _probabilities(spec, {name: np.asarray(term, np.float64) for name, term in terms.items()})
    listened = rng.random(len(session)) < probability
    ratio, length = _draw_ratios(listened, rng), tracks.length[item]
    second = start[session] + _seconds_into_session(sizes, ratio * length // 100, rng)
    second = second // _BIN * _BIN
    order = np.lexsort((second, user))
    order = order[second[order] < spec.num_days * _DAY]
    return Plays(
        user[order],
        item[order],
        second[order],
        organic[order],
        ratio[order],
        length[order],
        is_liked[order],
        listened[order],
        probability[order],
    )


def event_table(spec: EventSpec, plays: Plays) -> pa.Table:
    """The plays and the feedback on some of them, with the columns and types of ``multi_event.parquet``."""
    rng = np.random.default_rng([spec.seed, 8])
    roll, num = rng.random(len(plays.user)), len(plays.user)
    like = np.flatnonzero(plays.listened & (roll < spec.like_rate * np.where(plays.liked, 1.5, 0.5)))
    dislike = np.flatnonzero(~plays.listened & (roll < spec.like_rate / 4))
    back = {_UNLIKE: like[: len(like) // 8], _UNDISLIKE: dislike[: len(dislike) // 8]}  # taken back a day later
    during, later = plays.length // 3, np.full(num, _DAY)
    rows = [(np.arange(num), _LISTEN, np.zeros(num, np.int64)), (like, _LIKE, during), (dislike, _DISLIKE, during)]
    rows += [(taken, kind, later) for kind, taken in back.items()]
    of = np.concatenate([play for play, _, _ in rows])
    kind = np.concatenate([np.full(len(play), k) for play, k, _ in rows])
    second = np.concatenate([plays.second[play] + delay[play] for play, _, delay in rows]) // _BIN * _BIN
    inside = second <= plays.second.max()
    order = np.lexsort((second, plays.user[of]))
    order = order[inside[order]]
    of, kind, second = of[order], kind[order], second[order]
    is_feedback = kind != _LISTEN
    types = pa.DictionaryArray.from_arrays(pa.array(kind.astype(np.int8)), pa.array(EVENT_TYPES))
    columns: dict[str, Any] = {
        "uid": pa.array((10 * (plays.user[of] + 1)).astype(np.uint32)),
        "timestamp": pa.array(second.astype(np.uint32)),
        "item_id": pa.array((plays.item[of] + 1).astype(np.uint32)),
        "is_organic": pa.array(plays.organic[of].astype(np.uint8)),
        "event_type": types,
        "played_ratio_pct": pa.array(plays.ratio[of].astype(np.uint16), mask=is_feedback),
        "track_length_seconds": pa.array(plays.length[of].astype(np.uint32), mask=is_feedback),
    }
    return pa.table(columns)


def _draw_tracks(spec: EventSpec, rng: np.random.Generator) -> _Tracks:
    genre = np.sort(np.arange(spec.num_items) % spec.num_genres)
    popularity = (1.0 + rng.permutation(spec.num_items)) ** -spec.zipf
    length = np.clip(rng.normal(200, 60, spec.num_items), 30, 1200).astype(np.int64) // _BIN * _BIN
    bounds = np.searchsorted(genre, np.arange(spec.num_genres + 1))
    return _Tracks(genre, rng.standard_normal(spec.num_items), length, np.cumsum(popularity), bounds)


def _draw_sessions(spec: EventSpec, rng: np.random.Generator, liked: I64) -> tuple[I64, I64, I64, I64]:
    """User, first second, genre and number of plays of each session, int64 [sessions] each."""
    counts = rng.poisson(spec.sessions_per_day * spec.num_days, spec.num_users)
    user = np.repeat(np.arange(spec.num_users), counts)
    hour = np.clip(rng.normal(15, 4.5, len(user)), 0, 23.99)  # most sessions begin in the afternoon and the evening
    start = rng.integers(0, spec.num_days, len(user)) * _DAY + (hour * 3600).astype(np.int64)
    mood = liked[user, rng.integers(0, _NUM_LIKED, len(user))]
    sigma = 0.8
    sizes = np.exp(np.log(spec.session_mean) - sigma**2 / 2 + sigma * rng.standard_normal(len(user)))
    return user, start, mood, np.maximum(np.rint(sizes), 1).astype(np.int64)


def _draw_items(tracks: _Tracks, genre: I64, rng: np.random.Generator) -> I64:
    """A track of each genre, by popularity: int64, as long as ``genre``."""
    before = np.append(0.0, tracks.ends)
    low, high = before[tracks.bounds[genre]], before[tracks.bounds[genre + 1]]
    found = np.searchsorted(tracks.ends, low + rng.random(len(genre)) * (high - low), side="right")
    return np.clip(found, tracks.bounds[genre], tracks.bounds[genre + 1] - 1)


def _probabilities(spec: EventSpec, terms: dict[str, F64]) -> F64:
    """The true probability of each play to be listened to, float64 [N]."""
    total = sum(spec.shares.values()) or 1.0
    logit = np.zeros(len(terms["item"]))
    for name, term in terms.items():
        if (spread := term.std()) > 0:
            logit += spec.signal * np.sqrt(spec.shares.get(name, 0.0) / total) * (term - term.mean()) / spread
    return np.asarray(1 / (1 + np.exp(-(logit + find_bias(spec.listened_rate, logit)))), np.float64)


def _draw_ratios(listened: Flags, rng: np.random.Generator) -> I64:
    """The percentage that was played: 50 and more where it was listened to, else below, often 0."""
    roll, num = rng.random(len(listened)), len(listened)
    whole = np.where(roll < 0.01, rng.integers(101, 150, num), np.where(roll < 0.85, 100, rng.integers(50, 100, num)))
    return np.where(listened, whole, np.where(roll < 0.2, 0, rng.integers(1, 50, num))).astype(np.int64)


def _seconds_into_session(sizes: I64, played: I64, rng: np.random.Generator) -> I64:
    """How many seconds after its session's beginning each play begins: int64 [N]."""
    lasts = played + rng.integers(0, 8, len(played))
    before = np.cumsum(lasts) - lasts
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(before - before[first], np.int64)
