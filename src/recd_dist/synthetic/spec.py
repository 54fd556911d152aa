"""Parameters of the synthetic source: its traffic, groups, features and signal.

::

    traffic   sessions of heavy-tailed size, interleaved in time
    tables    how many distinct ids exist; the tables `item` and `category` belong together (see below)
    groups    features that change together, with the probability `stay` of not changing from sample to sample
    signal    how much of the label can be known, and from which features

Two table names have a meaning. Every id of `item` belongs to one id of `category`, and users prefer a few categories.
A feature of table `category` shows the categories of the items at the same positions of its group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE

ITEM, CATEGORY = "item", "category"
SHIFT, RESAMPLE = "shift", "resample"
TERMS = ("affinity", "item", "ids", "dense")
"""Terms of the hidden model: history with candidate, the candidate alone, other small ids, dense features."""


@dataclass(frozen=True)
class IdFeature:
    """An id feature.

    Attributes:
        name: name of the feature.
        table: table whose ids it draws.
        length: the most ids that a row holds; None for exactly one id, not in a list.
    """

    name: str
    table: str
    length: int | None = None


@dataclass(frozen=True)
class GroupSpec:
    """Features that change together.

    Attributes:
        name: name of the group; the group ``sample`` is drawn anew for every sample.
        stay: d, the probability that the group is the same as in the session's sample before.
        update: what a change does: ``shift`` drops the oldest id and appends one, ``resample`` draws all ids anew.
        ids: its id features.
        dense: names of its dense features.
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
        num_samples: number of samples of all splits.
        groups: the features.
        tables: number of distinct ids of each table.
        seed: seed of every random draw; it is an argument of ``generate`` and no key of the section.
        session_mean, session_median, session_max: samples per session, which have a log-normal distribution; a mean
            of 1 gives every session one sample.
        request_mean: mean number of samples per request; groups other than ``sample`` change between requests only.
        rate_per_s: samples per second of all sessions together.
        gap_s: mean seconds between two requests of a session; about rate_per_s x gap_s other samples lie between.
        num_users: number of users; sessions are dealt to them evenly, and histories continue from session to session.
        zipf: exponent of the popularity of ids; 1.0 is the classic Zipf law.
        focus: share of a user's history that comes from the categories that the user prefers.
        click_rate: mean of the label.
        signal: standard deviation of the hidden model's logit; with 0 labels are coin flips.
        shares: share of the logit's variance for each of ``TERMS``; scaled to sum to one over the terms that exist.
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
        """Id features with their groups, in the order of the columns."""
        return ((g, f) for g in self.groups for f in g.ids)

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "SyntheticSpec":
        """The spec of a ``synthetic:`` section.

        Args:
            value: the section as plain data, with the attributes above as keys. ``groups`` is
                ``{name: {stay, update, ids: {feature: {table, length}}, dense: [names]}}``. A feature that names no
                table draws from the table of its own name; ``ids`` may be a list of such features.

        Raises:
            ConfigError: an unknown or missing key, or values that contradict each other.
        """
        known = {f.name: f for f in fields(SyntheticSpec) if f.name != "seed"}  # `recd etl seed=...` sets it
        _check_keys(value, known, "data.synthetic")
        if missing := {"num_samples", "groups", "tables"} - set(value):
            raise ConfigError(f"data.synthetic: {', '.join(sorted(missing))} missing; see configs/data/tiny.yaml")
        plain: dict[str, Any] = {k: v for k, v in value.items() if k not in ("groups", "tables", "shares")}
        for name, number in plain.items():
            kind = int if known[name].type in (int, "int") else float
            if isinstance(number, bool) or not isinstance(number, int | float) or kind(number) != number:
                word = "a whole number" if kind is int else "a number"
                raise ConfigError(f"data.synthetic.{name} is {number!r}; it must be {word}")
            plain[name] = kind(number)
        plain["groups"] = tuple(_parse_group(name, group or {}) for name, group in value["groups"].items())
        plain["tables"] = {name: int(size) for name, size in value["tables"].items()}
        if value.get("shares"):
            plain["shares"] = {term: float(share) for term, share in value["shares"].items()}
        return SyntheticSpec(**plain)


def _check_keys(value: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuses a key that the section does not have; ``where`` leads the message."""
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(str(key), known)}")


def _parse_group(name: str, value: Mapping[str, Any]) -> GroupSpec:
    """The group that one entry of the section describes."""
    where = f"data.synthetic.groups.{name}"
    _check_keys(value, dict.fromkeys(("stay", "update", "ids", "dense")), where)
    ids = []
    listed = value.get("ids") or {}
    for feature, body in listed.items() if isinstance(listed, Mapping) else ((name, None) for name in listed):
        options = body or {}
        _check_keys(options, dict.fromkeys(("table", "length")), f"{where}.ids.{feature}")
        ids.append(IdFeature(feature, str(options.get("table", feature)), options.get("length")))
    update = value.get("update", RESAMPLE)
    return GroupSpec(name, float(value.get("stay", 0.0)), update, tuple(ids), tuple(value.get("dense") or ()))


def _mistakes(spec: SyntheticSpec) -> Iterator[str]:
    """Every mistake in a spec, in a line each."""
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
    """Every mistake in tables, groups and features, in a line each."""
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
    """Every mistake in one group, in a line each."""
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
