"""``recd runs``: runs side by side, by the options in which they differ and what they came to."""

import argparse
import math
import operator
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recd_dist.commands.board import RUNS
from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.run_records import RunRecord, differing_options, find_runs, is_run, read_run, short_labels
from recd_dist.screen.console import console
from recd_dist.screen.numbers import count, figure
from recd_dist.screen.plain_table import PlainTable

NUMBERS = ("steps", "samples_per_s", "loss", "ne", "auc")
_KNOWN = ("run", "state", "age", *NUMBERS)
_EQUAL = ("=", "!=")
_MOST_OPTIONS = 6
_FILTER = re.compile(r"([\w.@]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def run(options: argparse.Namespace) -> int:
    """Prints the table, or how two runs differ."""
    if options.diff:
        first, second = (read_run(_run_at(text)) for text in options.diff)
        console(sys.stdout).print(_differences(first, second))
        write_json(options.json, [_to_json(first), _to_json(second)])
        return 0
    roots = [Path(text).expanduser() for text in options.directories] or [Path(RUNS)]
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"{root}: no such directory; name one with runs, as in `recd runs sweeps`")
    paths = list(dict.fromkeys(path for root in roots for path in find_runs(root)))
    records = [read_run(path) for path in paths]
    kept = [record for record in records if all(_fits(record, text) for text in options.filter)]
    for text in options.filter:
        _require_name("--filter", _condition(text)[0], records)
    if not kept:
        shown = (
            f"{len(records)} run{'s'[: len(records) != 1]}, none of which fits {' '.join(options.filter)}"
            if records
            else "no runs there"
        )
        raise ConfigError(f"{' '.join(map(str, roots))}: {shown}")
    kept = _sort(kept, options.sort, options.reverse)
    console(sys.stdout).print(_table(kept, roots, options.options))
    write_json(options.json, [_to_json(record) for record in kept])
    return 0


def _run_at(text: str) -> Path:
    path = Path(text).expanduser()
    if not is_run(path):
        raise ConfigError(f"{path}: not there, or no run's directory")
    return path


def _value(record: RunRecord, name: str) -> Any:
    """What a run has under a name: a number, a state, an option by its name or the end of its name."""
    if name == "run":
        return str(record.path)
    if name == "state":
        return str(record.state)
    if name == "age":
        return record.age_s
    if name in (*NUMBERS, *record.numbers, *record.task_numbers):
        return record.number(name)
    ends = [full for full in record.config if full == name or full.endswith(f".{name}")]
    return record.config[min(ends, key=len)] if ends else None


def _fits(record: RunRecord, text: str) -> bool:
    """Whether a run fits ``name=value``, ``ne<0.8`` and the like.

    Raises:
        ConfigError: that is no condition.
    """
    name, sign, wanted = _condition(text)
    has, compare = _value(record, name), _COMPARE[sign]
    try:
        return has is not None and compare(float(has), float(wanted))
    except (TypeError, ValueError):
        return sign in _EQUAL and compare(str(has).lower(), wanted.lower())


def _condition(text: str) -> tuple[str, str, str]:
    """Name, sign and value of a condition.

    Raises:
        ConfigError: that is no condition.
    """
    found = _FILTER.fullmatch(text)
    if found is None or (found[2] not in _EQUAL and not _is_number(found[3])):
        raise ConfigError(f"--filter {text}: write name=value, name!=value, ne<0.8, steps>=100")
    return found[1], found[2], found[3]


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _require_name(flag: str, name: str, records: Sequence[RunRecord]) -> None:
    """Refuses the name of a number or an option that no run has; a number may be missing in all of them.

    Raises:
        ConfigError: no run has anything of that name; the message has the nearest one.
    """
    if records and name not in _KNOWN and all(_value(record, name) is None for record in records):
        known = {*_KNOWN, *(option for record in records for option in (*record.config, *record.task_numbers))}
        if not any(option == name or option.endswith(f".{name}") for option in known):
            raise ConfigError(f"{flag} {name}: no run has it{nearest(name, known)}")


def _sort(records: list[RunRecord], name: str, reverse: bool) -> list[RunRecord]:
    """The runs in the order of a number, an option or their names; those without a value last.

    Raises:
        ConfigError: no run has anything of that name.
    """
    if name == "run":
        return sorted(records, key=lambda record: str(record.path), reverse=reverse)
    values = {record.path: _value(record, name) for record in records}
    _require_name("--sort", name, records)
    have = [record for record in records if values[record.path] is not None]
    numeric = all(isinstance(values[record.path], int | float) for record in have)
    have.sort(key=lambda r: values[r.path] if numeric else str(values[r.path]), reverse=reverse)
    return [*have, *(record for record in records if values[record.path] is None)]


def _table(records: Sequence[RunRecord], roots: Sequence[Path], all_options: bool) -> PlainTable:
    differing = differing_options(records)
    names = differing if all_options else differing[:_MOST_OPTIONS]
    labels = short_labels(names)
    found = _recall_names(records)[:1]
    of_days = ["days", "NE before"] if any(_num_days(record) for record in records) else []
    heads = ["run", *labels.values(), "state", "age", "steps", "samples/s", "loss", "NE", "AUC", *found]
    heads += [*of_days, "dedup", "note"]
    notes = any(record.message for record in records)
    table = PlainTable(
        f"{len(records)} run{'s'[: len(records) != 1]}",
        heads if notes else heads[:-1],
        [*labels.values(), "state", "note"],
    )
    if left := len(differing) - len(names):
        table.caption = f"{left} more options differ: --options shows all of them, --diff A B those of two runs"
    for record in records:
        table.add_row(
            _shown_path(record.path, roots),
            *(_shown(record.config.get(name)) for name in names),
            str(record.state),
            _age(record.age_s),
            *(_number(record, name) for name in (*NUMBERS, *found)),
            *([str(_num_days(record)), _number(record, "progressive_ne")] if of_days else []),
            _dedup(record),
            *([record.message] if notes else []),
        )
    return table


def _num_days(record: RunRecord) -> int:
    """The days that a run, and the runs before it, have trained one after the other."""
    days = record.numbers.get("days")
    return len(days) if isinstance(days, list) else 0


def _recall_names(records: Sequence[RunRecord]) -> list[str]:
    """The names recall@K of what some runs have measured, the shortest list first."""
    names = {name for record in records for name in record.numbers if name.startswith("recall@")}
    return sorted(names, key=lambda name: (len(name), name))


def _shown_path(path: Path, roots: Sequence[Path]) -> str:
    """The path of a run, from the directory that was named where there is one."""
    if len(roots) == 1 and path != roots[0] and path.is_relative_to(roots[0]):
        return str(path.relative_to(roots[0]))
    return str(path)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def _number(record: RunRecord, name: str) -> str:
    value = record.number(name)
    if value is None or math.isnan(value):
        return "-"
    if name == "steps" or name.rpartition(".")[2].startswith("num_"):
        return f"{value:,.0f}"
    return count(value) if name == "samples_per_s" else figure(value)


def _dedup(record: RunRecord) -> str:
    """Samples per unique row of each group."""
    factors = record.numbers.get("dedup_factor")
    values = factors.values() if isinstance(factors, dict) else ()
    return " ".join(f"{value:.1f}" for value in values if isinstance(value, int | float)) or "-"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _differences(first: RunRecord, second: RunRecord) -> PlainTable:
    """The options and numbers in which two runs differ, side by side."""
    heads = ["option", str(first.path), str(second.path)]
    table = PlainTable("", heads, heads[1:])
    names = list(dict.fromkeys([*first.config, *second.config]))
    differing = [name for name in names if first.config.get(name) != second.config.get(name) and name != "run_dir"]
    for name in differing:
        table.add_row(name, _shown(first.config.get(name)), _shown(second.config.get(name)))
    if differing:
        table.add_section()
    of_tasks = dict.fromkeys([*first.task_numbers, *second.task_numbers])
    for name in (*NUMBERS, *_recall_names([first, second]), *of_tasks):
        table.add_row(name, _number(first, name), _number(second, name))
    table.add_row("dedup", _dedup(first), _dedup(second))
    table.add_row("state", str(first.state), str(second.state))
    table.title = f"{len(differing)} options differ" if differing else "all options are the same"
    return table


def _to_json(record: RunRecord) -> dict[str, Any]:
    return {
        "run_dir": str(record.path),
        **{"state": str(record.state), "message": record.message, "age_s": round(record.age_s, 1)},
        "numbers": dict(record.numbers),
        "config": dict(record.config),
    }


COMMAND = Command(
    name="runs",
    summary="runs side by side: where they differ and what they came to",
    details=f"Without a directory those below {RUNS}. A run is running, ended, stopped, failed or killed; one that is\n"
    "damaged stands there with what is wrong. Samples per unique row are shown by group. Loss, NE and AUC are those\n"
    "of the first task; those of others are sorted and filtered by as TASK.auc, and shown by --diff.\n"
    "Of runs that go day by day: their days, and the mean NE of days before they were trained (progressive_ne).",
    examples=(
        "recd runs",
        "recd runs sweeps/tiny-dlrm-lr-seed --sort ne",
        "recd runs runs sweeps --filter state=ended --filter 'ne<0.9' --json runs.json",
        "recd runs --sort liked.auc",
        "recd runs --diff runs/a runs/b",
    ),
    run=run,
    arguments=(
        Argument("directories", "directories of runs, at any depth", {"nargs": "*", "metavar": "DIR"}),
        Argument("--sort", f"run, state, age, {', '.join(NUMBERS)}, or an option (default run)", {"default": "run"}),
        Argument("--reverse", "largest first", {"action": "store_true"}),
        Argument("--filter", "runs with name=value, ne<0.8, ...; may be repeated", {"action": "append", "default": []}),
        Argument("--options", "every option that differs", {"action": "store_true"}),
        Argument("--diff", "how two runs differ", {"nargs": 2, "metavar": ("A", "B")}),
        JSON,
    ),
)
