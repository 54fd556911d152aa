"""Keys and labels of a flat table, guessed from the names and data of its columns.

::

    visit     time                  user  history   item  clicked
    session   timestamp             -     feature   ...   label
    'visit'   a TIMESTAMP column    'user'                0 and 1, 9% are 1

A name proposes and the data confirms; each guess says why it was made, and how sure it is. Where no name helps, the
session is the column inside whose values most other columns stay the same. Only the first rows of the table are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.described_queries import describe_samples
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import KEY_NAMES
from recd_dist.table.flat import identifier

ROWS = 50_000
"""Number of rows, from the beginning of the table, from which keys and labels are guessed."""

_BYTES = 64 << 20

_NAMES = {
    "session": (r"session|visit(?!or)|sess|srch_?id|search_?id|basket|trip_?id|query_?id|qid",),
    "request": (r"request|impression|imp_?id|page_?view|srch_?id|search_?id|query_?id|qid|slate|auction",),
    "timestamp": (r"timestamp|date_?time|(^|_)(time|ts|date|when)($|_)|time$|_at$",),
    "user": (r"user|uid$|customer|member|visitor(_?id)?$|account|client_?id|device_?id|cookie|person",),
    "label": (
        r"^(label|target|y)$|label",
        r"click|convert|conversion|purchas|bought|booking|booked|like[ds]?$|response",
    ),
}
"""Role -> patterns of column names, the surest pattern first."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FEATURES = (*_NUMBERS, "UHUGEINT", "BOOLEAN", "VARCHAR", "UUID", "FLOAT", "DOUBLE", "DECIMAL", "ENUM")
_EPOCH = (300_000_000, 4_100_000_000)  # seconds: 1979 to 2099
_NO_KEY = "nothing repeats: no session, user or request was found; name one with data.keys.session=COLUMN"


@dataclass(frozen=True)
class Choice:
    """The column of one role, given or guessed.

    Attributes:
        role: ``session``, ``request``, ``timestamp``, ``user`` or ``label``.
        column: the column; None where nothing fits.
        sure: how sure the choice is: ``given``, ``sure``, ``likely``, ``guess`` or ``none``.
        why: the reason in a few words.
    """

    role: str
    column: str | None
    sure: str
    why: str


@dataclass(frozen=True)
class Guess:
    """A source whose keys and labels are filled in.

    Attributes:
        source: the source with keys and labels. Its labels are empty where no column fits.
        choices: the columns of keys and labels, given or guessed.
        left_out: column that cannot be a feature -> the reason. The source drops these columns.
    """

    source: Source
    choices: tuple[Choice, ...]
    left_out: Mapping[str, str]


def guess_keys(source: Source, connection: duckdb.DuckDBPyConnection) -> Guess:
    """Fills in what a source does not say: keys, labels, and the columns that cannot be features.

    Args:
        source: a source with or without keys and labels; what it says is kept.
        connection: an open DuckDB.

    Raises:
        DataError: a path or query does not fit.
    """
    raw = describe_samples(source, connection)
    sql, columns = raw.sql, dict(raw.types)
    choices = [Choice(role, column, "given", "the config says so") for role, column in source.keys.items()]
    choices += [Choice("label", column, "given", "the config says so") for column in source.labels]
    left_out = dict[str, str]()
    if source.samples is None:
        kept = {*source.keys.values(), *source.labels, *source.drop, *source.features}
        left_out = {c: t for c, t in columns.items() if c not in kept and not _can_be_feature(t)}
    asks_keys = not source.keys or (source.samples is None and len(source.keys) < len(KEY_NAMES))
    if asks_keys or not source.labels:
        head = _Head.read(connection, sql, columns)
        choices += _guess_key_columns(head, source) if asks_keys else []
        choices += [] if source.labels else _guess_labels(head, {c.column for c in choices if c.column})
    guessed = {c.role: c.column for c in choices if c.role in ("session", "request", "timestamp") and c.column}
    keys = guessed | source.keys
    labels = tuple(c.column for c in choices if c.role == "label" and c.column)
    drop = (*source.drop, *(c for c in left_out if c not in (*keys.values(), *labels)))
    left_out = {c: f"a {t[:40]} is no feature" for c, t in left_out.items() if c in drop}
    # A key that is guessed must not change what the named keys make a session of.
    sessions = source.session_by if _says_session(source) else source.sessions
    described = replace(source, keys=keys, labels=labels, drop=drop, sessions=sessions)
    return Guess(described, tuple(choices), left_out)


def _says_session(source: Source) -> bool:
    """Whether a source says what a session is, by ``sessions.by`` or by the keys that it names."""
    return source.sessions != "auto" or source.session_by != "none"


def _can_be_feature(type_name: str) -> bool:
    """Whether a column of a DuckDB type can be a feature: numbers, text, and lists of ids."""
    base = re.sub(r"\(.*?\)", "", type_name)
    element = re.sub(r"\[\d*\]$", "", base)
    if element != base:
        return element in (*_NUMBERS, "UHUGEINT", "BOOLEAN", "VARCHAR", "UUID", "ENUM")
    return base in _FEATURES


@dataclass(frozen=True)
class _Head:
    """The first rows of a table.

    Attributes:
        types: column -> its DuckDB type.
        codes: scalar column -> int64 [num_rows], a number from 0 for each distinct value.
        low_high: column of numbers -> its least and largest value.
        num_rows: number of rows that were read.
    """

    types: dict[str, str]
    codes: dict[str, np.ndarray]
    low_high: dict[str, tuple[float, float]]
    num_rows: int

    @staticmethod
    def read(connection: duckdb.DuckDBPyConnection, sql: str, types: dict[str, str]) -> "_Head":
        scalars = [name for name, t in types.items() if not t.endswith("]") and not t.startswith(("STRUCT", "MAP"))]
        named = ", ".join(identifier(name) for name in scalars) or "1 as nothing"
        with engine.report_query_errors("samples query"):
            table = connection.sql(f"select {named} from ({sql}\n) limit {ROWS}").to_arrow_table()
        table = table.slice(0, max(1000, int(table.num_rows * _BYTES / max(table.nbytes, _BYTES))))
        codes, low_high = {}, {}
        for name in scalars:
            column = table[name].combine_chunks()
            encoded = pc.dictionary_encode(column, null_encoding="encode")
            encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
            codes[name] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and len(column):
                extent = pc.min_max(column).as_py()
                if extent["min"] is not None:
                    low_high[name] = (float(extent["min"]), float(extent["max"]))
        return _Head(types, codes, low_high, table.num_rows)

    def num_distinct(self, name: str) -> int:
        """Number of distinct values of a column."""
        return int(self.codes[name].max(initial=-1)) + 1

    def rows_per_value(self, name: str) -> float:
        """Mean number of rows for each value of a column."""
        return self.num_rows / max(self.num_distinct(name), 1)

    def is_inside(self, inner: str, outer: str) -> bool:
        """Whether nearly every value of ``inner`` comes with a single value of ``outer``."""
        pairs = self.codes[inner] * (self.num_distinct(outer) + 1) + self.codes[outer]
        return len(np.unique(pairs)) <= 1.02 * self.num_distinct(inner)

    def stay_rate_inside(self, name: str) -> float:
        """How often other columns stay the same from row to row inside one value of a column, their mean."""
        order = np.argsort(self.codes[name], kind="stable")
        same = self.codes[name][order][1:] == self.codes[name][order][:-1]
        if not same.any():
            return 0.0
        stays = [
            float((codes[order][1:] == codes[order][:-1])[same].mean())
            for other, codes in self.codes.items()
            if other != name and self.num_distinct(other) > 1
        ]
        return float(np.mean(stays)) if stays else 0.0


def _guess_key_columns(head: _Head, source: Source) -> list[Choice]:
    """Guesses the keys that the source does not name."""
    free = [c for c in head.codes if c not in (*source.labels, *source.drop, *source.keys.values())]
    given = {role: Choice(role, column, "given", "") for role, column in source.keys.items() if column in head.codes}
    if len(given) < len(source.keys):
        return []  # a key column does not exist: the inspection of the source will say so
    time = given.get("timestamp") or _guess_timestamp(head, free)
    could_be_key = [
        c for c in free if c != time.column and head.types[c].split("(")[0] in (*_NUMBERS, "VARCHAR", "UUID")
    ]
    user = _match_name(head, could_be_key, "user", least=1.2)
    session = given.get("session") or _given_session(source) or _guess_session(head, could_be_key, user)
    request = given.get("request") or _guess_request(head, [c for c in could_be_key if c != session.column], session)
    guesses = [choice for choice in (session, request, time) if choice.role not in given and choice.sure != "given"]
    return guesses if {"user"} & {*given} or user.column in (session.column, None) else [*guesses, user]


def _given_session(source: Source) -> Choice | None:
    """What keeps the samples of a session together where the source says it; None where it does not."""
    return Choice("session", source.session_column, "given", source.session_words) if _says_session(source) else None


def _guess_session(head: _Head, free: list[str], user: Choice) -> Choice:
    named = _match_name(head, free, "session", least=1.0)
    if named.column is not None:
        if user.column and user.column != named.column and head.is_inside(named.column, user.column):
            return replace(named, sure="sure", why=f"{named.why}; each has one '{user.column}'")
        return named
    if user.column is not None:
        return Choice("session", user.column, "likely", f"no session by name; the user's samples ({user.why})")
    able = [c for c in free if head.rows_per_value(c) >= 1.5 and head.num_distinct(c) > max(20, head.num_rows / 2000)]
    scores = {c: head.stay_rate_inside(c) for c in able}
    best = max(scores, key=lambda c: scores[c], default=None)
    if best is None or scores[best] < 0.3:
        return Choice("session", None, "none", _NO_KEY)
    return Choice(
        "session", best, "guess", f"inside one value of it, other columns stay the same {scores[best]:.0%} of the time"
    )


def _guess_request(head: _Head, free: list[str], session: Choice) -> Choice:
    named = _match_name(head, free, "request", least=1.0)
    if named.column is None:
        return Choice("request", None, "none", "no such column; a session's samples count as one request")
    if session.column and not head.is_inside(named.column, session.column):
        return Choice("request", None, "none", f"'{named.column}' is in more than one session")
    return named


def _match_name(head: _Head, free: list[str], role: str, least: float) -> Choice:
    """The column whose name fits a role best and each of whose values comes ``least`` times or more, on average."""
    for pattern in _NAMES[role]:
        for column in sorted(
            (c for c in free if re.search(pattern, c, re.IGNORECASE)),
            key=lambda c: (not c.lower().endswith("id"), len(c)),
        ):
            distinct = head.num_distinct(column)
            if (
                head.rows_per_value(column) < least
                or distinct < min(2, head.num_rows)
                or (distinct < 20 < head.num_rows / 100)
            ):
                continue
            why = f"its name, and {head.rows_per_value(column):.1f} rows for each of its values"
            return Choice(role, column, "likely" if head.rows_per_value(column) > 1.05 else "guess", why)
    return Choice(role, None, "none", "no such column")


def _guess_timestamp(head: _Head, free: list[str]) -> Choice:
    typed = [c for c in free if head.types[c].startswith("TIMESTAMP") or head.types[c] == "DATE"]
    named = [c for c in free if re.search(_NAMES["timestamp"][0], c, re.IGNORECASE)]
    for column in sorted(typed, key=lambda c: (c not in named, -head.num_distinct(c))):
        sure = "sure" if column in named or len(typed) == 1 else "likely"
        return Choice("timestamp", column, sure, f"a {head.types[column]} column")
    for column in (c for c in named if head.types[c] in _NUMBERS and c in head.low_high):
        low, high = head.low_high[column]
        for unit, scale in (("seconds", 1), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)):
            if _EPOCH[0] * scale <= low and high <= _EPOCH[1] * scale:
                return Choice("timestamp", column, "sure", f"its name, and numbers that are {unit} since 1970")
        if head.num_distinct(column) > 0.1 * head.num_rows:
            return Choice("timestamp", column, "guess", "its name, and numbers that seldom repeat")
    return Choice("timestamp", None, "none", "no such column; the order of the files stands for time")


def _guess_labels(head: _Head, taken: set[str | None]) -> list[Choice]:
    """Guesses labels: columns of 0 and 1 with the name of a label, else the only column of 0 and 1."""
    binary = [c for c in head.codes if c not in taken and _is_binary(head, c)]
    named = [
        Choice("label", c, "sure" if number == 0 else "likely", "its name, and only 0 and 1 as values")
        for number, pattern in enumerate(_NAMES["label"])
        for c in binary
        if re.search(pattern, c, re.IGNORECASE)
    ]
    if named:
        return list({c.column: c for c in reversed(named)}.values())[::-1]
    if len(binary) == 1:
        return [Choice("label", binary[0], "guess", "the only column of 0 and 1")]
    return [Choice("label", None, "none", "no column of 0 and 1 with such a name; data.labels=[COLUMN] names it")]


def _is_binary(head: _Head, name: str) -> bool:
    if head.types[name] == "BOOLEAN":
        return True
    return head.low_high.get(name) == (0.0, 1.0) and head.num_distinct(name) == 2
