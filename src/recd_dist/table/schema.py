"""The schema of samples: features in groups, embedding tables, keys and labels.

::

    sample b:  label  | sample group: candidate=7, price=0.2 | history row 3 | profile row 1
                        never deduplicated                     group           group

A feature belongs to one group; the features of a group are deduplicated together and share one inverse. The group
``sample`` is never deduplicated. Several features may look up one table (history and candidate look up `item`).
This file imports nothing outside the standard library but errors, since every room imports it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from recd_dist.errors import ConfigError, nearest

SAMPLE = "sample"
"""The group that is never deduplicated: one row per sample."""

SAMPLE_ID, SESSION_ID, REQUEST_ID, TIMESTAMP = "sample_id", "session_id", "request_id", "timestamp"
KEYS = (SAMPLE_ID, SESSION_ID, REQUEST_ID, TIMESTAMP)
"""Key columns of ``samples/``, all int64: number in the table, session, request, and microseconds since 1970."""


class Kind(StrEnum):
    """What one row of a feature holds."""

    id = "id"  # one id
    ids = "ids"  # a list of ids, possibly empty
    dense = "dense"  # one float32


@dataclass(frozen=True)
class Feature:
    """One named input of a sample.

    Attributes:
        name: column name on disk and key in the IKJT.
        kind: what a row holds: one id, a list of ids, or one float32.
        group: the group that it is deduplicated with.
        table: the embedding table that its ids look up; None for dense features.
        expanded_from: the group that it had before ``Schema.expand`` moved it into ``sample``.
        weights: the column with a float32 for each id, in lists as long as those of the ids; None for unweighted ids.
        window: True where rows are stored as windows (start, length) over a stream of ids, for histories that shift.
        made_from: the features of the table that a transform makes it from; empty where it is stored itself.
    """

    name: str
    kind: Kind
    group: str = SAMPLE
    table: str | None = None
    expanded_from: str | None = None
    weights: str | None = None
    window: bool = False
    made_from: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The group with whose rows its values repeat, whether it is trained expanded or not; models go by it."""
        return self.expanded_from or self.group

    @property
    def is_sparse(self) -> bool:
        """True for ids, False for dense numbers."""
        return self.kind is not Kind.dense


EVICTIONS = ("lru", "age", "never")
"""When an id loses its row to another one: when none was not seen for longer, when it is too old, or never."""


@dataclass(frozen=True)
class IdRules:
    """How ids come to the rows of a mapped table and lose them (docs/ids.md).

    Attributes:
        admit_after: lookups after which an id gets a row.
        evict: one of ``EVICTIONS``.
        max_age: steps after which an id that is not seen is forgotten; None for never.
    """

    admit_after: int = 1
    evict: str = "lru"
    max_age: int | None = None


@dataclass(frozen=True)
class Table:
    """An embedding table as it is trained; its weight is float32 [num_embeddings, dim].

    Attributes:
        name: its name.
        num_embeddings: number of rows; every id is in [0, num_embeddings), unless the table is hashed or mapped.
        dim: width of a row.
        hashed: True where the reader hashes raw ids into [0, num_embeddings).
        mapped: how raw ids, which may be any int64, get rows while training goes on; None where raw ids are row numbers
            or hashed.
    """

    name: str
    num_embeddings: int
    dim: int
    hashed: bool = False
    mapped: IdRules | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Table.from_json`` is its inverse. Earlier releases read that of a table not mapped."""
        return {name: value for name, value in asdict(self).items() if name != "mapped" or value is not None}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Table":
        """The table that ``to_json`` wrote."""
        rules = value.get("mapped")
        return Table(**{**value, "mapped": None if rules is None else IdRules(**rules)})


@dataclass(frozen=True)
class Schema:
    """Features and labels, checked when they are put together.

    Attributes:
        features: the features in a fixed order, which is the order of columns and of dense inputs.
        labels: label columns of ``samples/``, float32; in a job those of its tasks come first.

    Raises:
        ConfigError: one message that lists every mistake.
    """

    features: tuple[Feature, ...]
    labels: tuple[str, ...] = ("label",)
    _by_name: dict[str, Feature] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if mistakes := list(_mistakes(self.features, self.labels)):
            raise ConfigError("schema: " + "\n  ".join(mistakes))
        object.__setattr__(self, "_by_name", {f.name: f for f in self.features})

    def __getitem__(self, name: str) -> Feature:
        if name not in self._by_name:
            raise ConfigError(f"schema: no feature '{name}'{nearest(name, self._by_name)}")
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def groups(self) -> tuple[str, ...]:
        """Deduplicated groups in order of first appearance, then ``sample`` (present even when it has no feature)."""
        return (*self.dedup_groups, SAMPLE)

    @property
    def dedup_groups(self) -> tuple[str, ...]:
        """The groups that have an inverse, in order of first appearance."""
        return tuple(dict.fromkeys(f.group for f in self.features if f.group != SAMPLE))

    def of_group(self, group: str) -> tuple[Feature, ...]:
        """The features of a group, in schema order."""
        return tuple(f for f in self.features if f.group == group)

    def sparse_of(self, group: str) -> tuple[str, ...]:
        """Names of a group's id features, in schema order: the keys of the group in an IKJT."""
        return tuple(f.name for f in self.of_group(group) if f.is_sparse)

    def dense_of(self, group: str) -> tuple[str, ...]:
        """Names of a group's dense features, in schema order: the columns of its dense matrix."""
        return tuple(f.name for f in self.of_group(group) if not f.is_sparse)

    @property
    def sparse(self) -> tuple[Feature, ...]:
        """All id features, in schema order."""
        return tuple(f for f in self.features if f.is_sparse)

    @property
    def dense(self) -> tuple[Feature, ...]:
        """All dense features, in schema order."""
        return tuple(f for f in self.features if not f.is_sparse)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the embedding tables, in order of first use."""
        return tuple(dict.fromkeys(f.table for f in self.sparse if f.table is not None))

    @property
    def weights(self) -> dict[str, str]:
        """For each id feature that has weights the name of their column, in schema order."""
        return {f.name: f.weights for f in self.sparse if f.weights is not None}

    def without(self, names: Iterable[str]) -> "Schema":
        """The schema less some features, or less the weights of some; each of their ids then counts once.

        Args:
            names: the names of features and of columns of weights.

        Raises:
            ConfigError: a name is neither.
        """
        columns = set(self.weights.values())
        dropped = {name if name in columns else self[name].name for name in names}
        kept = (f for f in self.features if f.name not in dropped)
        return Schema(tuple(replace(f, weights=None) if f.weights in dropped else f for f in kept), self.labels)

    def led_by(self, labels: Iterable[str]) -> "Schema":
        """The schema with some of its labels in front, in this order."""
        return replace(self, labels=tuple(dict.fromkeys((*labels, *self.labels))))

    def expand(self, groups: Collection[str]) -> "Schema":
        """Moves the features of some groups into ``sample``, before those that were there.

        Args:
            groups: deduplicated groups; when there is none, the schema is returned as it is.
        """
        kept = [f for f in self.features if f.group not in (SAMPLE, *groups)]
        moved = [
            replace(f, group=SAMPLE, expanded_from=g)
            for g in self.dedup_groups
            if g in groups
            for f in self.of_group(g)
        ]
        return Schema((*kept, *moved, *self.of_group(SAMPLE)), self.labels) if moved else self

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Schema.from_json`` is its inverse. Of stored features it says nothing of making."""
        features = [{k: v for k, v in asdict(f).items() if k != "made_from" or v} for f in self.features]
        return {"features": features, "labels": list(self.labels)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Schema":
        """The schema that ``to_json`` wrote."""
        features = tuple(
            Feature(
                f["name"],
                Kind(f["kind"]),
                f["group"],
                f["table"],
                f.get("expanded_from"),
                f.get("weights"),
                f.get("window", False),
                tuple(f.get("made_from", ())),
            )
            for f in value["features"]
        )
        return Schema(features, tuple(value["labels"]))


def _mistakes(features: Iterable[Feature], labels: tuple[str, ...]) -> Iterable[str]:
    """Every mistake in a schema, each as one line with its remedy."""
    features = tuple(features)
    if not features:
        yield "no features; name at least one"
    if not labels:
        yield "no label; name the label column"
    groups = {f.group for f in features}
    reserved = {*KEYS, *(f"{g}_row" for g in groups), "row"}
    weights = [f.weights for f in features if f.weights]
    counts = Counter([*(f.name for f in features), *weights, *labels])
    for name, count in counts.items():
        if count > 1:
            yield f"'{name}' is named {count} times; names of features, weights and labels must differ"
        if name in reserved:
            yield f"'{name}' is a reserved column name; name it in keys, drop it or rename it in the SQL"
    for name in dict.fromkeys([*counts, *groups, *(f.table for f in features if f.table)]):
        if not name.isidentifier():  # letters of any script
            yield f"'{name}' is no plain name; use letters, digits and _ (rename it in the SQL)"
    for f in features:
        if f.is_sparse and f.table is None:
            yield f"feature '{f.name}' holds ids but names no table; give it one (its own name will do)"
        if not f.is_sparse and f.table is not None:
            yield f"feature '{f.name}' is dense but names table '{f.table}'; drop the table or make it an id"
        if f.weights is not None and f.kind is not Kind.ids:
            yield f"feature '{f.name}' is {f.kind} but has weights '{f.weights}'; only lists of ids have weights"
