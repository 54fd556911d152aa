"""The days of a run as a table for people: on the screen, and in Markdown for the dashboard."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.job.days import Day
from recd_dist.screen.numbers import count, figure, rate
from recd_dist.screen.plain_table import PlainTable

DayNumbers = dict[tuple[str, str | None], float]
"""The numbers of a day by the name of their curve and its line."""

_HEADS = {"auc": "AUC\nbefore", "ne": "NE\nbefore", "rmse": "RMSE\nbefore"}


def numbers_of(day: Day, is_first: bool) -> DayNumbers:
    """What the dashboard shows of a day; what it came to while it was trained only once it is trained to its end.

    Args:
        day: one that was evaluated.
        is_first: whether it is the first of a chain. To a model that has learnt nothing all is new; these numbers would
            set the scale of all curves.
    """
    numbers: DayNumbers = {}
    if not is_first:
        numbers = {(name, "before" if name == "loss" else None): value for name, value in day.number_of.items()}
        numbers |= {("unknown", table): share for table, share in day.unknown.items()}
    if day.last_step is not None:
        numbers |= {("loss", "trained"): day.loss, ("samples_per_s", None): day.samples_per_s}
        new_rows = {} if is_first else day.new_rows
        numbers |= {("new_rows", table): float(number) for table, number in new_rows.items()}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _cells(days: Sequence[Day]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table."""
    known = list(dict.fromkeys(name for day in days for name in day.number_of))
    before = [_HEADS.get(name, f"{name}\nbefore") for name in known]
    heads = ["day", "samples", *before, "loss in\ntraining", "new\nrows", "unknown\nshare", "samples/s"]
    has_runs = len({day.run for day in days}) > 1
    rows = []
    for day in days:
        state = "" if day.last_step is not None or day.first_step is None else " (begun)"
        numbers = [figure(day.number_of.get(name, math.nan)) for name in known]
        new = f"{sum(day.new_rows.values()):,}" if day.new_rows else "-"
        unknown = rate(max(day.unknown.values(), default=math.nan))
        speed = count(day.samples_per_s) if math.isfinite(day.samples_per_s) else "-"
        samples = f"{day.samples:,}" if day.samples else "-"
        rows.append([f"{day.name}{state}", samples, *numbers, figure(day.loss), new, unknown, speed])
        rows[-1] += [day.run] if has_runs else []
    return [*heads, "run"] if has_runs else heads, rows


def render_days(days: Sequence[Mapping[str, Any]]) -> PlainTable:
    """Formats the days of a run as a table.

    Args:
        days: as summary.json and days.json have them, of the runs before and of the run itself.
    """
    heads, rows = _cells([Day.from_json(day) for day in days])
    table = PlainTable("Day by day", heads, ["run"])
    table.caption = "unknown share: of the lookups of the table that has most of rows that nobody has trained"
    for row in rows:
        table.add_row(*row)
    return table


def markdown(days: Sequence[Day]) -> str:
    """The same table in Markdown.

    Args:
        days: of the runs before and of the run itself.
    """
    heads, rows = _cells(days)
    lines = [[head.replace("\n", " ") for head in heads], ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
