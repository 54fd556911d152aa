"""What every command is described by: name, help, config, arguments and function."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.job.config import load


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
    """

    name: str
    summary: str
    details: str
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    config: str | None = None
    arguments: tuple[Argument, ...] = ()

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
            ConfigError: an override that does not fit.
        """
        return load(str(self.config), options.overrides, options.config_dir)

    def _all_arguments(self) -> tuple[Argument, ...]:
        return (*(CONFIG_ARGUMENTS if self.config else ()), *self.arguments)


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
