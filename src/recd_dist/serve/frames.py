"""Frames between the front of a service and its workers: a header as JSON and some bytes, over a socket pair.

::

    4 bytes         8 bytes        header                            parts, one behind the other
    bytes of header bytes of parts {"kind": "score", "sizes": [7, 5]} .......  .....

A worker computes and may block, the front may not: so one side reads and writes a plain socket, and the other asyncio's
streams. Nothing is unpickled on either side.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

_LENGTHS = struct.Struct("<IQ")

Bytes = bytes | memoryview
"""A part of a frame."""


@dataclass(frozen=True)
class Frame:
    """What one side tells the other.

    Attributes:
        header: a mapping of plain values; ``kind`` says what it is about.
        parts: bytes that belong to it; arriving ones are views of one block of memory.
    """

    header: Mapping[str, Any]
    parts: Sequence[Bytes] = ()

    @property
    def kind(self) -> str:
        """What it is about."""
        return str(self.header["kind"])

    def to_bytes(self) -> list[Bytes]:
        """The pieces to send, one behind the other."""
        sizes = [len(part) for part in self.parts]
        header = orjson.dumps({**self.header, "sizes": sizes})
        return [_LENGTHS.pack(len(header), sum(sizes)) + header, *self.parts]


def _frame(header: bytes, body: Bytes) -> Frame:
    read = orjson.loads(header)
    view, parts, start = memoryview(body), [], 0
    for size in read.pop("sizes"):
        parts.append(view[start : start + size])
        start += size
    return Frame(read, parts)


async def read_frame(stream: asyncio.StreamReader) -> Frame:
    """The next frame from a worker.

    Raises:
        asyncio.IncompleteReadError, ConnectionError: the worker has ended.
    """
    header_size, body_size = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    header = await stream.readexactly(header_size)
    return _frame(header, await stream.readexactly(body_size))


def receive_frame(connection: socket.socket) -> Frame | None:
    """The next frame from the front; None where the front has ended."""
    try:
        lengths = _receive(connection, _LENGTHS.size)
        if lengths is None:
            return None
        header_size, body_size = _LENGTHS.unpack(lengths)
        header, body = _receive(connection, header_size), _receive(connection, body_size)
    except ConnectionError:
        return None
    return None if header is None or body is None else _frame(bytes(header), body)


def send_frame(connection: socket.socket, frame: Frame) -> None:
    """Sends a frame to the front.

    Raises:
        ConnectionError: the front has ended.
    """
    for piece in frame.to_bytes():
        connection.sendall(piece)


def _receive(connection: socket.socket, size: int) -> memoryview | None:
    view, filled = memoryview(bytearray(size)), 0
    while filled < size:
        if not (num := connection.recv_into(view[filled:])):
            return None
        filled += num
    return view
