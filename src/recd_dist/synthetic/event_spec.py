"""Parameters of a synthetic log of listening events, in the shape of Yandex's Yambda data set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recd_dist.errors import ConfigError, nearest

EVENT_TERMS = ("taste", "mood", "item", "organic")
"""Terms of the hidden model: the user's genres, the session's genre, the track alone, who chose it."""


@dataclass(frozen=True)
class EventSpec:
    """Parameters of the log; ``configs/data/yambda_moving.yaml`` has them below ``synthetic_events``.

    Attributes:
        num_users: the number of users.
        num_days: the number of days; the last one is the test set.
        num_items: the number of tracks, each of one genre.
        num_genres: the number of genres; a user likes three of them.
        sessions_per_day: the mean number of sessions of a user in a day.
        session_mean: the mean number of tracks played in a session; sessions have a long tail.
        zipf: the exponent of the tracks' popularity.
        focus: the share of plays that users choose from the genre they are in the mood for.
        organic_rate: the share of plays that users chose themselves; the others were recommended.
        listened_rate: the share of plays that go on for at least half of the track.
        like_rate: the likes per play of that kind; other feedback is rarer.
        signal: the standard deviation of the hidden model's logit; with 0 labels are coin flips.
        shares: the share of the logit's variance for each of ``EVENT_TERMS``; they are scaled to sum to one.
        seed: seed of every random draw; it is an argument of ``generate_events`` and no key of the section.
    """

    num_users: int = 100
    num_days: int = 15
    num_items: int = 2000
    num_genres: int = 20
    sessions_per_day: float = 2.5
    session_mean: float = 16.0
    zipf: float = 1.05
    focus: float = 0.4
    organic_rate: float = 0.52
    listened_rate: float = 0.63
    like_rate: float = 0.03
    signal: float = 1.6
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EVENT_TERMS, 0.25))
    seed: int = 0

    def __post_init__(self) -> None:
        if mistakes := list(_mistakes(self)):
            raise ConfigError("data.synthetic_events: " + "\n  ".join(mistakes))

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "EventSpec":
        """The spec of a ``synthetic_events:`` section.

        Args:
            value: the section as plain data, with the attributes above as keys.

        Raises:
            ConfigError: an unknown key, or values that contradict each other.
        """
        known = {f.name: f for f in fields(EventSpec) if f.name != "seed"}  # `recd etl seed=...` sets it
        for key in value:
            if key not in known:
                raise ConfigError(f"data.synthetic_events: unknown key '{key}'{nearest(str(key), known)}")
        plain: dict[str, Any] = {name: v for name, v in value.items() if name != "shares"}
        for name, number in plain.items():
            kind = int if known[name].type in (int, "int") else float
            if isinstance(number, bool) or not isinstance(number, int | float) or kind(number) != number:
                word = "a whole number" if kind is int else "a number"
                raise ConfigError(f"data.synthetic_events.{name} is {number!r}; it must be {word}")
            plain[name] = kind(number)
        if value.get("shares"):
            plain["shares"] = {term: float(share) for term, share in value["shares"].items()}
        return EventSpec(**plain)


def _mistakes(spec: EventSpec) -> Iterator[str]:
    """Every mistake in a spec, in a line each."""
    for name in ("num_users", "num_items", "sessions_per_day", "zipf"):
        if getattr(spec, name) <= 0:
            yield f"{name} is {getattr(spec, name)}; it must be positive"
    if spec.num_days < 2:
        yield f"num_days is {spec.num_days}; at least 2 are needed, since the last one is the test set"
    if not 3 <= spec.num_genres <= spec.num_items:
        yield f"num_genres is {spec.num_genres}; it must be from 3 to num_items, which is {spec.num_items}"
    if spec.session_mean < 1:
        yield f"session_mean is {spec.session_mean}; a session holds at least one track"
    for name in ("focus", "organic_rate", "like_rate"):
        if not 0 <= getattr(spec, name) <= 1:
            yield f"{name} is {getattr(spec, name)}; it must be 0 to 1"
    if not 0 < spec.listened_rate < 1:
        yield f"listened_rate is {spec.listened_rate}; it must lie between 0 and 1"
    if spec.signal < 0:
        yield f"signal is {spec.signal}; it must not be negative"
    unknown = [term for term in spec.shares if term not in EVENT_TERMS]
    yield from (f"shares has an unknown term '{term}'{nearest(term, EVENT_TERMS)}" for term in unknown)
    if spec.signal and not unknown and not sum(spec.shares.values()) > 0:
        yield "shares sum to 0; give at least one term a share, or set signal to 0"
