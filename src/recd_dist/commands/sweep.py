"""``recd sweep``: a run for each combination of values, and a table of what they came to."""

import argparse
import json
import shlex
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.commands.sweep_jobs import OUTPUT, LocalJobs, Scheduler, last_line, waiting_handle
from recd_dist.errors import ConfigError, nearest
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.combinations import SEED, Combination, Sweep, plan_sweep
from recd_dist.job.config import load
from recd_dist.job.overrides import parse_override
from recd_dist.job.run_places import run_directory
from recd_dist.job.run_records import RunRecord, read_run
from recd_dist.job.run_state import State, note_failure
from recd_dist.metrics.sweep_columns import write_columns
from recd_dist.screen.command_line import command_line, read_text
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure
from recd_dist.screen.plain_table import PlainTable

DESCRIPTION = "sweep.json"
METRICS = {"ne": False, "loss": False, "auc": True, "auc_per_request": True, "samples_per_s": True}
"""Numbers by which results are sorted, and whether more is better."""

_POLL_S = 5.0
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a run that goes on with the next sweep."""


def run(options: argparse.Namespace) -> int:
    """Makes the runs that are not done, then shows the table.

    Returns:
        Exit code: 1 when a run has failed, 130 when the sweep was stopped.
    """
    COMMAND.require_overrides(options)
    _check_flags(options)
    given = [parse_override(typed) for typed in COMMAND.rank_overrides(options)]
    places = [o for o in given if o.name == "run_dir"]
    sweep = plan_sweep([o.typed for o in given if o.name != "run_dir"], options.sample, options.sample_seed)
    config = _check_values(sweep)
    root = run_directory(str(read_text(places[-1].text)) if places else _default_directory(config, sweep))
    scheduler = _scheduler_of(options)
    jobs = LocalJobs(options.nproc, options.jobs)
    if options.dry_run:
        lines = scheduler or jobs
        for combination in sweep.combinations:
            words = lines.line(root / combination.name, [*sweep.fixed, *combination.overrides])
            sys.stdout.write(command_line(*words) + "\n")
        return 0
    _describe(root, sweep)
    write_columns(root, {axis.name: axis.values for axis in sweep.axes})
    try:
        with _stopping():
            _make_runs(root, sweep, jobs, scheduler)
            if scheduler and options.wait:
                _wait_for(root, sweep)
    except KeyboardInterrupt:
        _say("stopping: the runs write their checkpoints; the same command goes on")
        jobs.stop()
        return 128 + signal.SIGINT
    records = {combination: read_run(root / combination.name) for combination in sweep.combinations}
    console(sys.stdout).print(_table(sweep, records, options.sort))
    _show_best(root, records, options.sort)
    write_json(options.json, _to_json(records))
    return 1 if any(r.state in (State.FAILED, State.KILLED) for r in records.values()) else 0


def _check_flags(options: argparse.Namespace) -> None:
    for name in ("nproc", "jobs"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.sort not in METRICS:
        raise ConfigError(f"--sort {options.sort}: unknown{nearest(options.sort, METRICS)}")


def _check_values(sweep: Sweep) -> Any:
    """Composes the config with each value once, so that a mistake ends the sweep before it begins.

    Returns:
        The config of the first run.

    Raises:
        ConfigError: an option does not exist, or a value does not fit it.
    """
    first, seen = sweep.combinations[0], set[str]()
    config = load("train", [*sweep.fixed, *first.overrides])
    for combination in sweep.combinations[1:]:
        if not seen.issuperset(combination.overrides):
            load("train", [*sweep.fixed, *combination.overrides])
            seen.update(combination.overrides)
    return config


def _default_directory(config: Any, sweep: Sweep) -> str:
    """``sweeps/tiny-dlrm-lr-seed``: the same for the same command."""
    return f"sweeps/{'-'.join([Path(config.run_dir).name, *(axis.label for axis in sweep.axes)])}"


def _scheduler_of(options: argparse.Namespace) -> Scheduler | None:
    if options.scheduler is None:
        if options.component or options.scheduler_args:
            raise ConfigError("--component and --scheduler-args: are for --scheduler; name one, such as slurm")
        return None
    words = shlex.split(options.component)
    return Scheduler(
        options.scheduler, words if "-j" in words else ["-j", f"1x{options.nproc}", *words], options.scheduler_args
    )


def _describe(root: Path, sweep: Sweep) -> None:
    """Notes what all runs of a directory share, and refuses runs that would not be comparable.

    Raises:
        ConfigError: the directory holds a sweep with other overrides, or cannot be written.
    """
    path = root / DESCRIPTION
    now = {"fixed": sorted(sweep.fixed), "axes": {axis.name: list(axis.values) for axis in sweep.axes}}
    try:
        before = json.loads(path.read_text()) if path.is_file() else now
        was, wanted = set(before["fixed"]), set(now["fixed"])
        root.mkdir(parents=True, exist_ok=True)
        write_whole(path, json_text(now) + "\n") if was == wanted else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read or written ({error}); take another run_dir=...") from error
    if was != wanted:
        raise ConfigError(
            f"{root} holds a sweep with {' '.join(sorted(was - wanted)) or 'fewer options'}, now "
            f"{' '.join(sorted(wanted - was)) or 'without'}; take another run_dir=... for this one"
        )


def _make_runs(root: Path, sweep: Sweep, jobs: LocalJobs, scheduler: Scheduler | None) -> None:
    """Starts what is not done; a run that fails ends no other."""
    todo, num = [], len(sweep.combinations)
    for combination in sweep.combinations:
        record = read_run(root / combination.name)
        if record.state is State.RUNNING or (scheduler and waiting_handle(record.path)):
            _say(f"{combination.shown}: runs already")
        elif not record.is_done:
            todo.append(combination)
    done = num - len(todo)
    _say(f"{num} runs in {root}" + (f", {done} of them done or running already" if done else ""))

    def make(combination: Combination) -> tuple[str, float]:
        path, overrides, began_s = root / combination.name, [*sweep.fixed, *combination.overrides], time.monotonic()
        if scheduler:
            why = scheduler.submit(path, overrides)
            is_failed = bool(why)
        else:
            code = jobs.run(path, overrides)
            why = last_line(path) if code else ""
            is_failed = bool(code) and code not in _STOPPED
        if is_failed:
            note_failure(path, why)
        return why, time.monotonic() - began_s

    waiting: dict[Future[tuple[str, float]], Combination] = {jobs.pool.submit(make, c): c for c in todo}
    for number, future in enumerate(as_completed(waiting), done + 1):
        combination, (why, took_s) = waiting[future], future.result()
        record = read_run(root / combination.name)
        said = f"failed: {why}   ({record.path / OUTPUT})" if why else _result(record, scheduler)
        _say(f"[{number}/{num}] {combination.shown}: {said}, {took_s:.0f} s")


def _result(record: RunRecord, scheduler: Scheduler | None) -> str:
    if scheduler and not scheduler.is_local:
        return "submitted"
    shown = [f"{name} {figure(value)}" for name in ("auc", "ne") if (value := record.number(name)) is not None]
    return ", ".join([str(record.state), *shown])


def _wait_for(root: Path, sweep: Sweep) -> None:
    """Waits until a scheduler has no run of the sweep any more."""
    waiting = list(sweep.combinations)
    while waiting:
        waiting = [c for c in waiting if not read_run(root / c.name).is_done and waiting_handle(root / c.name)]
        if waiting:
            time.sleep(_POLL_S)


@contextmanager
def _stopping() -> Iterator[None]:
    """Takes SIGTERM as Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _rows(
    sweep: Sweep, records: dict[Combination, RunRecord], sort: str
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


def _table(sweep: Sweep, records: dict[Combination, RunRecord], sort: str) -> PlainTable:
    """A row for each combination without its seed."""
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


def _show_best(root: Path, records: dict[Combination, RunRecord], sort: str) -> None:
    found = [(number, c) for c, r in records.items() if r.is_done and (number := r.number(sort)) is not None]
    if found:
        value, best = (max if METRICS[sort] else min)(found, key=lambda pair: pair[0])
        _say(f"best {sort} of one run: {figure(value)}, {best.shown}   ({root / best.name})")
    for combination, record in records.items():
        if record.state in (State.FAILED, State.KILLED):
            _say(f"failed: {combination.shown}: {record.message or last_line(record.path)}")
    _say(f"curves and hyper-parameters: {command_line('recd', 'board', str(root))}")


def _to_json(records: dict[Combination, RunRecord]) -> list[dict[str, Any]]:
    return [
        {
            "run_dir": str(record.path),
            **{"values": combination.chosen, "state": str(record.state), "message": record.message},
            "numbers": {name: record.number(name) for name in (*METRICS, "steps")},
        }
        for combination, record in records.items()
    ]


def _say(line: str) -> None:
    console(sys.stderr).print(f"recd: {line}", highlight=False, soft_wrap=True, markup=False)


COMMAND = Command(
    name="sweep",
    summary="a run for each combination of values, and a table of what they came to",
    details="Values stand between commas, as range(1,4), or as choice(a,b); a comma in brackets or quotes is part\n"
    "of a value. Each run has a directory of its own in run_dir (by default sweeps/...). The same command again skips\n"
    "what is done and goes on with the rest; a run that fails ends no other. Results of several seeds are averaged.",
    examples=(
        "recd sweep data=tiny optim.dense.lr=0.01,0.02 seed=1,2",
        "recd sweep data=tiny 'model.over=[64,32],[128]' 'seed=range(1,4)' --nproc 2 --sort auc",
        "recd sweep data=tiny batch_size=256,512,1024 optim.dense.lr=0.01,0.02,0.05 --sample 4",
        "recd sweep data=tiny batch_size=256,512 run_dir=runs/sizes --scheduler slurm --component '-j 2x8 --gpu 8'",
    ),
    run=run,
    config="train",
    arguments=(
        Argument("--nproc", "ranks of each run (default 1)", {"type": int, "default": 1}),
        Argument("--jobs", "runs at a time (default 1)", {"type": int, "default": 1}),
        Argument("--sample", "so many of the combinations, drawn at random", {"type": int, "metavar": "N"}),
        Argument("--sample-seed", "seed of that draw (default 0)", {"type": int, "default": 0}),
        Argument("--sort", f"{', '.join(METRICS)} (default ne)", {"default": "ne", "metavar": "NUMBER"}),
        Argument("--dry-run", "only print the command of each run", {"action": "store_true"}),
        Argument("--scheduler", "submit each run through TorchX: slurm, kubernetes, local_cwd", {"metavar": "NAME"}),
        Argument("--component", "options of launch/train.py:train, as '-j 2x8'", {"default": "", "metavar": "ARGS"}),
        Argument(
            "--scheduler-args", "of the scheduler, as partition=gpu,time=2:00:00", {"default": "", "metavar": "ARGS"}
        ),
        Argument("--wait", "with a scheduler: wait until all runs have ended", {"action": "store_true"}),
        JSON,
    ),
)
