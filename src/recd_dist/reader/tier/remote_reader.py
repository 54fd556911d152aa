"""Batches from servers: what a loader reads with in place of worker processes.

The loader takes the streams in turn, as torch takes its workers, so that batches come in the order of the deal,
whichever server answers first.
"""

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from recd_dist.reader.tier.blocks import ArrivingBlocks
from recd_dist.reader.tier.messages import write_opening
from recd_dist.reader.tier.remote_stream import RemoteStream
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.server_choice import ServerChoice
from recd_dist.reader.tier.server_connection import ServerConnection
from recd_dist.reader.tier.servers import Servers
from recd_dist.reader.worker import ReaderOptions, Result, Task


class RemoteReader:
    """Asks the servers of a job for one rank; sessions stay open from epoch to epoch.

    Args:
        servers: the servers.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers, self._choice = servers, ServerChoice(servers.find)
        self._connections: dict[int, dict[Address, ServerConnection]] = {}
        self._streams: list[RemoteStream] = []
        self._blocks: ArrivingBlocks | None = None

    def num_streams(self, num_workers: int) -> int:
        """Streams of a rank, each dealt the share of a worker.

        Args:
            num_workers: workers that are wanted; 0 wants what is usual.
        """
        return self._servers.num_streams(num_workers)

    @contextmanager
    def results(
        self, options: ReaderOptions, tasks: Sequence[Iterator[Task]], prefetch: int, pin_memory: bool
    ) -> Iterator[Iterator[Result]]:
        """The results of an epoch's tasks.

        Args:
            options: what to read and how.
            tasks: for each stream its tasks.
            prefetch: batches of each stream that may wait to be taken.
            pin_memory: put batches into page-locked memory.
        """
        self._end_streams()  # of an iteration that was left early and is still referred to
        if self._blocks is None:
            most = len(tasks) * (prefetch + 2)
            self._blocks = ArrivingBlocks(pin_memory, most, self._servers.shared_memory)
        for number, of_stream in enumerate(tasks):
            client = f"rank {self._servers.rank}, stream {number}, {socket.gethostname()}"
            opening = partial(write_opening, options, client, self._servers.compression, self._blocks.opening)
            home = self._servers.rank * len(tasks) + number
            kept = self._connections.pop(number, {})
            self._streams.append(
                RemoteStream(self._servers, self._choice, home, opening, of_stream, prefetch, self._blocks, kept)
            )
        try:
            yield _take_in_turn(list(self._streams))
        finally:
            self._end_streams()

    def _end_streams(self) -> None:
        """Ends the threads of an iteration; their connections stay."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.stop()
        for number, stream in enumerate(streams):
            self._connections[number] = stream.join()

    def close(self) -> None:
        """Leaves the servers."""
        self._end_streams()
        for connections in self._connections.values():
            for connection in connections.values():
                connection.close()
        self._connections.clear()


def _take_in_turn(streams: Sequence[RemoteStream]) -> Iterator[Result]:
    """The results of streams, one of each in turn, until the first has no more: the others have none then, too."""
    for stream in itertools.cycle(streams):
        if (result := stream.take()) is None:
            return
        yield result
