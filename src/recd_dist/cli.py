"""``recd``: the commands. Arguments are Hydra overrides of configs/etl.yaml, train.yaml and evaluate.yaml."""

import argparse
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from recd_dist.errors import ConfigError, UserError, nearest
from recd_dist.job.config import load, to_yaml
from recd_dist.job.options import EtlConfig

_DESCRIPTION = """\
Train recommendation models on each distinct row once.

  raw logs --etl--> clustered table --train--> model --evaluate--> quality
                       |                 '--board--> curves
                       '--stats--> what deduplication gains    '--plan--> where tables go
"""

_FIRST_STEPS = """\
first steps:
  recd etl data=tiny
  recd train data=tiny --nproc 2
  recd evaluate run_dir=runs/tiny-dlrm

Arguments written name=value override the config (configs/, docs/configuration.md); a misspelt name is refused.
recd COMMAND --help shows examples, recd COMMAND --options the config that a command would run with.
"""

_MORE = {
    "etl": "The source is SQL, in configs/data/NAME.yaml. The table stands in data.table/train and data.table/test.",
    "stats": "Reads the table that `recd etl` made; with `raw --suggest` raw logs that are no table yet:\nwhich "
    "columns change together, and what deduplicating them would save (docs/suggest.md).",
    "plan": "The same table and options as for `recd train`; plan.world_size says for how many ranks (default 2), "
    "plan.topology on\nwhich machines (h100x8: hosts of 8 H100). docs/planning.md explains what is printed.",
    "train": "The same command again goes on from the newest checkpoint in run_dir. SIGTERM writes one, then stops.",
    "compact": "Samples and their order inside a session stay; readers see the old parts until the new ones stand.",
    "sql": "A plain join over the table's files. data.partitions=[2026-11-25] narrows it.",
    "evaluate": "Table sizes, transforms and features are those of the run; the numbers are exact, over every sample.",
    "summary": "Prints what `recd train` printed at its end, from summary.json.",
    "board": "Ctrl-C stops it.",
    "seen": "Exit code 0 when each sample of each epoch was trained exactly once.",
}

_COMMANDS: dict[str, tuple[str, str]] = {
    "etl": (
        "raw logs -> clustered table",
        "recd etl data=tiny\n"
        "recd etl data=ebnerd data.path=~/ebnerd/train\n"
        "recd etl data=parquet data.name=mine data.path=clicks.parquet data.keys.session=session_id "
        "data.keys.timestamp=time 'data.labels=[clicked]'\n"
        "recd etl data=tiny overwrite=true compression=lz4\n"
        "recd etl data=mine --dry-run\nrecd etl data=mine --verify\n"
        "recd etl data=mine data.path=logs/2026-11-25/*.parquet data.partition=day append=true",
    ),
    "stats": (
        "samples per session, dedup factors, cost expanded and unique",
        "recd stats data=ebnerd\nrecd stats data=ebnerd --json stats.json\nrecd stats data.table=tables/ebnerd\n"
        "recd stats raw --suggest data.path=clicks.parquet\n"
        "recd stats raw --suggest data=ebnerd data.path=~/ebnerd/train --html report.html",
    ),
    "compact": (
        "small parts of a table that was added to often -> few large ones",
        "recd compact data=mine\nrecd compact data.table=tables/mine row_group_samples=16384",
    ),
    "sql": (
        "the query that gives back flat samples, for DuckDB or Spark",
        "recd sql data=mine\nrecd sql data=mine --dialect spark --split test\n"
        'duckdb -c "create view flat as $(recd sql data=mine)"',
    ),
    "plan": (
        "tables x ranks x bytes x milliseconds, without starting a job",
        "recd plan data=ebnerd plan.world_size=2\nrecd plan data=rm1 plan=row_wise plan.world_size=8\n"
        "recd plan data=rm1 plan.world_size=1024 plan.topology=h100x8 --simulate\n"
        "recd plan data=tiny --probe\nrecd plan data=tiny --save plan.json; recd train data=tiny plan.file=plan.json "
        "--nproc 2",
    ),
    "train": (
        "train on this machine (many machines: torchx run launch/train.py:train)",
        "recd train data=tiny --nproc 2\n"
        "recd train data=mine --config-dir my_configs --nproc 2\n"
        "recd train data=ebnerd model=dlrm batch_size=2048 model.dim=32 optim.dense.lr=0.005 --nproc 2\n"
        "recd train data=tiny 'data.drop=[position]' plan=row_wise dedup=off run_dir=runs/expanded",
    ),
    "evaluate": (
        "quality of a trained run",
        "recd evaluate run_dir=runs/tiny-dlrm\nrecd evaluate run_dir=runs/tiny-dlrm split=train",
    ),
    "summary": ("what a finished run came to", "recd summary run_dir=runs/tiny-dlrm"),
    "board": ("TensorBoard over one or many runs", "recd board runs\nrecd board runs/tiny-dlrm --port 6007"),
    "seen": ("how often each sample was trained (needs record_samples=true)", "recd seen run_dir=runs/tiny-dlrm"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if wrong := re.match("argument COMMAND: invalid choice: '(.*?)'", message):
            raise ConfigError(f"unknown command '{wrong[1]}'{nearest(wrong[1], _COMMANDS)}")
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser("recd", description=_DESCRIPTION, epilog=_FIRST_STEPS, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (text, examples) in _COMMANDS.items():
        epilog = "examples:\n  " + examples.replace("\n", "\n  ")
        if name != "board":
            epilog += f"\n\nEvery option with its value: recd {name} --options (meanings: docs/configuration.md)"
        description = f"{text[0].upper()}{text[1:]}.\n{_MORE[name]}"
        command = commands.add_parser(name, help=text, description=description, epilog=epilog, formatter_class=plain)
        if name == "board":
            command.add_argument("run_dir", nargs="?", default="runs", help="a run, or a directory of runs")
            command.add_argument("--port", type=int, default=6006, help="default 6006")
            command.add_argument("--host", default="127.0.0.1", help="TensorBoard asks for no password: keep loopback")
            continue
        command.add_argument("overrides", nargs="*", metavar="name=value", help="overrides of the config")
        command.add_argument("--config-dir", metavar="DIR", help="configs of your own, such as DIR/data/mine.yaml")
        command.add_argument("--options", action="store_true", help="print the config, every option, and stop")
        if name == "sql":
            command.add_argument("--dialect", default="duckdb", help="duckdb (default) or spark")
            command.add_argument("--split", default="train", help="default train")
        if name == "etl":
            command.add_argument("--dry-run", action="store_true", help="show schema and sample rows, write nothing")
            command.add_argument("--verify", action="store_true", help="compare every column with the source")
        if name == "train":
            command.add_argument("--nproc", type=int, default=1, help="ranks on this machine (default 1)")
        if name in ("stats", "plan", "evaluate"):
            command.add_argument("--json", metavar="FILE", help="also write the result as JSON")
        if name == "stats":
            command.add_argument("--suggest", action="store_true", help="look at raw logs and propose groups")
            command.add_argument("--html", metavar="FILE", help="with --suggest: also write a report with plots")
            command.add_argument("--sample", type=int, metavar="N", help="with --suggest: samples to look at")
        if name == "plan":
            command.add_argument("--save", metavar="FILE", help="write the plan; plan.file=FILE trains by it")
            command.add_argument("--diff", metavar="FILE", help="show what differs from a saved plan")
            command.add_argument("--simulate", action="store_true", help="show how a step grows, from 1 to 1024 ranks")
            command.add_argument("--probe", action="store_true", help="measure this machine first, for plan.costs")
    return parser


def _etl(options: argparse.Namespace) -> int:
    config: EtlConfig = load("etl", options.overrides, options.config_dir)
    from recd_dist.commands.tables import run_etl

    return run_etl(config, _console(), dry_run=options.dry_run, verify=options.verify)


def _suggest(options: argparse.Namespace) -> int:
    from recd_dist.commands import suggest as suggest_command

    if not options.suggest:
        given = "raw" if "raw" in options.overrides else "--html" if options.html else "--sample"
        raise ConfigError(f"recd stats {given}: needs --suggest, as in `recd stats raw --suggest data.path=FILE`")
    config: EtlConfig = load("etl", suggest_command.overrides_of(options.overrides), options.config_dir)
    suggest_command.run(
        asdict(config.data),
        num_samples=options.sample,
        compression=config.compression,
        memory_limit=config.memory_limit,
        seed=config.seed,
        json_file=options.json,
        html_file=options.html,
        command=options.argv,
    )
    return 0


def _stats(options: argparse.Namespace) -> int:
    if options.suggest or options.html or options.sample is not None or "raw" in options.overrides:
        return _suggest(options)
    config: EtlConfig = load("etl", options.overrides, options.config_dir)
    from recd_dist.commands.tables import run_stats

    _write_json(options.json, run_stats(config, _console()))
    return 0


def _compact(options: argparse.Namespace) -> int:
    from recd_dist.commands.tables import run_compact

    return run_compact(load("etl", options.overrides, options.config_dir), _console())


def _sql(options: argparse.Namespace) -> int:
    from recd_dist.commands.tables import view

    sys.stdout.write(view(load("etl", options.overrides, options.config_dir), options.split, options.dialect) + "\n")
    return 0


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)


def _plan(options: argparse.Namespace) -> int:
    config = load("train", options.overrides, options.config_dir)
    from recd_dist.commands.plan import run
    from recd_dist.job.job import resolve

    console = Console(width=None if sys.stdout.isatty() else 120)
    result = run(
        resolve(config),
        console,
        probe=options.probe,
        save=options.save,
        diff=options.diff,
        simulated=options.simulate,
    )
    _write_json(options.json, result)
    return 0


def _train(options: argparse.Namespace) -> int:
    from recd_dist.ranks.launcher import main as launch

    if options.nproc < 1:
        raise ConfigError(f"--nproc {options.nproc}: must be at least 1")
    overrides = list(options.overrides)
    if options.config_dir:
        if not Path(options.config_dir).is_dir():
            raise ConfigError(f"--config-dir {options.config_dir}: no such directory")
        overrides.insert(0, f"hydra.searchpath=[file://{Path(options.config_dir).resolve()}]")
    return launch(["--nproc-per-node", str(options.nproc), "--", *overrides])


def _evaluate(options: argparse.Namespace) -> int:
    config = load("evaluate", options.overrides, options.config_dir)
    from recd_dist.ranks.process_group import process_group
    from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
    from recd_dist.train.evaluation import evaluate_run, report

    log_to_screen()
    quiet_libraries()
    with process_group(config.device) as ranks:
        result = evaluate_run(config, ranks)
    Console(width=None if sys.stdout.isatty() else 120).print(report(result))
    _write_json(options.json, result)
    return 0


def _summary(options: argparse.Namespace) -> int:
    config = load("evaluate", options.overrides, options.config_dir)
    path = Path(config.run_dir) / "summary.json"
    if not path.is_file():
        raise ConfigError(f"{path}: not there; the run has not ended, or this is no run's directory")
    try:
        summary = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}); `recd evaluate run_dir={config.run_dir}` still works") from error
    from recd_dist.train.watch import render

    Console(width=None if sys.stdout.isatty() else 120).print(
        render({name: math.nan if value is None else value for name, value in summary.items()})
    )
    return 0


def _board(options: argparse.Namespace) -> int:
    from recd_dist.metrics.curves import serve

    return int(serve(Path(options.run_dir), host=options.host, port=options.port) or 0)


def _seen(options: argparse.Namespace) -> int:
    config = load("evaluate", options.overrides, options.config_dir)
    from recd_dist.train.evaluation import count_seen

    counts = count_seen(Path(config.run_dir))
    for each in counts:
        Console(width=120).print(
            f"epoch {each.epoch}: {each.num_samples:,} samples, {each.num_once:,} trained once, "
            f"{each.num_never:,} never, {each.num_more:,} more than once",
            highlight=False,
        )
    return 0 if all(each.is_exact for each in counts) else 1


def _write_json(path: str | None, value: object) -> None:
    if not path:
        return
    try:
        Path(path).write_text(json.dumps(value, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from error


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "etl": _etl,
    "stats": _stats,
    "compact": _compact,
    "sql": _sql,
    "plan": _plan,
    "train": _train,
    "evaluate": _evaluate,
    "summary": _summary,
    "board": _board,
    "seen": _seen,
}


_CONFIG = {**dict.fromkeys(("etl", "stats", "compact", "sql"), "etl"), "plan": "train", "train": "train"}
"""The config that a command takes overrides of; ``evaluate`` where it is not named."""
_FLAGS = {"config_dir", "options", "json", "nproc", "port", "host", "save", "diff", "simulate", "probe"}
_FLAGS |= {"dry_run", "verify", "dialect", "split", "suggest", "html", "sample"}


def _flags(options: argparse.Namespace) -> list[str]:
    """The flags of the command that was parsed, for suggestions."""
    values = _FLAGS & set(vars(options))
    return ["--help", *(f"--{name.replace('_', '-')}" for name in values)]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        Exit code: 0 done, 2 something the user can mend (one line on stderr), 130 stopped by Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="recd: %(message)s")
    logging.getLogger("recd_dist").setLevel(logging.INFO)
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(argv)
        options.argv = list(sys.argv[1:] if argv is None else argv)
        if hasattr(options, "overrides"):  # overrides may stand before and after options
            options.overrides += [u for u in unknown if not u.startswith("-")]
            unknown = [u for u in unknown if u.startswith("-")]
        if unknown:
            raise ConfigError(f"unknown option '{unknown[0]}'{nearest(unknown[0], _flags(options))}")
        if options.command is None:
            parser.print_help()
            return 2
        if getattr(options, "options", False):
            name = _CONFIG.get(options.command, "evaluate")
            config = load(name, options.overrides, options.config_dir)
            sys.stdout.write(to_yaml(config))
            return 0
        return _RUN[options.command](options)
    except UserError as error:
        sys.stderr.write(f"recd: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("recd: stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
