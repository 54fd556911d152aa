"""The Flight service of a server: sessions are opened, tasks answered, counts told.

A call fails only for its token. All else that is wrong is an answer, so that a trainer gets one message, and not the
words of a network library around it.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
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
    WantedTable,
    check_version,
    read_message,
    read_options,
    read_task,
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
from recd_dist.reader.worker import Failure
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)


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
        return iter([write_message(_answer(lambda: answers[action.type](read_message(action.body.to_pybytes()))))])

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

        return {"session": self.sessions.open(make)}

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
        """Answers a task with its batch."""
        batch: list[tuple[Session, Batch]] = []
        told = _answer(lambda: self._read(read_message(ticket.ticket), batch))
        if not batch:
            return _stream(empty_arrow(), told)
        return _stream(to_arrow(batch[0][1]), told, *batch[0])

    def _read(self, message: dict[str, Any], found: list[tuple[Session, Batch]]) -> dict[str, Any]:
        """What is told beside the batch of a task, which is added to a list."""
        session = self.sessions.find(str(message["session"]))
        if session is None or session.is_closed:
            return {"unknown": True}
        num_samples = session.options.table.manifest.num_samples
        task, following = (read_task(message[name], num_samples) for name in ("task", "following"))
        if task is None:
            raise ValueError("no task")
        try:
            result = session.answer(task, following)
        except (CancelledError, RuntimeError):
            if session.is_closed:  # meanwhile
                return {"unknown": True}
            raise
        batch, told = result.batch, {"counts": result.counts, "spent_ns": result.spent_ns}
        if isinstance(batch, Failure):
            return {"failure": write_failure(batch), **told}
        if not isinstance(batch, Batch):
            raise TypeError(f"a reader's {type(batch).__name__}")
        if (size := count_bytes(batch)) > MAX_BYTES:
            raise ConfigError(f"a batch of {size:,} bytes, the network carries {MAX_BYTES:,}; lower batch_size")
        found.append((session, batch))
        return {"layout": BatchLayout.of(batch).to_json(), **told}

    def end(self) -> None:
        """Lets what is being answered finish, refuses what comes, and closes all sessions."""
        self.shutdown()
        self.sessions.close_all()


def _answer(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """An answer, or what is wrong with the question."""
    try:
        return answer()
    except UserError as error:
        return {"failure": write_failure(Failure(type(error), str(error)))}
    except Exception as error:
        logger.exception("reader: a message that cannot be read, or a bug")
        return {"failure": ["ConfigError", f"the server could not answer ({error!r}); its log says more"]}


def _stream(
    record: pa.RecordBatch, told: dict[str, Any], session: Session | None = None, batch: Batch | None = None
) -> flight.GeneratorStream:
    """One record batch with a message beside it."""

    def send() -> Iterator[tuple[pa.RecordBatch, bytes]]:
        start = time.monotonic()
        yield record, write_message(told)
        if session is not None and batch is not None:
            session.count_sent(batch, time.monotonic() - start)

    kind = "none" if session is None else session.compression
    options = pa.ipc.IpcWriteOptions(compression=None if kind == "none" else kind, use_threads=False)
    return flight.GeneratorStream(record.schema, send(), options=options)
