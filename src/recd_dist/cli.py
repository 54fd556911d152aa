"""The command line of recd: it parses arguments, runs commands and reports errors.

The commands themselves are in ``commands/``.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from recd_dist.commands import (
    bench,
    board,
    check,
    checkpoints,
    compact,
    doctor,
    etl,
    evaluate,
    exports,
    plan,
    predict,
    reader,
    runs,
    seen,
    serve,
    sql,
    stats,
    summary,
    sweep,
    train,
)
from recd_dist.errors import ConfigError, UserError, nearest
from recd_dist.job.config import to_yaml
from recd_dist.redaction.credentials import screen_handler, show_traceback

COMMANDS = {
    module.COMMAND.name: module.COMMAND
    for module in (
        etl,
        stats,
        check,
        compact,
        sql,
        plan,
        train,
        reader,
        sweep,
        evaluate,
        predict,
        exports,
        serve,
        summary,
        runs,
        checkpoints,
        board,
        bench,
        seen,
        doctor,
    )
}
"""The commands by name, in the order of ``recd --help``."""

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
  recd evaluate runs/tiny-dlrm

Arguments written name=value override the config (configs/, docs/configuration.md); a misspelt name is refused.
recd COMMAND --help shows examples, recd COMMAND --options the config that a command would run with.
"""


_MULTIRUN = ("-m", "--multirun")
"""Hydra's flags for a sweep, which its users type: `recd train -m` is `recd sweep`."""


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line that names the remedy, as all others are."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.match("argument COMMAND: invalid choice: '(.*?)'", message):
            raise ConfigError(f"unknown command '{wrong[1]}'{nearest(wrong[1], COMMANDS)}")
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def _as_sweep(argv: Sequence[str]) -> list[str]:
    """The command line, where ``recd train -m`` is ``recd sweep``."""
    asked = "train" in argv[:1] and any(word in _MULTIRUN for word in argv)
    return ["sweep", *(word for word in argv[1:] if word not in _MULTIRUN)] if asked else list(argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace | None:
    """The arguments of the command line; None where no command is named, after the help was printed."""
    parser = _Parser(
        "recd", description=_DESCRIPTION, epilog=_FIRST_STEPS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS.values():
        command.add_to(parsers)
    options, unknown = parser.parse_known_args(_as_sweep(argv))
    options.argv = list(argv)
    for name in ("overrides", "tables"):  # what may stand before and after flags; argparse takes one place only
        if hasattr(options, name):
            setattr(options, name, [*getattr(options, name), *(u for u in unknown if not u.startswith("-"))])
            unknown = [u for u in unknown if u.startswith("-")]
    if unknown and unknown[0] in _MULTIRUN:
        raise ConfigError(f"{unknown[0]}: is for `recd train` alone, where it makes a sweep; see `recd sweep --help`")
    if unknown:
        flags = COMMANDS[options.command].flags() if options.command else ["--help"]
        raise ConfigError(f"unknown option '{unknown[0]}'{nearest(unknown[0], flags)}")
    if options.command is None:
        parser.print_help()
        return None
    return options


_DRIVER = "libnvidia-ml.so"
_NO_DRIVER = (
    f"{_DRIVER} is not on this machine: CUDA builds of fbgemm-gpu want an NVIDIA driver, even where no GPU is used; "
    "use an environment of `make env VARIANT=cpu`"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        Exit code: 0 done, 2 something the user can mend (one line on stderr), 130 stopped by Ctrl-C. Some commands
        return 1 for an answer that is no error: ``recd etl --verify``, ``recd check`` and ``recd seen``.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[screen_handler()])
    sys.excepthook = show_traceback
    logging.getLogger("recd_dist").setLevel(logging.INFO)
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        if options is None:
            return 2
        command = COMMANDS[options.command]
        if getattr(options, "options", False):
            sys.stdout.write(to_yaml(command.load_config(options)))
            return 0
        return command.run(options)
    except UserError as error:
        sys.stderr.write(f"recd: error: {error}\n")
        return 2
    except OSError as error:
        if _DRIVER not in f"{error} {error.__cause__}":
            raise
        sys.stderr.write(f"recd: error: {_NO_DRIVER}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("recd: stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
