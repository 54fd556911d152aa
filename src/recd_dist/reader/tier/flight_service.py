"""The Flight service of a server: sessions are opened, tasks answered, counts told.

A call fails only for its token. All else that is wrong is an answer, so that a trainer gets one message, and not the
words of a network library around it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
from pyarrow import flight

from recd_dist import __version__
from recd_dist.errors import ConfigError, UserError
from recd_dist.reader.defaults import COMPRESSIONS
from recd_dist.reader.tier.arrow_batches import MAX_BYTES, count_bytes, empty_arrow, to_arrow
from recd_dist.reader.tier.messages import (
    CLOSE,
    OPEN,
    STATS,
    Question,
    WantedTable,
    check_version,
    read_message,
    read_options,
    vocabularies_of,
    write_failure,
    write_message,
)
from recd_dist.reader.tier.served_counts import ServedCounts
from recd_dist.reader.tier.served_tables import ServedTables
from recd_dist.reader.tier.server_access import ServerAccess, TokenCheck
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.tier.sessions import Session, Sessions
from recd_dist.reader.transport import BatchLayout
from recd_dist.reader.worker import Failure, Task
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)


_UNKNOWN = {"unknown": True}
"""What is told where there is no such session."""


@dataclass(frozen=True, eq=False)
class _Reply:
    """The answer to a task.

    Attributes:
        told: what stands beside the batch.
        record: its tensors, unless they were written into memory of the trainer.
        session, task, batch: absent where there is no batch.
    """

    told: Mapping[str, Any]
    record: pa.RecordBatch = field(default_factory=empty_arrow)
    session: Session | None = None
    task: Task | None = None
    batch: Batch | None = None


class FlightService(flight.FlightServerBase):
    """Serves batches from the moment it is made.

    Args:
        address: where to listen.
        tables: the tables that may be read.
        access: who may ask.
        max_sessions: sessions at a time.

    Raises:
        ConfigError: the address cannot be listened at, or strangers could come in.
    """

    def __init__(self, address: Address, tables: ServedTables, access: ServerAccess, max_sessions: int) -> None:
        self._tables, self.sessions = tables, Sessions(max_sessions)
        token, certificates = access.token(), access.certificates()
        listening = Address(address.host, address.port, bool(certificates))
        try:
            super().__init__(
                str(listening),
                tls_certificates=certificates,
                middleware={"token": TokenCheck(token)} if token is not None else None,
            )
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(
                f"--listen {address.host}:{address.port}: cannot be listened at, perhaps another program does; choose "
                "another port, or 0 for any"
            ) from error
        self.address = Address(address.host, self.port, listening.tls)

    def do_action(self, _context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """Opens or closes a session, or tells what was served."""
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            OPEN: self._open,
            CLOSE: self._close,
            STATS: self._tell,
        }
        if action.type not in answers:
            return iter([write_message({"failure": ["ConfigError", f"no action '{action.type}'"]})])
        answer = _answer(lambda: _Reply(answers[action.type](read_message(action.body.to_pybytes()))))
        return iter([write_message(answer.told)])

    def _open(self, opening: dict[str, Any]) -> dict[str, Any]:
        check_version(opening)
        if (compression := opening["compression"]) not in COMPRESSIONS:
            raise ConfigError(f"compression {compression}: the server knows {', '.join(COMPRESSIONS)}")
        table = self._tables.find(WantedTable.from_json(opening["table"]))
        for file in vocabularies_of(opening):
            self._tables.require_file(file)
        options = read_options(opening, table)

        def make(total: ServedCounts) -> Session:
            return Session(options, str(opening["client"])[:200], compression, total)

        name = self.sessions.open(make)
        session = self.sessions.find(name)
        return {"session": name, "near": session is not None and session.memory.find(opening["block"]) is not None}

    def _close(self, message: dict[str, Any]) -> dict[str, Any]:
        self.sessions.close(str(message["session"]))
        return {}

    def _tell(self, _message: dict[str, Any]) -> dict[str, Any]:
        return {
            "address": str(self.address),
            "version": __version__,
            "tables": self._tables.names,
            "max_sessions": self.sessions.most,
            "total": self.sessions.total.to_json(),
            "sessions": self.sessions.to_json(),
        }

    def do_get(self, _context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Answers tasks with their batches, one after the other.

        A stream of Flight has one schema: it ends before a batch with other tensors, and the trainer asks again.
        """
        replies = self._replies(ticket.ticket)
        first = next(replies)
        schema, kind = first.record.schema, "none" if first.session is None else first.session.compression

        def send() -> Iterator[tuple[pa.RecordBatch, bytes]]:
            for reply in chain((first,), replies):
                if reply.record.schema != schema:
                    return
                start = time.monotonic()
                if reply.session is not None and reply.task is not None:
                    reply.session.give(reply.task)
                yield reply.record, write_message(reply.told)
                if reply.session is not None and reply.batch is not None:
                    reply.session.count_sent(reply.batch, time.monotonic() - start)

        options = pa.ipc.IpcWriteOptions(compression=None if kind == "none" else kind, use_threads=False)
        return flight.GeneratorStream(schema, send(), options=options)

    def _replies(self, message: bytes) -> "Iterator[_Reply]":
        """The answers to a question; after a failure there is none."""
        found: list[tuple[Session, Question]] = []
        reply = _answer(lambda: self._understand(read_message(message), found))
        if not found:
            yield reply
            return
        session, asked = found[0]
        call, tasks = session.begin_call(), (*asked.tasks, *asked.following)
        for number in range(len(asked.tasks)):
            reply = _answer(partial(_read, session, call, tasks[number:], asked.blocks[number:]))
            yield reply
            if reply.batch is None:
                return

    def _understand(self, message: dict[str, Any], found: "list[tuple[Session, Question]]") -> "_Reply":
        """Adds a question, and the session that answers it, to a list; or says what there is in their place."""
        session = self.sessions.find(str(message["session"]))
        if session is None or session.is_closed:
            return _Reply(_UNKNOWN)
        found.append((session, Question.from_json(message, session.options.table.manifest.num_samples)))
        return _Reply({})

    def end(self) -> None:
        """Lets what is being answered finish, refuses what comes, and closes all sessions."""
        self.shutdown()
        self.sessions.close_all()


def _answer(answer: Callable[[], _Reply]) -> _Reply:
    """An answer, or what is wrong with the question."""
    try:
        return answer()
    except UserError as error:
        return _Reply({"failure": write_failure(Failure(type(error), str(error)))})
    except Exception as error:
        logger.exception("reader: a message that cannot be read, or a bug")
        return _Reply({"failure": ["ConfigError", f"the server could not answer ({error!r}); its log says more"]})


def _read(session: Session, call: int, tasks: Sequence[Task], blocks: Sequence[Mapping[str, Any] | None]) -> _Reply:
    """Reads the first of some tasks."""
    try:
        result, place = session.answer(tasks, blocks, call)
    except (CancelledError, RuntimeError) as error:
        if session.is_closed or isinstance(error, CancelledError):  # meanwhile; or nobody waits for this call any more
            return _Reply(_UNKNOWN)
        raise
    batch, told = result.batch, {"counts": result.counts, "spent_ns": result.spent_ns}
    if isinstance(batch, Failure):
        return _Reply({"failure": write_failure(batch), **told})
    if not isinstance(batch, Batch):
        raise TypeError(f"a reader's {type(batch).__name__}")
    if place is None and (size := count_bytes(batch)) > MAX_BYTES:
        raise ConfigError(f"a batch of {size:,} bytes, the network carries {MAX_BYTES:,}; lower batch_size")
    told |= {"layout": (place or BatchLayout.of(batch)).to_json(), "near": place is not None}
    return _Reply(told, to_arrow(batch) if place is None else empty_arrow(), session, tasks[0], batch)
