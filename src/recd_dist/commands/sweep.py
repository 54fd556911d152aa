"""``recd sweep``: a run for each combination of values, and a table of what they came to."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.commands.sweep_jobs import OUTPUT, LocalJobs, last_line
from recd_dist.commands.sweep_scheduler import Job, Scheduler, ask_jobs, cancel_jobs
from recd_dist.commands.sweep_table import METRICS, sweep_json, sweep_table
from recd_dist.errors import ConfigError, nearest
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.combinations import Combination, Sweep, plan_sweep
from recd_dist.job.config import load
from recd_dist.job.overrides import parse_override
from recd_dist.job.run_places import run_directory
from recd_dist.job.run_records import RunRecord, read_run
from recd_dist.job.run_state import State, note_failure
from recd_dist.metrics.sweep_columns import write_columns
from recd_dist.screen.command_line import command_line, read_text
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure

DESCRIPTION = "sweep.json"
_POLL_S = 5.0
"""Seconds between two looks at a few jobs; many jobs are looked at less often, for the scheduler's sake."""

_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a run that goes on with the next sweep."""

_BAD = (State.FAILED, State.KILLED, State.DAMAGED)


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
    if options.cancel:
        return _cancel(root, sweep)
    _describe(root, sweep)
    write_columns(root, {axis.name: axis.values for axis in sweep.axes})
    try:
        with _stopping():
            seen = _make_runs(root, sweep, jobs, scheduler)
            if scheduler and options.wait:
                seen = _wait_for(root, sweep, seen)
    except KeyboardInterrupt:
        if scheduler and not scheduler.is_local:
            _say("submitted jobs go on; the same command shows how far they are, with --cancel it ends them")
        else:
            _say("stopping: the runs write their checkpoints; the same command goes on")
        jobs.stop()
        return 128 + signal.SIGINT
    records = {combination: _record(root / combination.name, seen) for combination in sweep.combinations}
    console(sys.stdout).print(sweep_table(sweep, records, options.sort))
    _show_best(root, records, options.sort)
    write_json(options.json, sweep_json(records))
    return 1 if any(r.state in _BAD for r in records.values()) else 0


def _record(path: Path, seen: Mapping[Path, Job]) -> RunRecord:
    """A run as its directory tells it, and its scheduler where it has more to say."""
    record, job = read_run(path), seen.get(path)
    if job is None or record.is_done or record.state is State.RUNNING:
        return record
    if job.is_alive:
        return replace(record, state=State.WAITING if job.waits else State.RUNNING, message="")
    if job.has_ended and record.state is State.NEW:
        why = f"its job has ended ({job.state.lower()}) before the run began: torchx log {job.handle}/train"
        return replace(record, state=State.FAILED, message=why)
    return record


def _cancel(root: Path, sweep: Sweep) -> int:
    """Has the scheduler end the jobs of a sweep that it still has."""
    alive = {path: job for path, job in ask_jobs(root / c.name for c in sweep.combinations).items() if job.is_alive}
    cancel_jobs(alive)
    for path, job in alive.items():
        _say(f"{path.name}: {job.handle} cancelled")
    _say(
        f"{len(alive)} jobs cancelled; the same command without --cancel goes on" if alive else "no job left to cancel"
    )
    return 0


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


def _make_runs(root: Path, sweep: Sweep, jobs: LocalJobs, scheduler: Scheduler | None) -> dict[Path, Job]:
    """Starts what is not done; a run that fails ends no other.

    Returns:
        The jobs that a scheduler has or had.
    """
    remote = scheduler if scheduler and not scheduler.is_local else None
    todo, num = [], len(sweep.combinations)
    before = {c: read_run(root / c.name) for c in sweep.combinations}
    seen = ask_jobs(r.path for r in before.values() if not r.is_done) if remote else {}
    for combination, record in before.items():
        job = seen.get(record.path)
        if job and job.is_alive:
            _say(f"{combination.shown}: {'waits' if job.waits else 'runs'} already, as {job.handle}")
        elif record.state is State.RUNNING:
            _say(f"{combination.shown}: runs already")
        elif not record.is_done:
            todo.append(combination)
    done = num - len(todo)
    _say(f"{num} runs in {root}" + (f", {done} of them done or running already" if done else ""))

    def make(combination: Combination) -> tuple[str, str, float]:
        path, overrides, began_s = root / combination.name, [*sweep.fixed, *combination.overrides], time.monotonic()
        if remote:
            handle, why = remote.submit(path, overrides)
            if why:
                note_failure(path, why)
            return handle, why, time.monotonic() - began_s
        code = jobs.run(path, (scheduler or jobs).line(path, overrides))
        why = last_line(path) if code else ""
        if code and code not in _STOPPED:
            note_failure(path, why)
        return "", why, time.monotonic() - began_s

    waiting: dict[Future[tuple[str, str, float]], Combination] = {jobs.pool.submit(make, c): c for c in todo}
    for number, future in enumerate(as_completed(waiting), done + 1):
        combination, (handle, why, took_s) = waiting[future], future.result()
        record = read_run(root / combination.name)
        if handle:
            seen[record.path] = Job(handle, "SUBMITTED")
        said = f"failed: {why}   ({record.path / OUTPUT})" if why else f"submitted as {handle}" if handle else ""
        _say(f"[{number}/{num}] {combination.shown}: {said or _result(record)}, {took_s:.0f} s")
    return seen


def _result(record: RunRecord) -> str:
    shown = [f"{name} {figure(value)}" for name in ("auc", "ne") if (value := record.number(name)) is not None]
    return ", ".join([str(record.state), *shown])


def _wait_for(root: Path, sweep: Sweep, seen: Mapping[Path, Job]) -> dict[Path, Job]:
    """Waits until a scheduler has no run of the sweep any more, and tells of each that has ended.

    Returns:
        What was told of the jobs at last.
    """
    last, num = dict(seen), len(sweep.combinations)
    waiting = {root / c.name: c for c in sweep.combinations if (root / c.name) in seen and seen[root / c.name].is_alive}
    while waiting:
        last |= (told := ask_jobs(waiting))
        for path in [path for path in waiting if not told[path].is_alive]:
            combination, record = waiting.pop(path), _record(path, last)
            why = f": {record.message}" if record.message else ""
            _say(f"[{num - len(waiting)}/{num}] {combination.shown}: {_result(record)}{why}")
        if waiting:
            time.sleep(_POLL_S * max(1.0, len(waiting) / 10))
    return last


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


def _show_best(root: Path, records: dict[Combination, RunRecord], sort: str) -> None:
    found = [(number, c) for c, r in records.items() if r.is_done and (number := r.number(sort)) is not None]
    if found:
        value, best = (max if METRICS[sort] else min)(found, key=lambda pair: pair[0])
        _say(f"best {sort} of one run: {figure(value)}, {best.shown}   ({root / best.name})")
    for combination, record in records.items():
        if record.state in _BAD:
            _say(f"{record.state}: {combination.shown}: {record.message or last_line(record.path)}")
    if all(record.state in (State.NEW, State.WAITING) for record in records.values()):
        _say("the same command shows how far they are; with --cancel it ends them")
        return
    _say(f"curves and hyper-parameters: {command_line('recd', 'board', str(root))}")


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
        Argument("--cancel", "end the jobs of this sweep that a scheduler still has", {"action": "store_true"}),
        JSON,
    ),
)
