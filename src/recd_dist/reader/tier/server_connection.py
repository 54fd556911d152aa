"""A trainer's connection to one server, for one stream: a session is opened, and each call asks for some tasks.

A call has a time limit, so that a server that hangs is as good as one that is gone. A batch arrives whole, or not at
all. On one host batches arrive in memory that the trainer lends, and only the answers through the network.
"""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pyarrow as pa
from pyarrow import flight

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.arrow_batches import MAX_BYTES, fill_block
from recd_dist.reader.tier.blocks import ArrivingBlocks, Block, Blocks
from recd_dist.reader.tier.messages import (
    CLOSE,
    OPEN,
    STATS,
    Question,
    read_failure,
    read_message,
    write_message,
)
from recd_dist.reader.tier.server_access import TrainerAccess
from recd_dist.reader.tier.server_address import TLS, Address
from recd_dist.reader.transport import BatchLayout
from recd_dist.reader.worker import Result, Task

_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own: streams do not share one
]
_CONNECT_S = 5.0
_REASON = re.compile(r"message: (.{1,160}?)\.? gRPC client debug context")
"""What an error of Flight says, without what it says about itself."""


class ServerLost(Exception):
    """A server has not answered; another one, or the same one later, can."""


class ServerConnection:
    """Asks one server.

    Args:
        address: where it listens.
        access: what is shown to it, and whom to trust.
        call_s: what a call may take.

    Raises:
        ConfigError: a file of token or certificates cannot be used.
    """

    def __init__(self, address: Address, access: TrainerAccess, call_s: float) -> None:
        self.address, self._access = address, access
        self._options = flight.FlightCallOptions(timeout=call_s, headers=access.headers())
        roots = access.certificates() if address.tls else None
        self._client = flight.FlightClient(str(address), tls_root_certs=roots, generic_options=_CHANNEL)
        self._session: str | None = None
        self._is_near = False
        self._block_bytes = 0  # of the largest batch so far
        self._lent: dict[Task, Block] = {}

    def read(
        self,
        opening: Callable[[], Mapping[str, Any]],
        tasks: Sequence[Task],
        following: Sequence[Task],
        blocks: ArrivingBlocks,
    ) -> Iterator[Result]:
        """Asks for the batches of some tasks, and gives them as they come; perhaps the first of them only.

        Args:
            opening: makes the message that opens a session, where none is open.
            tasks: what to read.
            following: what this stream will ask for next.
            blocks: memory for the batches.

        Raises:
            ConfigError: the server refuses this trainer, whatever it asks for.
            ServerLost: there is no answer.
        """
        if self._session is None:
            told = self._ask(OPEN, write_message(opening()))
            self._session, self._is_near = str(told["session"]), bool(told.get("near"))
        lent = self._lend([*tasks, *following], blocks.near)
        names = tuple(None if block is None else block.name for block in lent)
        asked = Question(self._session, tuple(tasks), tuple(following), names)
        num_answers, is_over = 0, False
        reader: flight.FlightStreamReader | None = None
        try:
            reader = self._client.do_get(flight.Ticket(asked.to_bytes()), self._options)
            for task in tasks:
                chunk = reader.read_chunk()
                told = read_message(chunk.app_metadata.to_pybytes())
                result = self._receive(told, chunk.data, task, blocks)
                num_answers += 1
                if num_answers == len(tasks):
                    reader.read_all()  # the end of the call: nothing follows
                    is_over = True
                yield result
        except StopIteration as error:
            is_over = True
            if not num_answers:
                raise ServerLost("it answered nothing") from error
        except (flight.FlightError, pa.ArrowException, OSError) as error:
            if not (num_answers and isinstance(error, flight.FlightTimedOutError)):  # slow, and there
                raise self._lost(error) from error
        finally:
            if not is_over:
                self._lose(lent)
                if reader is not None:
                    reader.cancel()

    def _lend(self, tasks: Sequence[Task], blocks: Blocks | None) -> list[Block | None]:
        """For each task the block that is lent for it, the same in each call; None where the server finds none."""
        if blocks is None or not self._is_near or not self._block_bytes:
            return [None] * len(tasks)
        for task in self._lent.keys() - set(tasks):
            self._lent.pop(task).lose()
        self._lent = {task: self._lent.get(task) or blocks.take(self._block_bytes) for task in tasks}
        return list(self._lent.values())

    def _lose(self, blocks: Sequence[Block | None]) -> None:
        """Gives up the blocks of a call that failed: the server may write into them at any time."""
        for block in blocks:
            if block is not None:
                block.lose()
        self._lent.clear()

    def _receive(self, told: dict[str, Any], record: pa.RecordBatch, task: Task, blocks: ArrivingBlocks) -> Result:
        """What the server answers to a task."""
        lent = self._lent.pop(task, None)
        if told.get("unknown"):
            self._session = None
            raise ServerLost("it has started anew")
        counts, spent_ns = told.get("counts", {}), told.get("spent_ns", {})
        if "failure" in told:
            return Result(read_failure(told["failure"]), counts, spent_ns, monotonic_ns())
        try:
            layout = BatchLayout.from_json(told["layout"])
            if layout.num_bytes > 2 * MAX_BYTES:
                raise ValueError(f"a batch of {layout.num_bytes:,} bytes")
            if layout.batch_size != (wanted := sum(end - start for start, end in task.samples)):
                raise ValueError(f"{layout.batch_size} samples, {wanted} were asked for")
            self._block_bytes = max(self._block_bytes, layout.num_bytes)
            if not told["near"]:
                block = blocks.far.take(layout.num_bytes)
                fill_block(block.tensor, layout, record)
            elif lent is None or layout.num_bytes > len(lent.tensor):
                raise ValueError("a batch in memory that was not lent")
            else:
                block = lent
            packed = blocks.packed(block, layout)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.address}: no batch as this version sends it ({error!r})") from error
        return Result(packed, counts, spent_ns, monotonic_ns())

    def stats(self) -> dict[str, Any]:
        """What the server tells of itself.

        Raises:
            ConfigError, ServerLost: it refuses, or does not answer.
        """
        return self._ask(STATS, write_message({}))

    def _ask(self, action: str, message: bytes) -> dict[str, Any]:
        """The answer to an action.

        Raises:
            ConfigError: the server refuses.
            ServerLost: there is no answer.
        """
        try:
            answers = list(self._client.do_action(flight.Action(action, message), self._options))
            told = read_message(answers[0].body.to_pybytes())
        except (flight.FlightError, pa.ArrowException, OSError, IndexError) as error:
            raise self._lost(error) from error
        if "failure" in told:
            failure = read_failure(told["failure"])
            raise failure.error(f"{self.address}: {failure.message}")
        return told

    def _lost(self, error: Exception) -> Exception:
        """What an error of the network library means."""
        if isinstance(error, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
            return ConfigError(
                f"{self.address}: refuses {self._access.token_text}; give the server's own: reader.token_file=FILE"
            )
        if isinstance(error, flight.FlightTimedOutError):
            return ServerLost(f"no answer within {self._options.timeout:g} s")
        said = _REASON.search(str(error))
        return ServerLost(said[1] if said else str(error).splitlines()[0][:160])

    def close(self) -> None:
        """Leaves the session, if the server is there to hear it."""
        if self._session is not None:
            quick = flight.FlightCallOptions(timeout=1.0, headers=self._access.headers())
            action = flight.Action(CLOSE, write_message({"session": self._session}))
            with suppress(flight.FlightError, pa.ArrowException, OSError):  # the server closes what is idle
                list(self._client.do_action(action, quick))
        self._session = None
        self._client.close()


def find_reason(address: Address, tls_ca: Path | None) -> str:
    """Why a server that has never answered does not, in words of its own; asked without Flight.

    Args:
        address: where it should listen.
        tls_ca: the certificates that it must be signed by.

    Raises:
        ConfigError: it is there and will never answer: its certificate is not trusted, or one side speaks TLS alone.
    """
    try:
        with socket.create_connection((address.host, address.port), _CONNECT_S) as plain:
            if not address.tls:
                return _refuse_tls(address, plain)
            context = ssl.create_default_context(cafile=None if tls_ca is None else str(tls_ca))
            with context.wrap_socket(plain, server_hostname=address.host):
                return "it listens, and does not answer"
    except ssl.SSLCertVerificationError as error:
        trusted = "the system's certificates" if tls_ca is None else f"reader.tls_ca={tls_ca}"
        raise ConfigError(
            f"{address}: its certificate is not trusted by {trusted} ({error.verify_message}); name the certificate, "
            "or its authority's, that has this host's name: reader.tls_ca=FILE"
        ) from error
    except (ssl.SSLError, ConnectionResetError) as error:
        if address.tls and not isinstance(error, ConnectionResetError):
            raise ConfigError(f"{address}: speaks no TLS; write {Address(address.host, address.port)}") from error
        return "the connection was reset"
    except OSError as error:
        return error.strerror or str(error)


def _refuse_tls(address: Address, plain: socket.socket) -> str:
    """Says where a server speaks TLS that is asked without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent over it
    try:
        with context.wrap_socket(plain):
            pass
    except OSError:
        return "it listens, and does not answer"
    raise ConfigError(f"{address}: speaks TLS; write {TLS}://{str(address).partition('://')[2]}")
