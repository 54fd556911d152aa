"""The unit of integer timestamps, by their size: a log must not mix seconds and milliseconds."""

from recd_dist.errors import DataError
from recd_dist.table.announcement import Announcement

_EARLIEST_S, _LATEST_S = 631_152_000, 4_102_444_800  # 1990 and 2100: the ranges of the four units do not overlap
_UNITS = {
    "seconds": (1, "to_timestamp"),
    "milliseconds": (10**3, "make_timestamp_ms"),
    "microseconds": (10**6, "make_timestamp"),
    "nanoseconds": (10**9, "make_timestamp_ns"),
}


def unit_of(time: int) -> str | None:
    """The unit in which a number is a time between 1990 and 2100; None where it is no such time in any unit."""
    return next((u for u, (scale, _) in _UNITS.items() if _EARLIEST_S * scale <= time < _LATEST_S * scale), None)


def ticks_of(time: int) -> int | None:
    """The number of units in a second, by the unit in which a number seems to be a time; None where it is no time."""
    unit = unit_of(time)
    return None if unit is None else _UNITS[unit][0]


def check_unit(column: str, earliest: int, latest: int) -> list[Announcement]:
    """Refuses integer timestamps in several units, and announces what unit they seem to have.

    Args:
        column: the column that ``keys.timestamp`` names.
        earliest: the smallest of its integers.
        latest: the largest of them.

    Raises:
        DataError: the smallest and the largest are times in different units.
    """
    low, high = unit_of(earliest), unit_of(latest)
    if low and high and low != high:
        raise DataError(
            f"keys.timestamp: column '{column}' has times in {low} ({earliest}) and in {high} ({latest}); "
            f"bring them to one unit in data.samples, such as case when {column} < {latest // 100} then "
            f"{column} * {_UNITS[high][0] // _UNITS[low][0]} else {column} end as {column}"
        )
    unit = high or low
    if unit is None:
        return []
    cure = f"{_UNITS[unit][1]}({column}) as {column} in data.samples makes times of them"
    if low is None or high is None:
        found = (
            f"keys.timestamp: column '{column}' holds {unit} since 1970 as integers, but goes from {earliest} to "
            f"{latest}, and not all of that can be {unit}"
        )
        return [Announcement(found, 1, cure)]
    found = (
        f"keys.timestamp: column '{column}' holds {unit} since 1970 as integers; they order the samples, but "
        "data.policy.time, partitions and sessions by gap need times"
    )
    return [Announcement(found, 1, cure, suspicious=False)]
