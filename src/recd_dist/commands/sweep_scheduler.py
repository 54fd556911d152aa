"""Runs of a sweep that a scheduler has: submitted, asked for and cancelled through TorchX's command line."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recd_dist.commands.sweep_jobs import OUTPUT, last_line, refusal, with_run_dir
from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.config import config_dir

SUBMITTED = "submitted.json"
"""A file of a run's directory: the handle of its job."""

ASK_S = 60.0
"""Seconds within which a scheduler must answer."""

_ASKED_AT_A_TIME = 8
_WAITING = ("UNSUBMITTED", "SUBMITTED", "PENDING")
_RUNNING = "RUNNING"
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
_FORGOTTEN = "does not exist or has been removed"
"""What ``torchx status`` says of a job that its scheduler does not know (any more)."""


@dataclass(frozen=True)
class Job:
    """A run's job, as its scheduler told.

    Attributes:
        handle: its name for ``torchx``, such as ``slurm://torchx/1234``.
        state: TorchX's word for how far it is; empty where the scheduler does not know it any more.
    """

    handle: str
    state: str

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or begins again."""
        return self.state in _WAITING

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler still has it, waiting or running."""
        return self.waits or self.state == _RUNNING

    @property
    def has_ended(self) -> bool:
        """Whether the scheduler says that it has ended, well or not."""
        return self.state in _ENDED


@dataclass(frozen=True)
class Scheduler:
    """A scheduler behind ``torchx run launch/train.py:train``.

    Args:
        name: such as ``slurm``, ``kubernetes`` or ``local_cwd``.
        options: the component's own options, such as ``["-j", "2x8", "--gpu", "8"]``.
        arguments: the scheduler's, as ``partition=gpu,time=2:00:00``; empty for none.
    """

    name: str
    options: Sequence[str]
    arguments: str = ""

    @property
    def is_local(self) -> bool:
        """Whether its jobs end with the command that has started them."""
        return self.name.startswith("local")

    def line(self, run_dir: Path, overrides: Sequence[str]) -> list[str]:
        """The command that submits one run.

        Raises:
            ConfigError: the component is not there; only a checkout has it.
        """
        component = config_dir().parent / "launch" / "train.py"
        if not component.is_file():
            raise ConfigError("--scheduler: launch/train.py is not there; start the sweep from a checkout of recd_dist")
        words = [*_torchx("run"), "-s", self.name]
        words += ["-cfg", self.arguments] if self.arguments else []
        words += ["--wait"] if self.is_local else []
        given = ["--run", str(run_dir), "--", *with_run_dir(overrides, run_dir)]
        return [*words, f"{component}:train", *self.options, *given]

    def submit(self, run_dir: Path, overrides: Sequence[str]) -> tuple[str, str]:
        """Submits one run, and notes its job in the run's directory.

        Returns:
            The handle of the job, and why there is none, in one line; one of them is empty.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        with (run_dir / OUTPUT).open("ab") as output:
            line = self.line(run_dir, overrides)
            ended = subprocess.run(line, stdout=subprocess.PIPE, stderr=output, stdin=subprocess.DEVNULL, check=False)
        handle = ended.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        if ended.returncode:
            return "", f"torchx ended with {ended.returncode}: {refusal(run_dir) or last_line(run_dir)}"
        write_whole(run_dir / SUBMITTED, json_text({"handle": handle}) + "\n")
        return handle, ""


def ask_jobs(run_dirs: Iterable[Path]) -> dict[Path, Job]:
    """What the schedulers say of the jobs of runs; those that were never submitted are left out.

    Args:
        run_dirs: the runs' directories.

    Raises:
        ConfigError: a scheduler does not answer. To take its jobs for ended would start them a second time.
    """
    handles: dict[Path, str] = {}
    for run_dir in run_dirs:
        with suppress(OSError, ValueError, KeyError, TypeError):
            handles[run_dir] = str(json.loads((run_dir / SUBMITTED).read_text())["handle"])
    with ThreadPoolExecutor(_ASKED_AT_A_TIME) as pool:
        return dict(zip(handles, pool.map(_ask, handles.values()), strict=True))


def _ask(handle: str) -> Job:
    try:
        told = _say_to_torchx("status", "--json", handle)
        return Job(handle, str(json.loads(told.stdout)["state"]) if not told.returncode else _unknown(handle, told))
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{handle}: its scheduler does not answer ({error}); try again when it does") from error


def _unknown(handle: str, told: "subprocess.CompletedProcess[str]") -> str:
    """The state of a job for which there is no answer: none, where the scheduler has only forgotten it."""
    if _FORGOTTEN in told.stderr:
        return ""
    why = (told.stderr.strip().splitlines() or ["without a word"])[-1]
    raise ConfigError(f"{handle}: its scheduler does not answer ({why}); try again when it does")


def cancel_jobs(jobs: Mapping[Path, Job]) -> None:
    """Asks the scheduler to end jobs; their runs write a checkpoint.

    Args:
        jobs: the jobs by their runs' directories.

    Raises:
        ConfigError: the scheduler does not answer, or refuses.
    """
    for job in jobs.values():
        try:
            told = _say_to_torchx("cancel", job.handle)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"{job.handle}: cannot be cancelled ({error}); try again") from error
        if told.returncode:
            why = (told.stderr.strip().splitlines() or ["without a word"])[-1]
            raise ConfigError(f"{job.handle}: cannot be cancelled ({why}); try again")


def _torchx(command: str) -> list[str]:
    return [sys.executable, "-m", "torchx.cli.main", command]


def _say_to_torchx(*words: str) -> "subprocess.CompletedProcess[str]":
    line = [*_torchx(words[0]), *words[1:]]
    return subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, check=False, stdin=subprocess.DEVNULL)
