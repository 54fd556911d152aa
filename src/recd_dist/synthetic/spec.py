"""What the synthetic source is asked for: traffic, groups, features and how strong the signal is.

::

    traffic   sessions of heavy-tailed size, interleaved in time
    tables    how many distinct ids exist; `item` and `category` are two views of one thing (below)
    groups    features that change together, with the probability `stay` of not changing from sample to sample
    signal    how much of the label can be known, and from what

Two table names have a meaning: every item belongs to one `category`, users prefer a few categories, and a feature
of table `category` shows the categories of the items at the same positions of its group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE

ITEM, CATEGORY = "item", "category"
SHIFT, RESAMPLE = "shift", "resample"
TERMS = ("affinity", "item", "ids", "dense")
"""Parts of the hidden model: history x candidate, the candidate's own appeal, other small ids, dense features."""


@dataclass(frozen=True)
class IdFeature:
    """An id feature: ``table`` it draws from, and the most ids a row holds (None: exactly one, a scalar)."""

    name: str
    table: str
    length: int | None = None


@dataclass(frozen=True)
class GroupSpec:
    """Features that change together.

    Attributes:
        name: group; ``sample`` is drawn anew for every sample.
        stay: d, the probability that the group is the same as in the session's sample before.
        update: what a change does: ``shift`` drops the oldest id and appends one, ``resample`` draws all anew.
        ids, dense: its features.
    """

    name: str
    stay: float
    update: str
    ids: tuple[IdFeature, ...]
    dense: tuple[str, ...]


@dataclass(frozen=True)
class SyntheticSpec:
    """Parameters of the synthetic raw logs.

    Attributes:
        num_samples: samples in all, over every split.
        seed: everything is a function of it; an argument of ``generate``, not of the section.
        session_mean, session_median, session_max: samples per session (log-normal; mean 1 = one sample each).
        request_mean: samples per request; groups other than ``sample`` change between requests only.
        rate_per_s: samples a second over all sessions.
        gap_s: mean seconds between two requests of a session; rate_per_s x gap_s others lie between.
        num_users: users; sessions are dealt to them evenly, and histories run on from session to session.
        zipf: exponent of id popularity (1.0 = classic Zipf).
        focus: share of a user's history that comes from the categories the user prefers.
        tables: distinct ids per table.
        groups: the features.
        click_rate: mean of the label.
        signal: standard deviation of the hidden model's logit; 0 = labels are coin flips.
        shares: share of the logit's variance per term (``TERMS``); scaled to sum to one over the terms that exist.
    """

    num_samples: int
    groups: tuple[GroupSpec, ...]
    tables: dict[str, int]
    seed: int = 0
    session_mean: float = 16.3
    session_median: float = 10.0
    session_max: int = 600
    request_mean: float = 1.0
    rate_per_s: float = 200.0
    gap_s: float = 40.0
    num_users: int = 10_000
    zipf: float = 1.05
    focus: float = 0.7
    click_rate: float = 0.3
    signal: float = 1.7
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TERMS, 0.25))

    def __post_init__(self) -> None:
        if mistakes := list(_mistakes(self)):
            raise ConfigError("data.synthetic: " + "\n  ".join(mistakes))

    @property
    def features(self) -> Iterator[tuple[GroupSpec, IdFeature]]:
        """Id features with their groups, in column order."""
        return ((g, f) for g in self.groups for f in g.ids)

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "SyntheticSpec":
        """The spec of a ``synthetic:`` section.

        Args:
            value: the section as plain data: the attributes above, ``groups`` as
                ``{name: {stay, update, ids: {feature: {table, length}}, dense: [names]}}``; a feature that names no
                table draws from one of its own name, and a list of such names will do for ``ids``.

        Raises:
            ConfigError: an unknown or missing key, or values that contradict each other.
        """
        known = {f.name: f for f in fields(SyntheticSpec) if f.name != "seed"}  # `recd etl seed=...` sets it
        _only(value, known, "data.synthetic")
        if missing := {"num_samples", "groups", "tables"} - set(value):
            raise ConfigError(f"data.synthetic: {', '.join(sorted(missing))} missing; see configs/data/tiny.yaml")
        plain: dict[str, Any] = {k: v for k, v in value.items() if k not in ("groups", "tables", "shares")}
        for name, given in plain.items():
            kind = int if known[name].type in (int, "int") else float
            if isinstance(given, bool) or not isinstance(given, int | float) or kind(given) != given:
                word = "a whole number" if kind is int else "a number"
                raise ConfigError(f"data.synthetic.{name} is {given!r}; it must be {word}")
            plain[name] = kind(given)
        plain["groups"] = tuple(_group(name, group or {}) for name, group in value["groups"].items())
        plain["tables"] = {name: int(size) for name, size in value["tables"].items()}
        if value.get("shares"):
            plain["shares"] = {term: float(share) for term, share in value["shares"].items()}
        return SyntheticSpec(**plain)


def _only(value: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuses a key that is not known."""
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(str(key), known)}")


def _group(name: str, value: Mapping[str, Any]) -> GroupSpec:
    """One group of the section."""
    where = f"data.synthetic.groups.{name}"
    _only(value, dict.fromkeys(("stay", "update", "ids", "dense")), where)
    ids = []
    listed = value.get("ids") or {}
    for feature, body in listed.items() if isinstance(listed, Mapping) else ((name, None) for name in listed):
        options = body or {}
        _only(options, dict.fromkeys(("table", "length")), f"{where}.ids.{feature}")
        ids.append(IdFeature(feature, str(options.get("table", feature)), options.get("length")))
    update = value.get("update", RESAMPLE)
    return GroupSpec(name, float(value.get("stay", 0.0)), update, tuple(ids), tuple(value.get("dense") or ()))


def _mistakes(spec: SyntheticSpec) -> Iterator[str]:
    """Every mistake in a spec, one line each."""
    for name in ("num_samples", "session_median", "rate_per_s", "num_users"):
        if getattr(spec, name) <= 0:
            yield f"{name} is {getattr(spec, name)}; it must be positive"
    if not 1 <= spec.session_median <= spec.session_mean <= spec.session_max:
        yield (
            f"session_median {spec.session_median}, session_mean {spec.session_mean}, session_max {spec.session_max}: "
            "they must rise, from 1 on (sessions have a long tail)"
        )
    if spec.request_mean < 1:
        yield f"request_mean is {spec.request_mean}; a request holds at least one sample"
    if not 0 < spec.click_rate < 1:
        yield f"click_rate is {spec.click_rate}; it must lie between 0 and 1"
    if not 0 <= spec.focus <= 1:
        yield f"focus is {spec.focus}; it must be 0 to 1"
    if spec.zipf <= 0 or spec.signal < 0 or spec.gap_s < 0:
        yield "zipf must be positive, signal and gap_s must not be negative"
    unknown = [term for term in spec.shares if term not in TERMS]
    yield from (f"shares has an unknown term '{term}'{nearest(term, TERMS)}" for term in unknown)
    yield from _feature_mistakes(spec)


def _feature_mistakes(spec: SyntheticSpec) -> Iterator[str]:
    """Every mistake in tables, groups and features."""
    for table, size in spec.tables.items():
        if size < 2 or size >= 2**31:
            yield f"table '{table}' has {size} ids; 2 to 2^31-1 are possible"
    if ITEM in spec.tables and spec.tables[ITEM] < spec.tables.get(CATEGORY, 1):
        yield f"there are more categories ({spec.tables[CATEGORY]}) than items ({spec.tables[ITEM]})"
    if not any(g.ids or g.dense for g in spec.groups):
        yield "no features; give groups.sample.ids at least one"
    for group in spec.groups:
        yield from _group_mistakes(spec, group)


def _group_mistakes(spec: SyntheticSpec, group: GroupSpec) -> Iterator[str]:
    """Every mistake in one group."""
    if not 0 <= group.stay < 1 + 1e-9:
        yield f"groups.{group.name}.stay is {group.stay}; it is a probability"
    if group.update not in (SHIFT, RESAMPLE):
        yield f"groups.{group.name}.update is '{group.update}'{nearest(str(group.update), (SHIFT, RESAMPLE))}"
    if group.name == SAMPLE and (group.stay or group.update == SHIFT):
        yield "groups.sample is drawn anew for every sample: it takes neither stay nor shift"
    for f in group.ids:
        if f.table not in spec.tables:
            yield f"feature '{f.name}' draws from table '{f.table}'{nearest(f.table, spec.tables)}"
        if f.length is not None and f.length < 1:
            yield f"feature '{f.name}' has length {f.length}; it must be at least 1 (leave it out for a single id)"
