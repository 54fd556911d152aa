"""Servers that announce themselves in a directory, where a job does not know beforehand on which hosts they run.

::

    DIR/server-3f2a.json   {"address": "grpc://10.0.0.7:41235", "host": "node7"}   while it serves
    DIR/token              what servers and trainers of the job show each other; mode 600

The directory lies in a file system that all hosts of a job share, as its run directory does.
"""

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.reader.tier.server_address import Address

_TOKEN = "token"  # noqa: S105  (a file's name)


def token_of(directory: Path) -> Path:
    """The file with the token of a job: made by whoever is there first, and the same for all.

    Args:
        directory: where servers announce themselves; made where it is not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / _TOKEN
    if not file.exists():
        own = directory / f".{_TOKEN}-{secrets.token_hex(8)}"
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(32) + "\n")
        with suppress(FileExistsError):
            os.link(own, file)  # whole or not at all, and never over another one's
        own.unlink()
    return file


@contextmanager
def announce(directory: Path, address: Address) -> Iterator[None]:
    """Inside, trainers find a server in a directory.

    Args:
        directory: where they look.
        address: where the server listens, as trainers reach it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"server-{secrets.token_hex(8)}.json"
    write_whole(file, json_text({"address": str(address), "host": socket.gethostname()}))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if not any(directory.glob("server-*.json")):
            (directory / _TOKEN).unlink(missing_ok=True)
            with suppress(OSError):  # a server that begins
                directory.rmdir()


def announced(directory: Path) -> list[Address]:
    """The servers that have announced themselves, in an order that is the same for all who look."""
    found = []
    for file in sorted(directory.glob("server-*.json")):
        with suppress(OSError, ValueError, KeyError, ConfigError):  # it has gone, or is none
            found.append(Address.parse(json.loads(file.read_text())["address"]))
    return found
