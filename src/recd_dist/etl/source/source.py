"""A source: where raw logs lie and, in SQL, what a sample is.

::

    samples   one row per sample: keys, labels, features            select ... from read_parquet('{path}')
    groups    history: its own query, one row per key               select user_id, ids as history from ...
              request: columns of the samples                       [device, hour]
    sessions  a column, or a user's samples with gaps of at most 30 minutes, or the request
    split     a predicate that is true for test samples, or the share of sessions that are the last in time

Nothing is read here: ``etl/source/inspection.py`` looks at the columns and ``etl/flow.py`` reads the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.raw.read_options import ReadOptions, read_text_options
from recd_dist.etl.source.source_groups import FeatureSource, GroupSource, read_features, read_groups
from recd_dist.etl.source.source_options import (
    NEWEST,
    SESSION_KEYS,
    Policy,
    read_keys,
    read_names,
    read_partition,
    read_policy,
    read_readable_by,
    read_sessions,
    read_share,
    read_split,
)
from recd_dist.table.makers import made_names

_OPTIONS = (
    *("name", "path", "samples", "samples_spark", "keys", "labels", "weight", "split", "groups", "features", "drop"),
    *("sessions", "policy", "sample", "partition", "readable_by", "null_values", "csv"),
)
_ELSEWHERE = ("source", "reader", "snapshot", "table", "tables", "synthetic", "synthetic_events", "partitions", "label")
"""Options of the data config that other rooms read."""

_TRAIN, _TEST = "train", "test"


@dataclass(frozen=True)
class Source:
    """Raw logs described by SQL; ``Source.from_dict`` validates a data config.

    Attributes:
        name: the name of the source, which the manifest keeps.
        path: a file, directory or glob. It stands for ``{path}`` in every query.
        samples: the DuckDB query that returns one row per sample. None reads every column of ``path``.
        keys: the column of each key (session, request, timestamp, user, sample, order) that the source has.
        labels: the label columns, and the column of weights. The first one is trained on where nobody names another.
        split: a predicate that is true for test samples, or the share (0..1) of the sessions that are last in time and
            become the test split, or None for no test split.
        groups: the deduplicated groups. None lets the ETL choose them by measuring how often each feature repeats.
        features: what the column types cannot tell, by feature.
        drop: the columns to ignore.
        sessions: what a session is: ``column``, ``gap``, ``request``, ``user`` or ``none``. ``auto`` takes the first of
            these whose keys are named.
        gap_s: the most seconds between two samples of a session; a user's next sample after more than that begins
            another one. It matters where ``sessions`` is ``gap``.
        policy: what happens to duplicates, late samples and impossible times.
        sample: the share of the sessions that is taken, above 0 and at most 1.
        partition: ``day`` or ``hour`` to divide the table into partitions; empty for none.
        samples_spark: the samples query in Spark SQL, for a query that cannot be translated. ``samples`` still gives
            the columns and their types.
        users_apart: whether sessions with one number are two where the users that ``keys.user`` names are.
        reading: how text files are written, where their look does not tell it.
        readable_by: the engines that can read the table: ``newest``, or ``any`` for older ones too.
        weight: the one of ``labels`` that holds the weights of the samples; None where each counts once.
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
    reading: ReadOptions = field(default_factory=ReadOptions)
    users_apart: bool = True
    readable_by: str = NEWEST
    weight: str | None = None

    @property
    def session_by(self) -> str:
        """What a session is, where ``auto`` is replaced by what it stands for."""
        if self.sessions != "auto":
            return self.sessions
        return next((by for by, keys in SESSION_KEYS.items() if all(key in self.keys for key in keys)), "none")

    @property
    def session_key(self) -> str:
        """The name of the key that keeps the samples of a session together: ``session``, ``user``, ``request``."""
        return {"gap": "user", "column": "session"}.get(self.session_by, self.session_by)

    @property
    def session_column(self) -> str | None:
        """The column of that key: samples are dealt into shards by it. None where every sample is its own session."""
        return self.keys.get(self.session_key)

    @property
    def session_columns(self) -> tuple[str, ...]:
        """The columns that tell sessions apart: session numbers may begin anew for each user, where one is named."""
        column, user = self.session_column, self.keys.get("user")
        if self.session_by == "column" and self.users_apart and column and user and user != column:
            return (user, column)
        return (column,) if column else ()

    @property
    def gap_us(self) -> int | None:
        """The gap in microseconds; None where sessions are not told apart by gaps."""
        return round(self.gap_s * 1_000_000) if self.session_by == "gap" else None

    @property
    def session_words(self) -> str:
        """What a session is, in words for the manifest."""
        if self.session_by == "gap":
            return f"samples of one {self.keys['user']} with at most {self.gap_s:g} s between neighbours"
        if self.session_by == "none":
            return "every sample its own: the source names no session, user or request"
        plain = f"samples of one {self.session_column} (keys.{self.session_key})"
        if len(self.session_columns) == 2:
            return f"{plain} of one {self.session_columns[0]} (keys.user)"
        return plain

    def like_table(self, sessions: str, readable_by: str) -> "Source":
        """This source with two rules of a table that is there.

        Args:
            sessions: what a session is in the table, in the words of its manifest. Releases before ``users_apart`` told
                sessions apart by their numbers alone.
            readable_by: the engines that can read the table. Where old ones can, they can after the samples are added.
        """
        like = replace(self, readable_by=readable_by if self.readable_by == NEWEST else self.readable_by)
        plain = replace(like, users_apart=False)
        return plain if plain.session_words == sessions else like

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the tables that the source is written to."""
        return (_TRAIN,) if self.split is None else (_TRAIN, _TEST)

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "Source":
        """Reads a data config.

        Args:
            value: the options of ``configs/data`` as plain values. Options for other rooms (tables, transforms) are
                passed over.

        Returns:
            The source that the config describes.

        Raises:
            ConfigError: one error that lists every mistake in the config.
        """
        mistakes = [
            f"unknown option '{key}'{nearest(key, _OPTIONS)}"
            for key in value
            if key not in _OPTIONS and key not in _ELSEWHERE
        ]
        name = str(value.get("name") or "data")
        if not value.get("path"):
            mistakes.append("path is missing; give the raw file, directory or glob")
        keys = read_keys(value.get("keys") or {}, mistakes)
        labels = read_names(value.get("labels"), "labels", mistakes)
        split = read_split(value.get("split"), mistakes)
        groups = read_groups(value.get("groups"), mistakes)
        features = read_features(value.get("features") or {}, mistakes)
        made = made_names(value.get("features"))
        drop = tuple(name for name in read_names(value.get("drop"), "drop", mistakes) if name not in made)
        features = {n: replace(f, weights=None) if f.weights in drop else f for n, f in features.items()}
        sample = read_share(value.get("sample"), mistakes)
        partition = read_partition(value.get("partition"), keys, mistakes)
        sessions, gap_s = read_sessions(value.get("sessions") or {}, keys, mistakes)
        policy = read_policy(value.get("policy") or {}, keys, mistakes)
        readable_by = read_readable_by(value.get("readable_by"), mistakes)
        reading = read_text_options(value.get("null_values"), value.get("csv"), mistakes)
        weight = read_names(value.get("weight"), "weight", mistakes)
        if not labels or labels == weight:
            mistakes.append("labels is empty; name the label column, such as labels: [clicked]")
        if mistakes:
            raise ConfigError(f"data source '{name}': " + "\n  ".join(mistakes))
        return Source(
            name=name,
            path=str(value["path"]),
            samples=value.get("samples") or None,
            keys=keys,
            labels=tuple(dict.fromkeys((*labels, *weight))),
            split=split,
            groups=groups,
            features=features,
            drop=drop,
            sessions=sessions,
            gap_s=gap_s,
            policy=policy,
            sample=sample,
            partition=partition,
            samples_spark=value.get("samples_spark") or None,
            reading=reading,
            readable_by=readable_by,
            weight=weight[0] if weight else None,
        )
