"""The table of a sweep: what its runs came to, best first, and the same as JSON."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from recd_dist.job.combinations import SEED, Combination, Sweep
from recd_dist.job.days import MEAN
from recd_dist.job.run_records import RunRecord
from recd_dist.screen.plain_table import PlainTable

_OF_DAYS = {f"{MEAN}ne": False, f"{MEAN}loss": False, f"{MEAN}auc": True}
METRICS = {"ne": False, "loss": False, "auc": True, "auc_per_request": True, "samples_per_s": True, **_OF_DAYS}
"""Numbers by which results are sorted, and whether more is better."""


def _rows(
    sweep: Sweep, records: Mapping[Combination, RunRecord], sort: str
) -> list[tuple[tuple[str, ...], list[RunRecord]]]:
    """The runs by their values without the seed, best first; those without a result last."""
    rows: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    averaged = {axis.label for axis in sweep.axes if axis.name == SEED} if len(sweep.axes) > 1 else set()
    for combination, record in records.items():
        rows[tuple(v for label, v in combination.chosen.items() if label not in averaged)].append(record)
    sign = -1 if METRICS[sort] else 1
    return sorted(
        rows.items(), key=lambda row: sign * mean if (mean := _mean(row[1], sort)) is not None else float("inf")
    )


def _numbers(records: Sequence[RunRecord], name: str) -> list[float]:
    return [value for record in records if record.is_done and (value := record.number(name)) is not None]


def _mean(records: Sequence[RunRecord], name: str) -> float | None:
    return statistics.fmean(found) if (found := _numbers(records, name)) else None


def _spread(records: Sequence[RunRecord], name: str, num_decimals: int = 4) -> str:
    """The mean, with the standard deviation behind it where there are several runs."""
    found = _numbers(records, name)
    if not found:
        return "-"
    mean = f"{statistics.fmean(found):,.{num_decimals}f}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found):,.{num_decimals}f}"


def sweep_table(sweep: Sweep, records: Mapping[Combination, RunRecord], sort: str) -> PlainTable:
    """A row for each combination without its seed.

    Args:
        sweep: the runs that were asked for.
        records: what there is of each.
        sort: the number by which rows are in order, one of ``METRICS``.
    """
    names = [axis.label for axis in sweep.axes if axis.name != SEED or len(sweep.axes) == 1]
    shown = list(dict.fromkeys([sort, "ne", "auc", "loss", "samples_per_s"]))
    several = len(names) < len(sweep.axes)
    caption = "mean ± standard deviation over the seeds" if several else ""
    table = PlainTable(
        f"Sweep, best {sort} first", [*names, *(["runs"] if several else []), *shown, "state"], names[1:]
    )
    table.caption = caption
    for values, found in _rows(sweep, records, sort):
        states = sorted({str(record.state) for record in found if not record.is_done})
        num = [f"{len(_numbers(found, 'steps'))}/{len(found)}"] if several else []
        numbers = [_spread(found, name, 0 if name == "samples_per_s" else 4) for name in shown]
        table.add_row(*values, *num, *numbers, ", ".join(states) or "ended")
    return table


def sweep_json(records: Mapping[Combination, RunRecord]) -> list[dict[str, Any]]:
    """What the runs came to, for programs.

    Args:
        records: what there is of each.
    """
    return [
        {
            "run_dir": str(record.path),
            **{"values": combination.chosen, "state": str(record.state), "message": record.message},
            "numbers": {name: record.number(name) for name in (*METRICS, "steps")},
        }
        for combination, record in records.items()
    ]
