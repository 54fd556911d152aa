"""The groups and features of a data config: where their rows come from, as options say.

::

    groups:   {history: {sql: select user_id, ids as history ..., key: user_id}, request: [device, hour]}
    features: {item: {table: article, kind: ids}}

Every function here takes ``value``, an option as plain values, and ``mistakes``, a list of messages to which it adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd_dist.errors import nearest
from recd_dist.etl.source.source_options import read_names
from recd_dist.table.makers import maker_of
from recd_dist.table.schema import SAMPLE, Kind

_GROUP_OPTIONS = ("features", "sql", "key", "sql_spark")
_FEATURE_OPTIONS = ("table", "kind", "weights", "window", "transforms")


@dataclass(frozen=True)
class GroupSource:
    """Where the rows of one deduplicated group come from.

    Attributes:
        features: the group's columns among those of the samples; with ``sql``, among those of that query, where an
            empty tuple means all columns but the key.
        sql: the group's own query, which returns one row per key. None takes columns of the samples.
        key: the columns that link a sample to its row; they have the same names in both queries.
        sql_spark: the group's query in Spark SQL, for a query that cannot be translated. ``sql`` still gives the
            columns and their types.
    """

    features: tuple[str, ...] = ()
    sql: str | None = None
    key: tuple[str, ...] = ()
    sql_spark: str | None = None


@dataclass(frozen=True)
class FeatureSource:
    """What the type of a feature's column cannot tell.

    Attributes:
        table: the embedding table in which the feature is looked up. None names the table after the column.
        kind: the feature's kind, where it differs from what the column's type suggests.
        weights: the name of the column beside it that holds a number for each id.
        window: whether the feature is stored as windows over a stream of ids. None lets the ETL measure which of the
            two is smaller.
    """

    table: str | None = None
    kind: Kind | None = None
    weights: str | None = None
    window: bool | None = None


def read_groups(value: Any, mistakes: list[str]) -> dict[str, GroupSource] | None:
    """Reads ``groups``; None means that the groups are to be chosen by measuring."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        mistakes.append(f"groups must map names to {{features: [...]}} or {{sql: ..., key: ...}}, found {value!r}")
        return None
    groups, group_of = {}, dict[str, str]()
    for name, options in value.items():
        group = _read_group(str(name), options, mistakes)
        groups[str(name)] = group
        for column in group.features if group.sql is None else ():
            if column in group_of:
                mistakes.append(f"'{column}' is in groups '{group_of[column]}' and '{name}'; a feature has one group")
            group_of[column] = str(name)
    return groups


def _read_group(name: str, options: Any, mistakes: list[str]) -> GroupSource:
    where = f"groups.{name}"
    if not isinstance(options, Mapping):
        options = {"features": options}  # `request: [device, hour]` says all there is to say
    mistakes += [
        f"unknown {where}.{key}{nearest(str(key), _GROUP_OPTIONS)}" for key in options if key not in _GROUP_OPTIONS
    ]
    group = GroupSource(
        read_names(options.get("features"), f"{where}.features", mistakes),
        options.get("sql") or None,
        read_names(options.get("key"), f"{where}.key", mistakes),
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


def read_features(value: Any, mistakes: list[str]) -> dict[str, FeatureSource]:
    """Reads ``features``: the options of each feature, by column name; those that the reader makes are none of it."""
    if not isinstance(value, Mapping):
        mistakes.append(f"features must map column names to {{table: ..., kind: ...}}, found {value!r}")
        return {}
    features = {}
    for name, options in value.items():
        if maker_of(options):
            continue
        if isinstance(options or {}, Mapping):
            features[str(name)] = _read_feature(str(name), options or {}, mistakes)
        else:
            mistakes.append(f"features.{name} must be a map of {', '.join(_FEATURE_OPTIONS)}, found {options!r}")
    weights = [feature.weights for feature in features.values() if feature.weights]
    mistakes += [f"features: '{w}' is the weights of two features" for w in set(weights) if weights.count(w) > 1]
    return features


def misfit_of_window(name: str, kind: Kind, is_single: bool) -> list[str]:
    """What speaks against ``features.NAME.window: true``, in one message or none.

    Args:
        name: the feature.
        kind: its kind.
        is_single: whether it is in no group, though the source has groups.
    """
    if kind is not Kind.ids:
        return [f"features.{name}.window: only lists of ids have windows, '{name}' is {kind}; remove the option"]
    if is_single:
        return [
            f"features.{name}.window: '{name}' is in no group, and windows are stored per group; put it into one in "
            "data.groups, or remove the option"
        ]
    return []


def _read_feature(name: str, options: Mapping[str, Any], mistakes: list[str]) -> FeatureSource:
    where = f"features.{name}"
    mistakes += [
        f"unknown {where}.{key}{nearest(str(key), _FEATURE_OPTIONS)}" for key in options if key not in _FEATURE_OPTIONS
    ]
    kind, weights, window = options.get("kind"), options.get("weights"), options.get("window")
    if kind is not None and kind not in list(Kind):
        mistakes.append(f"{where}.kind: no kind '{kind}'{nearest(str(kind), list(Kind))}")
        kind = None
    if weights is not None and not isinstance(weights, str):
        mistakes.append(f"{where}.weights must be one column name, found {weights!r}")
        weights = None
    if window is not None and not isinstance(window, bool):
        mistakes.append(f"{where}.window must be true or false, found {window!r}")
        window = None
    return FeatureSource(options.get("table"), Kind(kind) if kind else None, weights, window)
