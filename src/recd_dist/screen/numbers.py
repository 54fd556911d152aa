"""Numbers as short text: counts, sizes, rates, ratios and milliseconds.

::

    count         999    9,999    10.0k    5.0M    120G       without a unit
    size          512 B    57.1 KiB    1.5 MiB                the unit that fits
    rate          0.938    -                                  a share from 0 to 1
    ratio         4.90x    12.3x    -                         how many times smaller
    milliseconds  0    0.012    3.40    1,234.5               the smaller, the more decimals
    shorten       a_very_long_f~in_the_middle                 a name that is too long

Every function is pure. A dash stands for a number that does not exist.
"""

import math

_BYTES_OF = {"kB": 1e3, "MB": 1e6, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def count(number: float) -> str:
    """A count with a letter for thousands, millions and billions: 9999 -> ``9,999``, 12345 -> ``12.3k``.

    Args:
        number: the count, at least 0. A mean is rounded.

    Returns:
        All digits below 10,000; from there one decimal below a hundred of the unit, else none.
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 10 * scale or (number >= scale and unit != "k"):
            return f"{number / scale:.1f}{unit}" if number < 100 * scale else f"{number / scale:.0f}{unit}"
    return f"{number:,.0f}"


def size(num_bytes: float, gap: str = " ", next_unit_from: float = 1023.5) -> str:
    """Bytes in the power of 1024 that fits: 512 -> ``512 B``, 58470 -> ``57.1 KiB``, 123456789 -> ``118 MiB``.

    Args:
        num_bytes: the size in bytes, at least 0.
        gap: the text between number and unit.
        next_unit_from: the number from which the next larger unit is taken. At 1023.5 no number is shown as 1024.

    Returns:
        The size with one decimal below a hundred of the unit, else with none. GiB is the largest unit.
    """
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < next_unit_from:
            return f"{num_bytes:.0f}{gap}{unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:.1f}{gap}{unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f}{gap}GiB"


def rate(value: float) -> str:
    """A share with three decimals: 0.9375 -> ``0.938``, nan -> ``-``.

    Args:
        value: the share, from 0 to 1, or nan where there is none.
    """
    return figure(value, 3)


def figure(value: float, num_decimals: int = 4) -> str:
    """A number that may be undefined: 0.82412 -> ``0.8241``, nan -> ``-``.

    Args:
        value: the number, or nan where there is none, such as the AUC of one class.
        num_decimals: the number of digits after the point.
    """
    return "-" if math.isnan(value) else f"{value:.{num_decimals}f}"


def ratio(before: float, after: float, num_decimals: int | None = None) -> str:
    """How often ``after`` goes into ``before``: (49, 10) -> ``4.90x``, (123, 10) -> ``12.3x``, (5, 0) -> ``-``.

    Args:
        before: the larger number, if something was saved.
        after: what is left of it.
        num_decimals: the number of digits after the point; None means two below 10 and one from there.

    Returns:
        The ratio and an ``x``, or a dash where one of the numbers is 0.
    """
    if not after or not before:
        return "-"
    times = before / after
    if num_decimals is None:
        num_decimals = 2 if times < 10 else 1
    return f"{times:.{num_decimals}f}x"


def milliseconds(value_ms: float) -> str:
    """Milliseconds; small numbers have more decimals: 1234.5 -> ``1,234.5``, 3.4 -> ``3.40``, 0.0123 -> ``0.012``.

    Args:
        value_ms: the time in milliseconds, at least 0.

    Returns:
        The number without a unit; ``0`` if there is nothing.
    """
    if value_ms == 0:
        return "0"
    return f"{value_ms:,.1f}" if value_ms >= 100 else f"{value_ms:.2f}" if value_ms >= 0.1 else f"{value_ms:.3f}"


def shorten(name: str, max_letters: int) -> str:
    """A name that fits, its middle replaced by ``~``: (``candidate_item``, 9) -> ``cand~item``.

    Args:
        name: the name.
        max_letters: the length that it may have, at least 2.
    """
    if len(name) <= max_letters:
        return name
    tail = max_letters // 2
    return f"{name[: max_letters - tail - 1]}~{name[-tail:]}"
