"""A run's curves in TensorBoard, with a ready dashboard and a safe way to serve it.

Tags are ``subject/name``; the subjects are quality, speed, dedup, traffic and memory. Curves that share a chart (train
and eval; the groups; sent and expanded) have one tag and differ in their line. TensorBoard gives each run a colour, so
that each line is a run to TensorBoard: a directory of its own below ``RUN/board``.
"""

import ipaddress
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from recd_dist.errors import ConfigError

BOARD_DIRECTORY = "board"
"""The directory of the event files in the run's directory; it has one directory per line."""

# category -> chart -> tags, as regular expressions that match from the start
_LAYOUT: dict[str, dict[str, list[str]]] = {
    "quality": {
        "loss": ["quality/loss$"],
        "NE: below 1 beats the base rate": ["quality/ne$"],
        "AUC": ["quality/auc$"],
        "calibration: 1 is right": ["quality/calibration$"],
    },
    "speed": {
        "samples/s of all ranks": ["speed/samples_per_s$"],
        "step, ms": ["speed/step_ms$"],
        "reader wait, share of time": ["speed/reader_wait_share$"],
    },
    "what deduplication saves": {
        "dedup factor by group": ["dedup/factor$"],
        "bytes a step: sent (train), expanded": ["traffic/bytes$"],
        "bytes a step by group, by formula": ["traffic/group_bytes$"],
    },
    "memory": {"GiB, rank 0": ["memory/.*"]},
}


class CurveWriter:
    """Writes a run's curves. It is a context manager, and on ranks other than rank 0 it writes nothing.

    Args:
        run_dir: the run's directory.
        start_step: the number of steps done; points beyond it, which an attempt that died has written, are dropped.
        is_writer: True on rank 0.
    """

    def __init__(self, run_dir: Path, start_step: int = 0, is_writer: bool = True) -> None:
        self._directory, self._is_writer = run_dir / BOARD_DIRECTORY, is_writer
        self._purge_step = start_step + 1 if start_step else None
        self._writers: dict[str, Any] = {}
        if is_writer:
            layout = {c: {t: ["Multiline", tags] for t, tags in charts.items()} for c, charts in _LAYOUT.items()}
            self._writer_of("train").add_custom_scalars(layout)
            self._writer_of("eval")  # TensorBoard has seven colours; train and eval take the first two
            for path in sorted(self._directory.iterdir()):
                self._writer_of(path.name)  # drops points of an earlier attempt, also where this one adds none

    def _writer_of(self, line: str) -> Any:
        """The SummaryWriter of a line, made on first use."""
        if line not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            path = str(self._directory / line)
            self._writers[line] = SummaryWriter(path, purge_step=self._purge_step, flush_secs=10)
        return self._writers[line]

    def add_points(self, step: int, subject: str, numbers: Mapping[str, float], line: str = "train") -> None:
        """Adds a point to each of several curves; nan and infinity are left out.

        Args:
            step: the number of optimizer steps done.
            subject: ``quality``, ``speed``, ``dedup``, ``traffic`` or ``memory``.
            numbers: the points' values by the names of the curves.
            line: the line, such as ``train`` or ``eval``; lines of one name share a chart.
        """
        for name, number in numbers.items():
            if self._is_writer and math.isfinite(number):
                self._writer_of(line).add_scalar(f"{subject}/{name}", number, step)

    def add_points_by_line(self, step: int, subject: str, name: str, numbers: Mapping[str, float]) -> None:
        """Adds a point to each line of one chart.

        Args:
            step: the number of optimizer steps done.
            subject: ``quality``, ``speed``, ``dedup``, ``traffic`` or ``memory``.
            name: the name that the lines share.
            numbers: the points' values by line, such as ``{"train": 4.3e5, "expanded": 6.9e6}`` for the bytes that were
                sent and those that the expanded batch would have sent.
        """
        for line, number in numbers.items():
            self.add_points(step, subject, {name: number}, line)

    def add_text(self, name: str, text: str) -> None:
        """Adds a text, such as the resolved config, which TensorBoard shows as it is."""
        if self._is_writer:
            self._writer_of("train").add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def add_run(self, config: Mapping[str, object], results: Mapping[str, float]) -> None:
        """Adds the run to the HParams table; call it once, at the end.

        Args:
            config: the config's values by dotted names; a value that is no number, bool or string is shown as text.
            results: the results by name; ``{"auc": 0.79}`` is shown as ``result/auc``.
        """
        if self._is_writer:
            plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
            numbers = {f"result/{k}": v for k, v in results.items() if math.isfinite(v)}
            self._writer_of("train").add_hparams(plain, numbers, run_name=".")

    def flush(self) -> None:
        """Writes the points that are still in memory."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Writes the points that are still in memory and closes the files."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> "CurveWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def server_command(directory: Path, port: int = 6006, host: str = "127.0.0.1") -> list[str]:
    """The command line that serves the dashboard of a run, or of all runs below a directory.

    Args:
        directory: a run's directory, or one with many runs.
        port: the port to listen on.
        host: the address to listen on, which must be a loopback address.

    Raises:
        ConfigError: there is no event file below the directory, or the host is beyond loopback.
    """
    if next(directory.rglob("events.out.tfevents.*"), None) is None:
        raise ConfigError(f"{directory}: no TensorBoard files here; give a run's directory, or the one of all runs")
    if not _is_loopback(host):
        raise ConfigError(
            f"host={host}: TensorBoard has no authentication, anyone who reaches that address could read the run; "
            f"keep 127.0.0.1 and tunnel: ssh -L {port}:127.0.0.1:{port} THIS_HOST"
        )
    listen = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "tensorboard.main", "--load_fast=false", "--logdir", str(directory), *listen]


def serve(directory: Path, port: int = 6006, host: str = "127.0.0.1") -> NoReturn:
    """Replaces this process by the dashboard's server, so that a signal to this process ends the server.

    Args:
        directory: a run's directory, or one with many runs.
        port: the port to listen on.
        host: the address to listen on, which must be a loopback address.

    Raises:
        ConfigError: there is no event file below the directory, or the host is beyond loopback.
    """
    line = server_command(directory, port, host)
    os.execve(line[0], line, {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
