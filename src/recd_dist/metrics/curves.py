"""TensorBoard: scalars by subject, a dashboard that is ready when it opens, and a safe way to serve it.

Tags are ``subject/name``; subjects are quality, speed, dedup, traffic, memory. Curves that share a chart (train and
eval, one per group, sent and expanded) have one tag and a line each: TensorBoard colours by run, so each line is a run
of its own, a directory below ``RUN/board``.
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

DIRECTORY = "board"
"""Where in the run's directory the event files lie, one directory per line."""

# category -> chart -> tags (regular expressions, matched from the start)
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


class Board:
    """Writes a run's curves. On ranks other than 0 it writes nothing. A context manager.

    Args:
        run_dir: the run's directory.
        start_step: steps done; curves beyond it, of an attempt that died, are dropped.
        is_writer: True on rank 0.
    """

    def __init__(self, run_dir: Path, start_step: int = 0, is_writer: bool = True) -> None:
        self._directory, self._is_writer = run_dir / DIRECTORY, is_writer
        self._purge_step = start_step + 1 if start_step else None
        self._writers: dict[str, Any] = {}
        if is_writer:
            layout = {c: {t: ["Multiline", tags] for t, tags in charts.items()} for c, charts in _LAYOUT.items()}
            self._line("train").add_custom_scalars(layout)
            self._line("eval")  # the first two take the first two of TensorBoard's seven colours
            for path in sorted(self._directory.iterdir()):
                self._line(path.name)  # each line of an earlier attempt is purged, also one without new points

    def _line(self, name: str) -> Any:
        """The writer of a line."""
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            path = str(self._directory / name)
            self._writers[name] = SummaryWriter(path, purge_step=self._purge_step, flush_secs=10)
        return self._writers[name]

    def add(self, step: int, subject: str, numbers: Mapping[str, float], line: str = "train") -> None:
        """Adds a point to each curve; nan and infinity are left out.

        Args:
            step: optimizer steps done.
            subject: quality, speed, dedup, traffic or memory.
            numbers: by name.
            line: ``train``, ``eval``, ...: curves of one name and several lines share a chart.
        """
        for name, number in numbers.items():
            if self._is_writer and math.isfinite(number):
                self._line(line).add_scalar(f"{subject}/{name}", number, step)

    def add_lines(self, step: int, subject: str, name: str, numbers: Mapping[str, float]) -> None:
        """Adds a point to each line of one chart.

        Args:
            step: optimizer steps done.
            subject: as for ``add``.
            name: of the chart: ``dedup/factor`` and ``traffic/bytes`` have theirs on the dashboard.
            numbers: by line, e.g. ``{"train": 4.3e5, "expanded": 6.9e6}`` for bytes sent and what expanded would send.
        """
        for line, number in numbers.items():
            self.add(step, subject, {name: number}, line)

    def text(self, name: str, text: str) -> None:
        """Adds a text, such as the resolved config, shown as it is."""
        if self._is_writer:
            self._line("train").add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def hparams(self, config: Mapping[str, object], results: Mapping[str, float]) -> None:
        """Adds the run's line to the HParams table; call it once, at the end.

        Args:
            config: flat (dotted names); values that are no number, bool or string are shown as text.
            results: e.g. ``{"auc": 0.79}``; shown as ``result/auc``.
        """
        if self._is_writer:
            plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
            numbers = {f"result/{k}": v for k, v in results.items() if math.isfinite(v)}
            self._line("train").add_hparams(plain, numbers, run_name=".")

    def flush(self) -> None:
        """Writes what is pending."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Writes what is pending and closes."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def command(directory: Path, port: int = 6006, host: str = "127.0.0.1", no_authentication: bool = False) -> list[str]:
    """The command line that serves a run's dashboard, or that of all runs below a directory.

    Args:
        directory: a run's directory, or one with many runs.
        port: to listen on.
        host: to listen on; beyond this machine only with ``no_authentication``.
        no_authentication: the user accepts that TensorBoard asks nobody for a password.

    Raises:
        ConfigError: no event file below the directory, or a host beyond loopback.
    """
    if next(directory.rglob("events.out.tfevents.*"), None) is None:
        raise ConfigError(f"{directory}: no TensorBoard files here; give a run's directory, or the one of all runs")
    if not _is_loopback(host) and not no_authentication:
        raise ConfigError(
            f"host={host}: TensorBoard has no authentication, anyone who reaches that address could read the run; "
            f"keep 127.0.0.1 and tunnel: ssh -L {port}:127.0.0.1:{port} THIS_HOST"
        )
    listen = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "tensorboard.main", "--load_fast=false", "--logdir", str(directory), *listen]


def serve(directory: Path, port: int = 6006, host: str = "127.0.0.1", no_authentication: bool = False) -> NoReturn:
    """Becomes the dashboard's server: this process is replaced, so that a signal to it ends the server.

    Arguments and errors as for ``command``.
    """
    line = command(directory, port, host, no_authentication)
    os.execve(line[0], line, {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
