"""A source: where raw logs lie and, in SQL, what a sample is.

::

    samples   one row per sample: keys, labels, features            select ... from read_parquet('{path}')
    groups    history: its own query, one row per key               select user_id, ids as history from ...
              request: columns of the samples                       [device, hour]
    sessions  a column, or a user's samples with gaps of less than 30 minutes, or the request
    split     a predicate that is true for test samples, or the share of sessions that are the last in time

Nothing is read here: ``etl/source/inspection.py`` looks at the columns and ``etl/flow.py`` reads the rows.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE, Kind

KEY_NAMES = ("session", "request", "timestamp", "user", "sample", "order")
"""What a source may name as keys; docs/data.md says what each is for."""
SESSIONS = ("auto", "column", "gap", "request", "user", "none")
PARTITIONS = ("day", "hour")

_QUERY = ("name", "path", "samples", "samples_spark", "keys", "labels", "split", "groups", "features", "drop")
_OPTIONS = (*_QUERY, "sessions", "policy", "sample", "partition")
_CHOICES = ("error", "keep", "drop")
_POLICIES = {"duplicates": _CHOICES, "late": _CHOICES, "time": _CHOICES}
_GAP = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?\Z")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_FOREVER = 2**62
_NEEDS = {"column": ("session",), "gap": ("user", "timestamp"), "request": ("request",), "user": ("user",)}
_ELSEWHERE = ("source", "table", "tables", "synthetic", "partitions")  # of the data config, read by other rooms
_TRAIN, _TEST = "train", "test"


@dataclass(frozen=True)
class GroupSource:
    """Where the rows of one deduplicated group come from.

    Attributes:
        features: columns of the samples (or, with ``sql``, of that query; empty means all but the key).
        sql: a query of its own with one row per key; None for columns of the samples.
        key: columns that link a sample to its row, of the same names in both queries.
        sql_spark: the query in Spark SQL, for what cannot be translated; ``sql`` still tells columns and types.
    """

    features: tuple[str, ...] = ()
    sql: str | None = None
    key: tuple[str, ...] = ()
    sql_spark: str | None = None


@dataclass(frozen=True)
class FeatureSource:
    """What a column's type cannot tell.

    Attributes:
        table: the embedding table it looks up; None names it after the column.
        kind: where it is to differ from what the column's type says.
        weights: the column beside it with a number for each id.
        window: stored as windows over a stream of ids or not; None leaves that to what the data gain.
    """

    table: str | None = None
    kind: Kind | None = None
    weights: str | None = None
    window: bool | None = None


@dataclass(frozen=True)
class Policy:
    """What happens to samples that are not as they should be; all are counted in the manifest.

    Attributes:
        duplicates: ``drop`` the later of samples with one sample key (or, without sample keys, equal in every value),
            ``keep`` or ``error``.
        late: samples of a partition that the table has already: ``error``, ``keep`` or ``drop``.
        time: samples outside the bounds: ``error``, ``keep`` or ``drop``.
        earliest_us, latest_us: bounds of a time that can be, in microseconds since 1970.
    """

    duplicates: str = "keep"
    late: str = "error"
    time: str = "error"
    earliest_us: int = -_FOREVER
    latest_us: int = _FOREVER


@dataclass(frozen=True)
class Source:
    """Raw logs described by SQL; ``Source.from_dict`` validates a data config.

    Attributes:
        name: of the source, kept in the manifest.
        path: file, directory or glob; stands for ``{path}`` in every query.
        samples: DuckDB query with one row per sample; None reads every column of ``path``.
        keys: columns of session, request, timestamp; each may be missing.
        labels: label columns; the first is trained on.
        split: predicate that is true for test samples, or the share (0..1) of last sessions, or None.
        groups: the deduplicated groups; None finds them by measuring.
        features: what the column types cannot tell.
        drop: columns to ignore.
        sessions: what a session is: ``column``, ``gap``, ``request``, ``user``, ``none``; ``auto`` is the first of
            these whose keys are named.
        gap_s: seconds without a sample of the user after which the next one begins a session, where it is ``gap``.
        policy: for duplicates, late samples and times that cannot be.
        sample: share of the sessions that are taken.
        partition: ``day``, ``hour`` or nothing: what the table's parts are dealt by.
        samples_spark: ``samples`` in Spark SQL, for what cannot be translated; ``samples`` still tells columns and
            types.
    """

    name: str
    path: str
    samples: str | None = None
    keys: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ("label",)
    split: str | float | None = None
    groups: dict[str, GroupSource] | None = None
    features: dict[str, FeatureSource] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    sessions: str = "auto"
    gap_s: float = 1800.0
    policy: Policy = field(default_factory=Policy)
    sample: float = 1.0
    partition: str = ""
    samples_spark: str | None = None

    @property
    def session_by(self) -> str:
        """What a session is, ``auto`` resolved."""
        if self.sessions != "auto":
            return self.sessions
        return next((by for by, keys in _NEEDS.items() if all(key in self.keys for key in keys)), "none")

    @property
    def session_column(self) -> str | None:
        """The column that samples are sharded by: their session's, or what sessions are made from."""
        names = {"column": "session", "gap": "user", "user": "user", "request": "request"}
        return self.keys.get(names[self.session_by]) if self.session_by in names else None

    @property
    def gap_us(self) -> int | None:
        """The gap in microseconds, where sessions are found by one."""
        return round(self.gap_s * 1_000_000) if self.session_by == "gap" else None

    @property
    def session_words(self) -> str:
        """What a session is, for the manifest."""
        if self.session_by == "gap":
            return f"samples of one {self.keys['user']} with less than {self.gap_s:g} s between neighbours"
        if self.session_by == "none":
            return "every sample its own: the source names no session, user or request"
        key = {"column": "session"}.get(self.session_by, self.session_by)
        return f"samples of one {self.session_column} (keys.{key})"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the tables that the source is written to."""
        return (_TRAIN,) if self.split is None else (_TRAIN, _TEST)

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "Source":
        """A source from a data config.

        Args:
            value: plain dict of the options of ``configs/data``; what other rooms read (tables, transforms) is skipped.

        Raises:
            ConfigError: one error that lists every mistake.
        """
        mistakes = [
            f"unknown option '{key}'{nearest(key, _OPTIONS)}"
            for key in value
            if key not in _OPTIONS and key not in _ELSEWHERE
        ]
        name = str(value.get("name") or "data")
        if not value.get("path"):
            mistakes.append("path is missing; give the raw file, directory or glob")
        source = Source(
            name=name,
            path=str(value.get("path") or ""),
            samples=value.get("samples") or None,
            keys=_keys(value.get("keys") or {}, mistakes),
            labels=_names(value.get("labels"), "labels", mistakes),
            split=_split(value.get("split"), mistakes),
            groups=_groups(value.get("groups"), mistakes),
            features=_features(value.get("features") or {}, mistakes),
            drop=_names(value.get("drop"), "drop", mistakes),
            sample=_share(value.get("sample"), mistakes),
            partition=_partition(value.get("partition"), mistakes),
            samples_spark=value.get("samples_spark") or None,
        )
        by, gap_s = _sessions(value.get("sessions") or {}, source.keys, mistakes)
        policy = _policy(value.get("policy") or {}, source.keys, mistakes)
        source = replace(source, sessions=by, gap_s=gap_s, policy=policy)
        if source.partition and "timestamp" not in source.keys:
            mistakes.append(f"partition={source.partition} needs keys.timestamp")
        if not source.labels:
            mistakes.append("labels is empty; name the label column, such as labels: [clicked]")
        if mistakes:
            raise ConfigError(f"data source '{name}': " + "\n  ".join(mistakes))
        return source


def _keys(value: Any, mistakes: list[str]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        mistakes.append(f"keys must map {', '.join(KEY_NAMES)} to columns, found {value!r}")
        return {}
    for key, column in value.items():
        if key not in KEY_NAMES:
            mistakes.append(f"unknown keys.{key}{nearest(str(key), KEY_NAMES)}")
        elif column is not None and not isinstance(column, str):
            mistakes.append(f"keys.{key} must be one column name, found {column!r}")
    return {key: value[key] for key in KEY_NAMES if isinstance(value.get(key), str)}


def tomorrow_us() -> int:
    """The end of tomorrow, in microseconds since 1970: no clock that is right is a day ahead."""
    return int(datetime.now(UTC).timestamp() // 86400 + 2) * 86_400_000_000


def _sessions(value: Any, keys: Mapping[str, str], mistakes: list[str]) -> tuple[str, float]:
    """What a session is, and the gap in seconds."""
    if not isinstance(value, Mapping):
        value = {"by": value}
    mistakes += [f"unknown sessions.{k}{nearest(str(k), ('by', 'gap'))}" for k in value if k not in ("by", "gap")]
    by, gap_s = str(value.get("by") or "auto"), _gap(value.get("gap"), mistakes)
    if by not in SESSIONS:
        mistakes.append(f"sessions.by={by}: no such way{nearest(by, SESSIONS)}")
        return "none", gap_s
    mistakes += [f"sessions.by={by} needs keys.{key}" for key in _NEEDS.get(by, ()) if key not in keys]
    return by, gap_s


def _gap(value: Any, mistakes: list[str]) -> float:
    """Seconds of ``1800``, ``30m``, ``30min``, ``0.5h``."""
    found = _GAP.match(str(value if value is not None else "30m").strip())
    if not found or float(found[1]) <= 0:
        mistakes.append(f"sessions.gap={value}: write a time above 0 as 30m, 1800s or 0.5h")
        return 1800.0
    return float(found[1]) * _SECONDS[found[2] or "s"]


def _policy(value: Any, keys: Mapping[str, str], mistakes: list[str]) -> Policy:
    if not isinstance(value, Mapping):
        mistakes.append(f"policy must map {', '.join(_POLICIES)} to what happens, found {value!r}")
        return Policy()
    known = (*_POLICIES, "earliest", "latest")
    mistakes += [f"unknown policy.{k}{nearest(str(k), known)}" for k in value if k not in known]
    chosen = {"duplicates": "drop" if "sample" in keys else "keep", "late": "error", "time": "error"}
    for name, choices in _POLICIES.items():
        if value.get(name) is not None:
            chosen[name] = str(value[name])
            if chosen[name] not in choices:
                mistakes.append(f"policy.{name}={chosen[name]}: no such policy{nearest(chosen[name], choices)}")
    bounds = {"earliest": -_FOREVER, "latest": _FOREVER}
    for name, default in (("earliest", "1990-01-01"), ("latest", None)):
        given = value.get(name) or default
        try:
            if given is None:
                bounds[name] = tomorrow_us()
            else:
                moment = datetime.fromisoformat(str(given))
                moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
                bounds[name] = round(moment.timestamp() * 1_000_000)
        except ValueError:
            mistakes.append(f"policy.{name}={given}: write a time as 2026-11-25 or 2026-11-25T07:00:00")
    return Policy(chosen["duplicates"], chosen["late"], chosen["time"], bounds["earliest"], bounds["latest"])


def _share(value: Any, mistakes: list[str]) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        mistakes.append(f"sample={value}: must be a share of the sessions, above 0 and at most 1")
        return 1.0
    return float(value)


def _partition(value: Any, mistakes: list[str]) -> str:
    if value in (None, ""):
        return ""
    if value not in PARTITIONS:
        mistakes.append(f"partition={value}: no such partition{nearest(str(value), PARTITIONS)}")
        return ""
    return str(value)


def _split(value: Any, mistakes: list[str]) -> str | float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        mistakes.append(f"split must be an SQL predicate or a share between 0 and 1, found {value!r}")
        return None
    return float(value)


def _groups(value: Any, mistakes: list[str]) -> dict[str, GroupSource] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        mistakes.append(f"groups must map names to {{features: [...]}} or {{sql: ..., key: ...}}, found {value!r}")
        return None
    groups, seen = {}, dict[str, str]()
    for name, options in value.items():
        group = _group(str(name), options, mistakes)
        groups[str(name)] = group
        for column in group.features if group.sql is None else ():
            if column in seen:
                mistakes.append(f"'{column}' is in groups '{seen[column]}' and '{name}'; a feature has one group")
            seen[column] = str(name)
    return groups


def _group(name: str, options: Any, mistakes: list[str]) -> GroupSource:
    where = f"groups.{name}"
    known = ("features", "sql", "key", "sql_spark")
    if not isinstance(options, Mapping):
        options = {"features": options}  # `request: [device, hour]` says all there is to say
    mistakes += [f"unknown {where}.{key}{nearest(str(key), known)}" for key in options if key not in known]
    group = GroupSource(
        _names(options.get("features"), f"{where}.features", mistakes),
        options.get("sql") or None,
        _names(options.get("key"), f"{where}.key", mistakes),
        options.get("sql_spark") or None,
    )
    if name == "samples":
        mistakes.append(f"{where}: 'samples' is the table's own directory; choose another name")
    if group.sql is not None and not group.key:
        mistakes.append(f"{where}.key is missing; name the column that links a sample to its row of the query")
    if group.sql is None and group.key:
        mistakes.append(f"{where}.key has no meaning without {where}.sql")
    if group.sql is None and not group.features:
        mistakes.append(f"{where} has neither features nor sql")
    if group.sql is not None and name == SAMPLE:
        mistakes.append(f"{where}: the group '{SAMPLE}' is never deduplicated and cannot have its own query")
    return group


def _features(value: Any, mistakes: list[str]) -> dict[str, FeatureSource]:
    if not isinstance(value, Mapping):
        mistakes.append(f"features must map column names to {{table: ..., kind: ...}}, found {value!r}")
        return {}
    features = {}
    for name, given in value.items():
        options = given or {}
        known = ("table", "kind", "weights", "window", "transforms")
        if not isinstance(options, Mapping):
            mistakes.append(f"features.{name} must be a map of {', '.join(known)}, found {options!r}")
            continue
        mistakes += [f"unknown features.{name}.{key}{nearest(str(key), known)}" for key in options if key not in known]
        kind = options.get("kind")
        if kind is not None and kind not in list(Kind):
            mistakes.append(f"features.{name}.kind: no kind '{kind}'{nearest(str(kind), list(Kind))}")
            kind = None
        weights, window = options.get("weights"), options.get("window")
        if weights is not None and not isinstance(weights, str):
            mistakes.append(f"features.{name}.weights must be one column name, found {weights!r}")
            weights = None
        if window is not None and not isinstance(window, bool):
            mistakes.append(f"features.{name}.window must be true or false, found {window!r}")
            window = None
        features[str(name)] = FeatureSource(options.get("table"), Kind(kind) if kind else None, weights, window)
    weighted = [f.weights for f in features.values() if f.weights]
    mistakes += [f"features: '{w}' is the weights of two features" for w in set(weighted) if weighted.count(w) > 1]
    return features


def _names(value: Any, where: str, mistakes: list[str]) -> tuple[str, ...]:
    """Column names from a name, a list of names or nothing."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    mistakes.append(f"{where} must be a list of column names, found {value!r}")
    return ()
