"""``recd bench``: how fast a table is read, and the benchmarks of this project."""

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.config import config_dir
from recd_dist.job.options import TrainConfig
from recd_dist.screen.console import console
from recd_dist.screen.plain_table import PlainTable

READER = "reader"
"""The one that measures the user's own table; the others are scripts of a checkout."""


def run(options: argparse.Namespace) -> int:
    """Measures the reader on a table, runs a script of ``benchmarks/``, or lists them.

    Raises:
        ConfigError: there is no such benchmark, or no checkout.
    """
    words = [word for word in options.overrides if "=" not in word]
    if not words:
        if options.overrides:
            raise ConfigError(f"recd bench: which one? `recd bench reader {' '.join(options.overrides)}`")
        _list_scripts()
        return 0
    if len(words) > 1:
        raise ConfigError(f"recd bench {' '.join(words)}: one at a time")
    if words[0] == READER:
        return _bench_reader(options)
    return _run_script(words[0], options)


def _bench_reader(options: argparse.Namespace) -> int:
    for name, value in (("seconds", options.seconds), ("step-ms", options.step_ms)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name} {value}: must be above 0")
    if options.overrides == [READER] and not (options.config_dir or options.options):
        raise ConfigError(f"recd bench reader: say which data, as in `{COMMAND.examples[0]}`")
    config: TrainConfig = COMMAND.load_config(options)
    if config.reader.num_workers:
        from recd_dist.reader.worker_process import fork_server

        fork_server()  # before this process has threads
    from recd_dist.job.job import resolve
    from recd_dist.ranks.quiet import quiet_libraries
    from recd_dist.train.reader_bench import measure_reader
    from recd_dist.train.reader_bench_text import codec_of, render

    quiet_libraries()
    job = resolve(config)
    with console(sys.stderr).status(f"reading {job.table.path} for {options.seconds:g} s"):
        speed = measure_reader(job, options.seconds, options.step_ms)
    shown = render(speed, str(job.table.path), config.reader.num_workers, codec_of(job), os.cpu_count() or 1)
    console(sys.stdout).print(shown, crop=False)
    write_json(options.json, speed.to_json())
    return 0


def _scripts() -> dict[str, Path]:
    """The scripts of the checkout that this program runs from, by name: those that print claims."""
    directory = config_dir().parent / "benchmarks"
    found = {path.stem: path for path in sorted(directory.glob("*.py"))}
    return {name: path for name, path in found.items() if "__main__" in path.read_text()}


def _list_scripts() -> None:
    table = PlainTable("benchmarks", ("recd bench", "what it measures"), left=("what it measures",))
    table.add_row(READER, "your own table, read as training would, by stage: `recd bench reader --help`")
    for name, path in _scripts().items():
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        table.add_row(name, first)
    table.caption = (
        "" if _scripts() else "The scripts come with a checkout of the project; this is an installed package."
    )
    console(sys.stdout).print(table)


def _run_script(name: str, options: argparse.Namespace) -> int:
    scripts = _scripts()
    if name not in scripts:
        none = "" if scripts else " (the scripts come with a checkout of the project)"
        raise ConfigError(f"recd bench {name}: there is none of this name{nearest(name, [READER, *scripts])}{none}")
    if given := [word for word in options.overrides if "=" in word]:
        raise ConfigError(f"recd bench {name}: takes no config, found {given[0]}; `recd bench reader` does")
    flags = [*(["--quick"] if options.quick else []), *(["--json", options.json] if options.json else [])]
    return subprocess.run([sys.executable, str(scripts[name]), *flags], check=False).returncode


COMMAND = Command(
    name="bench",
    summary="how fast your table is read, by stage; and this project's benchmarks",
    details="`recd bench reader` reads a table as one rank of `recd train` with the same options would, without\n"
    "training: samples/s, the time of each stage (io, decode, convert, transform, collate), the dedup factors\n"
    "that batches have, what share of training would wait at a given step time, and what to change.\n"
    "Run it on an idle machine: training takes cores too. Alone, `recd bench` lists the scripts of benchmarks/,\n"
    "which measure this project against what there is without it; `recd bench NAME` runs one.",
    examples=(
        "recd bench reader data=tiny",
        "recd bench reader data=tiny batch_size=4096 reader.num_workers=2 --seconds 30",
        "recd bench reader data=tiny --step-ms 25 --json reader.json",
        "recd bench",
        "recd bench step --quick",
    ),
    run=run,
    config="train",
    words=(READER,),
    arguments=(
        JSON,
        Argument("--seconds", "reader: how long to measure (default 20)", {"type": float, "default": 20.0}),
        Argument("--step-ms", "reader: the length of your step, to say what would wait", {"type": float}),
        Argument("--quick", "scripts: smaller data of the same shape", {"action": "store_true"}),
    ),
)
