"""What every command is described by: name, help, config, arguments and function."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.job.config import load
from recd_dist.screen.command_line import override, read_text


@dataclass(frozen=True)
class Argument:
    """A flag of a command such as ``--json``, or a positional argument where the name begins without dashes.

    Attributes:
        name: the name that a user types.
        help: its line in ``recd COMMAND --help``.
        settings: the other arguments of ``add_argument``: ``default``, ``type``, ``metavar``, ``action``, ``nargs``.
    """

    name: str
    help: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Adds it to a command's parser."""
        parser.add_argument(self.name, help=self.help, **self.settings)


JSON = Argument("--json", "also write the result as JSON", {"metavar": "FILE"})

CONFIG_ARGUMENTS = (
    Argument("overrides", "overrides of the config", {"nargs": "*", "metavar": "name=value"}),
    Argument("--config-dir", "configs of your own, such as DIR/data/mine.yaml", {"metavar": "DIR"}),
    Argument("--options", "print the config, every option, and stop", {"action": "store_true"}),
)
"""The arguments of every command that takes a config."""


RUN = Argument(
    "overrides", "a run's directory, as runs/tiny-dlrm or run_dir=runs/tiny-dlrm", {"nargs": "*", "metavar": "RUN"}
)
"""The argument of a command that looks at a run."""

_MAIN_OPTION = {"serve": "which model"}
_RUN_DIR = "run_dir"
_NAMED = re.compile(r"[+~]*\w[\w.]*=")


def _is_path(argument: str) -> bool:
    """Whether an argument is a directory's path and no ``name=value``."""
    named = _NAMED.match(argument)
    return named is None or (named[0] != f"{_RUN_DIR}=" and Path(argument).is_dir())


def name_run(arguments: Sequence[str]) -> list[str]:
    """Overrides, where a run's directory may be given by its path alone.

    Args:
        arguments: overrides and at most one path; a path may have an equals sign in it, behind a slash.

    Raises:
        ConfigError: there are several paths.
    """
    paths = [a for a in arguments if _is_path(a)]
    if len(paths) > 1:
        raise ConfigError(f"{' '.join(paths)}: one run at a time; name its directory alone")
    return [a if a not in paths else override(_RUN_DIR, str(Path(a).expanduser())) for a in arguments]


def run_of(arguments: Sequence[str], default: str) -> Path:
    """The directory that ``RUN`` or ``run_dir=RUN`` names, for a command without a config.

    Args:
        arguments: what was typed.
        default: the directory where nothing was.

    Raises:
        ConfigError: something else was typed.
    """
    for argument in arguments:
        if not _is_path(argument) and not argument.startswith(f"{_RUN_DIR}="):
            raise ConfigError(f"'{argument}': takes a run's directory alone, as runs/tiny-dlrm")
    if paths := [a for a in arguments if _is_path(a)]:
        name_run(paths)
        return Path(paths[0]).expanduser()
    texts = [read_text(a.removeprefix(f"{_RUN_DIR}=")) for a in arguments]
    return Path(texts[-1] or default).expanduser() if texts else Path(default)


@dataclass(frozen=True)
class Command:
    """A command of ``recd``.

    Attributes:
        name: the name that a user types.
        summary: one line, in ``recd --help``.
        details: what ``recd NAME --help`` says beside the summary.
        examples: lines that can be typed as they are.
        run: takes the parsed arguments and returns the exit code.
        config: the config that ``name=value`` overrides: ``etl``, ``train`` or ``evaluate``; None: it takes none.
        arguments: its own flags and positional arguments.
        words: words that may stand among the overrides, as in ``recd stats raw``.
        of_run: whether it looks at a run, which may be named by its directory alone.
    """

    name: str
    summary: str
    details: str
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    config: str | None = None
    arguments: tuple[Argument, ...] = ()
    words: tuple[str, ...] = ()
    of_run: bool = False

    def add_to(self, parsers: "argparse._SubParsersAction[Any]") -> None:
        """Adds the command with its help to the parsers of ``recd``."""
        epilog = "\n  ".join(["examples:", *self.examples])
        if self.config:
            epilog += f"\n\nEvery option with its value: recd {self.name} --options (meanings: docs/configuration.md)"
        parser = parsers.add_parser(
            self.name,
            help=self.summary,
            description=f"{self.summary[0].upper()}{self.summary[1:]}.\n{self.details}",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in self._all_arguments():
            argument.add_to(parser)

    def flags(self) -> list[str]:
        """The flags it takes, for suggestions."""
        return ["--help", *(a.name for a in self._all_arguments() if a.name.startswith("-"))]

    def load_config(self, options: argparse.Namespace) -> Any:
        """The config that the arguments describe.

        Raises:
            ConfigError: an override that does not fit, or there is none.
        """
        self.require_overrides(options)
        overrides = [o for o in options.overrides if o not in self.words]
        typed = " ".join([self.name, *(o for o in options.overrides if o in self.words)])
        return load(str(self.config), name_run(overrides) if self.of_run else overrides, options.config_dir, typed)

    def rank_overrides(self, options: argparse.Namespace) -> list[str]:
        """What the ranks of a job load the same config from: overrides alone.

        Raises:
            ConfigError: the directory of configs is not there.
        """
        overrides = name_run(options.overrides) if self.of_run else list(options.overrides)
        if options.config_dir is None:
            return overrides
        if not Path(options.config_dir).is_dir():
            raise ConfigError(f"--config-dir {options.config_dir}: no such directory")
        return [override("hydra.searchpath", [f"file://{Path(options.config_dir).resolve()}"]), *overrides]

    def require_overrides(self, options: argparse.Namespace) -> None:
        """Refuses a command line that says nothing of what the command is to do.

        Raises:
            ConfigError: there is neither an override nor a directory of configs.
        """
        if options.overrides or options.config_dir or options.options:
            return
        what = "which run" if self.of_run else _MAIN_OPTION.get(str(self.config), "which data")
        raise ConfigError(f"recd {self.name}: say {what}, as in `{self.examples[0]}`; more: recd {self.name} --help")

    def _all_arguments(self) -> tuple[Argument, ...]:
        positional, *flags = CONFIG_ARGUMENTS
        return (*((RUN if self.of_run else positional, *flags) if self.config else ()), *self.arguments)


def write_json(file: str | None, value: object) -> None:
    """Writes the result of a command where ``--json`` names a file.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not file:
        return
    try:
        Path(file).write_text(json_text(value) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {file}: cannot be written ({error.strerror})") from error
