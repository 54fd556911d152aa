"""Memory of a trainer that a server on the same host writes batches into, so that they do not pass through a socket.

::

    trainer                                               server
    block, a file that has no name, sealed in its size
    question: task t, process 4711, file 12, secret  -->  opens /proc/4711/fd/12 once, and keeps it
                                                          makes the batch of t there
    takes the batch where it lies                    <--  answer: it is there

The memory is the trainer's: nothing is left of it when the last process that holds it has ended, however it ends, and
no limit of /dev/shm applies. The kernel lets a process open what belongs to a process of the same user alone. A secret
at the beginning of a block shows that both sides mean the same one, as on another host, or in a container, the same
numbers name something else. A server writes into nothing that could get smaller under it, and into no other file.
"""

import fcntl
import logging
import os
import secrets
import stat
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recd_dist.reader.transport import ALIGN

logger = logging.getLogger(__name__)

_SECRET = 32
"""Bytes of it."""

_NAME = "recd-reader"
_MOST = 64
"""Blocks of one stream that a server keeps open; a stream has prefetch + 2."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def can_lend() -> bool:
    """Whether this system has files without a name that other processes can open: Linux has."""
    return sys.platform == "linux" and bool(host_id())


@cache
def host_id() -> str:
    """What is the same for all processes of a host, and on no other one; empty where nothing is."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class LentMemory:
    """Memory that a server may write into.

    Args:
        num_bytes: its size, beside that of the secret.

    Attributes:
        bytes: the memory, uint8 [ALIGN + num_bytes]; the secret lies in its first ``ALIGN`` bytes.
        name: what a server needs to find it, as JSON has it.
    """

    def __init__(self, num_bytes: int) -> None:
        secret = secrets.token_bytes(_SECRET)
        self._file = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._file, ALIGN + num_bytes)
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.bytes = _map(self._file, ALIGN + num_bytes)
        except BaseException:
            os.close(self._file)
            raise
        self.bytes[:_SECRET] = np.frombuffer(secret, np.uint8)
        self.name = {"host": host_id(), "process": os.getpid(), "file": self._file, "secret": secret.hex()}

    def __del__(self) -> None:
        # Tensors over the memory keep it: it is unmapped with the last of them.
        with suppress(AttributeError, OSError):
            os.close(self._file)


class BorrowedMemory:
    """The memory of one trainer, as a server has it."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()

    def find(self, name: Mapping[str, Any] | None) -> npt.NDArray[np.uint8] | None:
        """The memory of a name, uint8 [bytes], its secret included; None where this process cannot have it.

        Args:
            name: the ``LentMemory.name`` that a trainer sent, or what somebody else made up.
        """
        if not name or name.get("host") != host_id() or not can_lend():
            return None
        secret = str(name.get("secret"))
        if secret not in self._blocks:
            try:
                self._blocks[secret] = _open(int(name["process"]), int(name["file"]), bytes.fromhex(secret))
            except (OSError, KeyError, TypeError, ValueError) as error:
                logger.debug("reader: memory that a trainer lends cannot be opened: %r", error)
                return None
            while len(self._blocks) > _MOST:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(secret)
        return self._blocks[secret]

    def close(self) -> None:
        """Lets go of the memory."""
        self._blocks.clear()


def _open(process: int, number: int, secret: bytes) -> npt.NDArray[np.uint8]:
    """The memory behind an open file of another process.

    Raises:
        OSError: there is no such file, or it belongs to somebody else.
        ValueError: it is no lent memory, or that of somebody else.
    """
    path = f"/proc/{process}/fd/{number}"
    if not os.readlink(path).startswith(f"/memfd:{_NAME}"):  # before it is opened: opening some files has effects
        raise ValueError("another file")
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink or not seals & fcntl.F_SEAL_SHRINK:
            raise ValueError("memory that could get smaller")
        memory = _map(file, status.st_size)
    finally:
        os.close(file)
    if len(secret) != _SECRET or not secrets.compare_digest(memory[:_SECRET].tobytes(), secret):
        raise ValueError("other memory")
    return memory


def _map(file: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    """The memory of an open file, uint8 [num_bytes]. Python's own mmap would keep a second file open for each."""
    return torch.from_file(f"/proc/self/fd/{file}", shared=True, size=num_bytes, dtype=torch.uint8).numpy()
