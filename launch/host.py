"""What all components share: a role whose hosts run one Python module, with values that arrive as they were typed.

A value goes through several hands, and each of them changes some characters: TorchX fills in ``${app_id}`` and makes
``$$`` a dollar; Kubernetes replaces ``$(NAME)`` and ``$$``; Slurm fills in ``${app_id}`` once more, and ends the value
of a variable at its first comma. So all values, those of environment variables too, stand in one bash script, quoted in
a way that none of them touches. A scheduler gets no variables of its own.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchx import specs
from torchx.specs import macros
from torchx.specs.finder import ComponentValidationException

from .pod import lay_over

IMAGE = "recd_dist:cpu"
FIRST_PORT = 29500
MEETING_PORT = "meeting_port"
"""The shell variable of the port at which the hosts of a job meet."""

LISTEN = "listen"
"""The shell variable of the address at which a server of a job listens: loopback where all hosts are this machine."""

_PYTHON = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
"""Lines of a log appear at once; modules come from the installation, never from the working directory."""

_HOSTS_BY_RANKS = re.compile(r"^(?:(?P<least>[1-9]\d*):)?(?P<most>[1-9]\d*)x(?P<ranks>[1-9]\d*)$")
_VARIABLE = re.compile(
    r"""\s*(?P<name>[A-Za-z_]\w*)=
    (?:"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>[^']*)'|(?P<bare>.*?))
    (?:,(?=\s*[A-Za-z_]\w*=)|\Z)""",
    re.ASCII | re.DOTALL | re.VERBOSE,
)


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and not isinstance(record.msg, specs.AppStatus)


# TorchX writes sixteen lines of its own log around what the job writes. LOGLEVEL=INFO shows them.
if "LOGLEVEL" not in os.environ:
    for logger in ("torchx.cli.cmd_run", "torchx.runner.api", "torchx.schedulers.local_scheduler"):
        logging.getLogger(logger).addFilter(_is_news)


class Shell(str):
    """A word of a command that bash is to read as it stands; other words are values and are quoted."""

    __slots__ = ()


@dataclass(frozen=True)
class Place:
    """What a scheduler must know of each host of a role, and how the role's module is started there."""

    image: str
    cpu: int
    gpu: int
    memMB: int
    max_retries: int
    env: str
    mounts: Sequence[str] | None
    pod: str
    python: str


@dataclass(frozen=True)
class Shape:
    """How many hosts a job has, and how many ranks each of them: what ``-j`` says."""

    least: int | None
    hosts: int
    ranks: int

    @classmethod
    def of(cls, j: str) -> "Shape":
        """Reads ``-j``.

        Args:
            j: hosts x ranks, or fewest:most hosts x ranks.

        Raises:
            ComponentValidationException: it says something else.
        """
        found = _HOSTS_BY_RANKS.match(j)
        if found is None:
            raise ComponentValidationException(
                f"-j {j}: give the number of hosts x ranks on each, for example 1x2, or fewest:most hosts x ranks, "
                "as 2:4x8"
            )
        return cls(int(found["least"]) if found["least"] else None, int(found["most"]), int(found["ranks"]))


def launcher_words(
    shape: Shape, port: int, options: Sequence[str], overrides: Sequence[str]
) -> tuple[list[str], dict[str, int]]:
    """The command of one host of a job of many ranks.

    Args:
        shape: the hosts and ranks.
        port: the port at which several hosts meet; 0 chooses one.
        options: options of ``recd_dist.ranks.launcher``.
        overrides: what the ranks get.

    Returns:
        The arguments of Python, and the ports that a scheduler opens, by name.
    """
    hosts = f"{shape.least}:{shape.hosts}" if shape.least else str(shape.hosts)
    words = ["-m", "recd_dist.ranks.launcher", "--nnodes", hosts, "--nproc-per-node", str(shape.ranks), *options]
    if shape.hosts > 1:
        meeting_port = str(port) if port else f"$${MEETING_PORT}"
        words += ["--node", Shell(macros.replica_id), "--rdzv-id", Shell(macros.app_id)]
        words += ["--rdzv-endpoint", Shell(f'"$${{{macros.rank0_env}:=localhost}}:{meeting_port}"')]
    return [*words, "--", *overrides], {"rendezvous": port or FIRST_PORT} if shape.hosts > 1 else {}


def role(name: str, words: Sequence[str], place: Place, variables: Mapping[str, str], **more: Any) -> specs.Role:
    """A role whose hosts run Python.

    Args:
        name: the role's name.
        words: the arguments of Python, such as -m and a module.
        place: what the user said of the hosts.
        variables: environment variables that the component sets; those of ``--env`` come after them.
        more: other fields of the role, such as the number of hosts.

    Raises:
        ComponentValidationException: ``--env`` or ``--pod`` cannot be read.
    """
    made = specs.Role(
        name=name,
        image=place.image,
        entrypoint="bash",
        args=[
            "-c",
            _script(
                words,
                {**_PYTHON, **variables, **read_variables(place.env)},
                place.python,
            ),
        ],
        resource=specs.resource(cpu=place.cpu, gpu=place.gpu, memMB=place.memMB),
        max_retries=place.max_retries,
        mounts=specs.parse_mounts(list(place.mounts)) if place.mounts else [],
        **more,
    )
    if place.pod:
        lay_over(made, place.pod)
    return made


def read_variables(text: str) -> dict[str, str]:
    """Reads ``--env``: NAME=value, separated by commas.

    A comma ends a value only where another NAME= follows. A value in quotes is taken whole: in single quotes as it is,
    in double quotes with backslashes before quotes and backslashes. TorchX's own reader drops equals signs at the end
    of a value, and pairs an apostrophe with that of the next value.

    Args:
        text: what was typed.

    Raises:
        ComponentValidationException: it does not begin with NAME=.
    """
    variables: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _VARIABLE.match(text, position)
        if found is None:
            raise ComponentValidationException(
                f"--env {text[position:]}: write NAME=value, and put a value in quotes where it holds ',NAME=' "
                "itself: --env \"A=1,B='x,y=z'\""
            )
        double = found["double"]
        value = found["single"] or found["bare"] or "" if double is None else re.sub(r"\\([\\\"])", r"\1", double)
        variables[found["name"]] = value
        position = found.end()
    return variables


def _script(words: Sequence[str], variables: Mapping[str, str], python: str) -> str:
    """The bash script of one host. TorchX makes one dollar of two, so those for bash are doubled here."""
    lines = [f"export {name}={quote(value)}" for name, value in variables.items()]
    if any(f"$${MEETING_PORT}" in word for word in words):
        # Jobs of Slurm may share a host: each of them meets at a port of its own. Only there are their names numbers.
        chosen = f"let {MEETING_PORT}+={macros.app_id}%1000"
        lines.append(f'{MEETING_PORT}={FIRST_PORT}; [ -z "$${{SLURM_JOB_ID:-}}" ] || {chosen}')
    if any(f"$${LISTEN}" in word for word in words):
        lines.append(f'{LISTEN}=0.0.0.0; [ "$${{TORCHX_JOB_ID%%:*}}" != local_cwd ] || {LISTEN}=127.0.0.1')
    if python:
        interpreter = quote(python)
    else:
        lines.append(f'python={quote(sys.executable)}; [ -x "$$python" ] || python=python3')
        interpreter = '"$$python"'
    command = [interpreter, *(word if isinstance(word, Shell) else quote(word) for word in words)]
    return "\n".join([*lines, f"exec {' '.join(command)}"])


def quote(text: str) -> str:
    """Quotes a value for bash so that it stays whole on the way there.

    ``$$``, ``$(`` and ``${`` are torn apart by an empty pair of quotes, for TorchX, Slurm and Kubernetes look for them.
    """
    quoted = re.sub(r"\$(?=[$({])", "$''", shlex.quote(text))
    return quoted.replace("$", "$$")
