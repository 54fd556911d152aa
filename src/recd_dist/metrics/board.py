"""TensorBoard: scalars by subject, a dashboard that is ready when it opens, and a safe way to serve it.

Tags are ``subject/name`` or ``subject/name/line``; lines of one name share a chart (``quality/loss/train`` and
``quality/loss/eval``). Subjects: quality, speed, dedup, traffic, memory.
"""

import ipaddress
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from recd_dist.errors import ConfigError

DIRECTORY = "tensorboard"
"""Where in the run's directory the event files lie."""

# category -> chart -> tags (regular expressions)
_LAYOUT: dict[str, dict[str, list[str]]] = {
    "quality": {
        "loss": [r"quality/loss/.*"],
        "NE (below 1 beats the base rate)": [r"quality/ne/.*"],
        "AUC": [r"quality/auc/.*"],
        "calibration (1 is right)": [r"quality/calibration/.*"],
    },
    "speed": {
        "samples per second, all ranks": [r"speed/samples_per_s"],
        "step, ms": [r"speed/step_ms"],
        "reader wait, share of a step": [r"speed/reader_wait_share"],
    },
    "deduplication": {
        "samples per unique row, by group": [r"dedup/factor/.*"],
        "bytes per step: sent, and what expanded would send": [r"traffic/(sent|expanded)_bytes"],
    },
    "memory": {"GiB of rank 0": [r"memory/.*_gib"]},
}


class Board:
    """Writes a run's curves. On ranks other than 0 it writes nothing. A context manager.

    Args:
        run_dir: the run's directory.
        start_step: steps done; curves beyond it, of an attempt that died, are dropped.
        is_writer: True on rank 0.
    """

    def __init__(self, run_dir: Path, start_step: int = 0, is_writer: bool = True) -> None:
        self._writer = None
        if is_writer:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(
                str(run_dir / DIRECTORY), purge_step=start_step + 1 if start_step else None, flush_secs=10
            )
            layout = {c: {t: ["Multiline", tags] for t, tags in charts.items()} for c, charts in _LAYOUT.items()}
            self._writer.add_custom_scalars(layout)

    def add(self, step: int, subject: str, numbers: Mapping[str, float], line: str = "") -> None:
        """Adds a point to each curve; nan and infinity are left out.

        Args:
            step: optimizer steps done.
            subject: quality, speed, dedup, traffic or memory.
            numbers: by name.
            line: ``train``, ``eval``, a group: curves of one name and several lines share a chart.
        """
        if self._writer is None:
            return
        for name, number in numbers.items():
            if math.isfinite(number):
                tag = f"{subject}/{name}/{line}" if line else f"{subject}/{name}"
                self._writer.add_scalar(tag, number, step)

    def text(self, name: str, text: str) -> None:
        """Adds a text, such as the resolved config, shown as it is."""
        if self._writer is not None:
            self._writer.add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def hparams(self, config: Mapping[str, object], results: Mapping[str, float]) -> None:
        """Adds the run's line to the HParams table; call it once, at the end.

        Args:
            config: flat (dotted names); values that are no number, bool or string are shown as text.
            results: e.g. ``{"auc": 0.79}``; shown as ``result/auc``.
        """
        if self._writer is not None:
            plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
            numbers = {f"result/{k}": v for k, v in results.items() if math.isfinite(v)}
            self._writer.add_hparams(plain, numbers, run_name=".")

    def close(self) -> None:
        """Writes what is pending and closes."""
        if self._writer is not None:
            self._writer.close()

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
            f"keep 127.0.0.1 and tunnel: ssh -L {port}:127.0.0.1:{port} THIS_HOST "
            "(or accept it by no_authentication=true)"
        )
    return [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--host", host, "--port", str(port)]


def serve(directory: Path, port: int = 6006, host: str = "127.0.0.1", no_authentication: bool = False) -> int:
    """Serves a dashboard until interrupted; arguments and errors as for ``command``.

    Returns:
        TensorBoard's exit code; 0 after an interrupt.
    """
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command(directory, port, host, no_authentication), env=quiet) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
