"""``recd summary``: what a finished run came to."""

import argparse
import json
import math
import sys
from pathlib import Path

from recd_dist.commands.command import Command
from recd_dist.errors import ConfigError
from recd_dist.screen.command_line import command_line, override
from recd_dist.screen.console import console


def run(options: argparse.Namespace) -> int:
    """Prints summary.json of a run.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    config = COMMAND.load_config(options)
    path = Path(config.run_dir) / "summary.json"
    if not path.is_file():
        raise ConfigError(f"{path}: not there; the run has not ended, or this is no run's directory")
    try:
        summary = json.loads(path.read_text())
    except ValueError as error:
        line = command_line("recd", "evaluate", override("run_dir", config.run_dir))
        raise ConfigError(f"{path}: damaged ({error}); `{line}` still works") from error
    from recd_dist.train.days_text import render_days
    from recd_dist.train.summary_text import render

    console(sys.stdout).print(render({name: math.nan if value is None else value for name, value in summary.items()}))
    if summary.get("days"):
        console(sys.stdout).print(render_days(summary["days"]))
    return 0


COMMAND = Command(
    name="summary",
    summary="what a finished run came to",
    details="Prints what `recd train` printed at its end, from summary.json.",
    examples=("recd summary runs/tiny-dlrm",),
    run=run,
    config="evaluate",
    of_run=True,
)
