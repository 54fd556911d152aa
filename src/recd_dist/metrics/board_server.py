"""Serves the curves: TensorBoard on loopback as it is, anywhere else behind a token and TLS.

    recd board runs                                                                  this machine alone
    recd board runs --host 0.0.0.0 --token-file T --cert C.pem --key K.pem           everyone who knows the token

TensorBoard asks nobody for a password, so that it is never reachable from other machines without ``board_guard.py``.
"""

import errno
import ipaddress
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from recd_dist.errors import ConfigError
from recd_dist.metrics.board_secrets import CERTIFY, read_token, require_certificate

LOOK_S = 0.5
"""Seconds between two looks whether a job has begun to write curves, or has ended."""


@dataclass(frozen=True)
class Access:
    """Who may see the curves.

    Attributes:
        token_file: the file whose text every reader must show; one that is not there is made with a new token.
        cert: the TLS certificate, as PEM.
        key: its private key, as PEM; None where it stands in the certificate's file.
        no_tls: serve without TLS beyond loopback: a proxy in front of it speaks TLS.
    """

    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    no_tls: bool = False


_LAST_PORT = 65535


def server_command(
    directory: Path, port: int = 6006, host: str = "127.0.0.1", access: Access | None = None
) -> list[str]:
    """The command line that serves the dashboard of a run, or of all runs below a directory.

    Args:
        directory: a run's directory, or one with many runs.
        port: the port to listen on.
        host: the address to listen on; beyond loopback a token and TLS are needed.
        access: who may see the curves; everyone on this machine by default.

    Raises:
        ConfigError: there is no such port, or no event file below the directory; or others could read the run: the
            host is beyond loopback without token or TLS, or a file of token or key is not as ``board_secrets.py``
            wants it.
    """
    if not 1 <= port <= _LAST_PORT:
        raise ConfigError(f"port {port}: must be from 1 to {_LAST_PORT}")
    if next(directory.rglob("events.out.tfevents.*"), None) is None:
        raise ConfigError(f"{directory}: no TensorBoard files here; give a run's directory, or the one of all runs")
    guard = _guard_words(port, host, access or Access())
    module = ["-P", "-m", "recd_dist.metrics.board_guard", *guard]  # -P: no module of the working directory
    listen = ["--host", host, "--port", str(port)]
    return [sys.executable, *module, "--load_fast=false", "--logdir", str(directory), *listen]


def _guard_words(port: int, host: str, access: Access) -> list[str]:
    """The arguments of the guard, whose files are looked at first.

    Raises:
        ConfigError: others could read the run.
    """
    beyond = not _is_loopback(host)
    if beyond and access.token_file is None:
        raise ConfigError(
            f"host={host}: TensorBoard has no authentication, anyone who reaches that address could read the run; "
            f"keep 127.0.0.1 and tunnel (ssh -L {port}:127.0.0.1:{port} THIS_HOST), or add --token-file FILE, which is "
            "made with a new token"
        )
    if beyond and access.cert is None and not access.no_tls:
        raise ConfigError(
            f"host={host}: without TLS the token could be read on the way; add --cert FILE --key FILE (to make them: "
            f"{CERTIFY}), or --no-tls where a proxy in front of it speaks TLS"
        )
    if access.key is not None and access.cert is None:
        raise ConfigError(f"--key {access.key}: belongs to a certificate; add --cert FILE (to make both: {CERTIFY})")
    words = []
    if access.token_file is not None:
        read_token(access.token_file, make=True)
        words += ["--token-file", str(access.token_file)]
    if access.cert is not None:
        require_certificate(access.cert, access.key)
        words += ["--cert", str(access.cert), *(["--key", str(access.key)] if access.key else [])]
    return words


def serve(directory: Path, port: int = 6006, host: str = "127.0.0.1", access: Access | None = None) -> NoReturn:
    """Replaces this process by the dashboard's server, so that a signal to this process ends the server.

    Args:
        directory: a run's directory, or one with many runs.
        port: the port to listen on.
        host: the address to listen on; beyond loopback a token and TLS are needed.
        access: who may see the curves; everyone on this machine by default.

    Raises:
        ConfigError: as for :func:`server_command`, or the port is in use.
    """
    line = server_command(directory, port, host, access)
    _require_free(host, port, directory)
    os.execve(line[0], line, _environment())


def serve_until(
    ended: Path, directory: Path, port: int = 6006, host: str = "127.0.0.1", access: Access | None = None
) -> int:
    """Serves the dashboard beside a job: from its first curves on, until the job says that it has ended.

    Args:
        ended: a file that appears when the job has ended.
        directory: the run's directory, which may appear later.
        port: the port to listen on.
        host: the address to listen on; beyond loopback a token and TLS are needed.
        access: who may see the curves; everyone on this machine by default.

    Returns:
        0 when the file has appeared, otherwise the exit code of the server, which has ended by itself.

    Raises:
        ConfigError: as for :func:`serve`.
    """
    _guard_words(port, host, access or Access())
    _require_free(host, port, directory)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the server ends too
    server: subprocess.Popen[bytes] | None = None
    try:
        while not ended.exists():
            if server is None and next(directory.rglob("events.out.tfevents.*"), None):
                server = subprocess.Popen(server_command(directory, port, host, access), env=_environment())
            if server is not None and (code := server.poll()) is not None:
                return code
            time.sleep(LOOK_S)
        return 0
    finally:
        if server is not None:
            server.terminate()
            server.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


def _require_free(host: str, port: int, directory: Path) -> None:
    """Refuses a port that another program listens on, and names one that is free."""
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe, socket.socket(family, kind) as free:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    continue  # an address that this machine does not have, such as ::1
                free.bind((address[0], 0))
                why = "in use, perhaps by another dashboard" if error.errno == errno.EADDRINUSE else "not yours to use"
                other = shlex.join(["recd", "board", str(directory), "--port", str(free.getsockname()[1])])
                raise ConfigError(f"--port {port}: {why}; choose another: {other}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
