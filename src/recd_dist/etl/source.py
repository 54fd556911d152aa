"""A source: where raw logs lie and, in SQL, what a sample is.

::

    samples   one row per sample: keys, labels, features            select ... from read_parquet('{path}')
    groups    history: its own query, one row per key               select user_id, ids as history from ...
              request: columns of the samples                       [device, hour]
    split     a predicate that is true for test samples, or the share of sessions that are the last in time

Nothing is read here; ``recd_dist.etl.columns.inspect`` looks at the columns and ``recd_dist.etl.run.etl`` at the rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.schema import SAMPLE, Kind

KEY_NAMES = ("session", "request", "timestamp")
"""What a source may name as keys; a missing session makes every sample its own."""

_OPTIONS = ("name", "path", "samples", "samples_spark", "keys", "labels", "split", "groups", "features", "drop")
_ELSEWHERE = ("source", "table", "tables", "synthetic")  # of the data config, read by other rooms
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
    """What a column's type cannot tell: the embedding table it looks up and, where it is to differ, its kind."""

    table: str | None = None
    kind: Kind | None = None


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
    samples_spark: str | None = None

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
            samples_spark=value.get("samples_spark") or None,
        )
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
        known = ("table", "kind", "transforms")
        if not isinstance(options, Mapping):
            mistakes.append(f"features.{name} must be a map of {', '.join(known)}, found {options!r}")
            continue
        mistakes += [f"unknown features.{name}.{key}{nearest(str(key), known)}" for key in options if key not in known]
        kind = options.get("kind")
        if kind is not None and kind not in list(Kind):
            mistakes.append(f"features.{name}.kind: no kind '{kind}'{nearest(str(kind), list(Kind))}")
            kind = None
        features[str(name)] = FeatureSource(options.get("table"), Kind(kind) if kind else None)
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
