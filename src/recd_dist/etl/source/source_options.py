"""The options of a data config that say what keys, sessions, times and splits are.

Every function here takes ``value``, an option as plain values, and ``mistakes``, a list of messages to which it adds;
where the option is wrong, a value that does no harm stands for it until the error is raised.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recd_dist.errors import nearest
from recd_dist.table.one_query import second_statement

KEY_NAMES = ("session", "request", "timestamp", "user", "sample", "order")
"""What a source may name as keys; docs/data.md says what each is for."""
SESSION_KEYS = {"column": ("session",), "gap": ("user", "timestamp"), "request": ("request",), "user": ("user",)}
"""The keys that each kind of session needs, in the order in which ``auto`` tries the kinds."""

NEWEST, ANY = "newest", "any"
"""Which releases of engines can read a table: ``readable_by``."""

_SESSIONS = ("auto", "column", "gap", "request", "user", "none")
_PARTITIONS = ("day", "hour")
_CHOICES = ("error", "keep", "drop")
_POLICIES = {"duplicates": _CHOICES, "late": _CHOICES, "time": _CHOICES, "unlabelled": _CHOICES}
_EARLIEST = "1990-01-01"
_GAP = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?\Z")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_FOREVER = 2**62


@dataclass(frozen=True)
class Policy:
    """What happens to samples that are not as they should be. The manifest counts all of them.

    Attributes:
        duplicates: ``drop`` leaves out all but the first of the samples with one sample key (or, without sample keys,
            of the samples that are equal in every value); ``keep`` keeps them; ``error`` ends the run.
        late: what happens to samples of a partition that the table has already: ``error``, ``keep`` or ``drop``.
        time: what happens to samples whose time is outside the bounds: ``error``, ``keep`` or ``drop``.
        unlabelled: what happens to samples of which a label is missing: ``error``, ``keep`` or ``drop``.
        earliest_us, latest_us: the bounds of a possible time, in microseconds since 1970.
    """

    duplicates: str = "keep"
    late: str = "error"
    time: str = "error"
    unlabelled: str = "error"
    earliest_us: int = -_FOREVER
    latest_us: int = _FOREVER


def read_names(value: Any, where: str, mistakes: list[str]) -> tuple[str, ...]:
    """Reads column names from a name, a list of names or nothing; ``where`` names the option in a message."""
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


def read_keys(value: Any, mistakes: list[str]) -> dict[str, str]:
    """Reads ``keys``: the column of each key that is named."""
    if not isinstance(value, Mapping):
        mistakes.append(f"keys must map {', '.join(KEY_NAMES)} to columns, found {value!r}")
        return {}
    for key, column in value.items():
        if key not in KEY_NAMES:
            mistakes.append(f"unknown keys.{key}{nearest(str(key), KEY_NAMES)}")
        elif column is not None and not isinstance(column, str):
            mistakes.append(f"keys.{key} must be one column name, found {column!r}")
    return {key: value[key] for key in KEY_NAMES if isinstance(value.get(key), str)}


def read_sessions(value: Any, keys: Mapping[str, str], mistakes: list[str]) -> tuple[str, float]:
    """Reads ``sessions``: what a session is, and the gap in seconds."""
    if not isinstance(value, Mapping):
        value = {"by": value}
    mistakes += [f"unknown sessions.{k}{nearest(str(k), ('by', 'gap'))}" for k in value if k not in ("by", "gap")]
    by, gap_s = str(value.get("by") or "auto"), _read_gap(value.get("gap"), mistakes)
    if by not in _SESSIONS:
        mistakes.append(f"sessions.by={by}: no such way{nearest(by, _SESSIONS)}")
        return "none", gap_s
    mistakes += [f"sessions.by={by} needs keys.{key}" for key in SESSION_KEYS.get(by, ()) if key not in keys]
    return by, gap_s


def _read_gap(value: Any, mistakes: list[str]) -> float:
    """Reads a time such as ``1800``, ``30m``, ``30min`` or ``0.5h`` as seconds; 30 minutes where it is absent."""
    match = _GAP.match(str(value if value is not None else "30m").strip())
    if not match or float(match[1]) <= 0:
        mistakes.append(f"sessions.gap={value}: write a time above 0 as 30m, 1800s or 0.5h")
        return 1800.0
    return float(match[1]) * _SECONDS[match[2] or "s"]


def read_policy(value: Any, keys: Mapping[str, str], mistakes: list[str]) -> Policy:
    """Reads ``policy``: duplicates are dropped where the source names a sample key, and kept otherwise."""
    if not isinstance(value, Mapping):
        mistakes.append(f"policy must map {', '.join(_POLICIES)} to what happens, found {value!r}")
        return Policy()
    known = (*_POLICIES, "earliest", "latest")
    mistakes += [f"unknown policy.{k}{nearest(str(k), known)}" for k in value if k not in known]
    chosen = {"duplicates": "drop" if "sample" in keys else "keep"}
    for name, choices in _POLICIES.items():
        if value.get(name) is None:
            chosen.setdefault(name, "error")
        else:
            chosen[name] = str(value[name])
            if chosen[name] not in choices:
                mistakes.append(f"policy.{name}={chosen[name]}: no such policy{nearest(chosen[name], choices)}")
    earliest_us = _read_time(value.get("earliest") or _EARLIEST, "policy.earliest", mistakes)
    latest = value.get("latest")
    latest_us = _read_time(latest, "policy.latest", mistakes) if latest else tomorrow_us()
    return Policy(**chosen, earliest_us=earliest_us, latest_us=latest_us)


def _read_time(value: Any, where: str, mistakes: list[str]) -> int:
    """Reads a date or time, in UTC where it names no zone, as microseconds since 1970."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        mistakes.append(f"{where}={value}: write a time as 2026-11-25 or 2026-11-25T07:00:00")
        return 0
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def tomorrow_us() -> int:
    """The end of tomorrow, in microseconds since 1970: no clock that is right is a day ahead."""
    return int(datetime.now(UTC).timestamp() // 86400 + 2) * 86_400_000_000


def read_share(value: Any, mistakes: list[str]) -> float:
    """Reads ``sample``: the share of the sessions that is taken, 1 where it is absent."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        mistakes.append(f"sample={value}: must be a share of the sessions, above 0 and at most 1")
        return 1.0
    return float(value)


def read_partition(value: Any, keys: Mapping[str, str], mistakes: list[str]) -> str:
    """Reads ``partition``: ``day``, ``hour`` or an empty string."""
    if value in (None, ""):
        return ""
    if value not in _PARTITIONS:
        mistakes.append(f"partition={value}: no such partition{nearest(str(value), _PARTITIONS)}")
        return ""
    if "timestamp" not in keys:
        mistakes.append(f"partition={value} needs keys.timestamp")
    return str(value)


def read_readable_by(value: Any, mistakes: list[str]) -> str:
    """Reads ``readable_by``: ``newest`` where it is absent, or ``any``."""
    if value is not None and value not in (NEWEST, ANY):
        mistakes.append(f"readable_by={value}: must be {NEWEST} or {ANY}{nearest(str(value), (NEWEST, ANY))}")
    return str(value or NEWEST)


def read_split(value: Any, mistakes: list[str]) -> str | float | None:
    """Reads ``split``: a predicate, a share between 0 and 1, or None."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            if mistake := second_statement(value):
                mistakes.append(f"split must be {mistake}")
            return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        mistakes.append(f"split must be an SQL predicate or a share between 0 and 1, found {value!r}")
        return None
    return float(value)
