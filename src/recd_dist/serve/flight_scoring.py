"""The service over Arrow Flight: record batches of candidates with their user rows in, record batches of scores out.

One exchange under the command ``score`` carries any number of batches; each is answered by one batch, a column for each
task. A batch has one of two forms:

::

    flat   region history item          unique rows and an inverse   user      item        dictionary of user
           3      [7, 8]  5                                          0         5           0: {region 3, history [7, 8]}
           3      [7, 8]  6                                          0         6           1: {region 4, history []}
           4      []      5                                          1         5

In a flat batch neighbours with an equal user row are one request. In the other form, an IKJT in Arrow's words, the
column ``user`` is a dictionary array of structs: its dictionary holds the unique rows, its indices are the inverse.
Requests go the same way as those of HTTP: one queue, one limit, one batch of a worker.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.server_access import ServerAccess, TokenCheck
from recd_dist.reader.tier.server_address import Address
from recd_dist.serve.body_columns import USER, RequestColumns, check_lists, check_number, write_batch
from recd_dist.serve.http_service import Service
from recd_dist.serve.refused import BAD_REQUEST, DEADLINE, NOT_READY, QUEUE_FULL, SCORING_FAILED, RefusedError
from recd_dist.serve.waiting_requests import Scored

SCORE, MODEL = b"score", "model"
"""The command of an exchange, and the action that describes the model."""

_SLACK_S = 5.0
_MAX_REQUESTS = 64
"""Requests of one batch that are in the queue at a time."""
_MOST_TRIES = 3
"""How often a batch is scored, so that all of it comes from one model."""


@dataclass(frozen=True)
class _Part:
    """A request of a batch.

    Attributes:
        columns: the request.
        rows: the places of its candidates in the batch.
    """

    columns: RequestColumns
    rows: np.ndarray


class FlightScoring(flight.FlightServerBase):
    """Serves from the moment it is made.

    Args:
        address: where to listen.
        access: who may ask.
        service: scores.
        loop: the loop of the service; calls of Flight come in threads of their own.

    Raises:
        ConfigError: the address cannot be listened at.
    """

    def __init__(
        self, address: Address, access: ServerAccess, service: Service, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._service, self._loop = service, loop
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
                f"--flight {address.host}:{address.port}: cannot be listened at, perhaps another program does; choose "
                "another port, or 0 for any"
            ) from error
        self.address = Address(address.host, self.port, listening.tls)

    def do_exchange(
        self,
        _context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        """Answers batches of candidates with batches of scores."""
        if descriptor.command != SCORE:
            raise pa.ArrowInvalid(f"command {descriptor.command!r}: this service knows {SCORE!r} alone")
        has_begun = False
        for chunk in reader:
            if chunk.data is None:
                continue
            scores, told = self._answer(chunk.data)
            if not has_begun:
                writer.begin(scores.schema)
                has_begun = True
            writer.write_with_metadata(scores, orjson.dumps({"model": told}))

    def do_action(self, _context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """``model`` describes the model."""
        if action.type != MODEL:
            raise pa.ArrowInvalid(f"action '{action.type}': this service knows '{MODEL}' alone")
        try:
            return iter([orjson.dumps(self._service.scorer.model.to_json())])
        except RefusedError as refused:
            raise _as_flight(refused) from None

    def list_actions(self, _context: flight.ServerCallContext) -> list[tuple[str, str]]:
        """The actions."""
        return [(MODEL, "what the export says of itself, and the features of a request, as JSON")]

    def _answer(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, object]]:
        """Scores of a batch, in its order."""
        start, status = monotonic(), 200
        try:
            batch.validate(full=True)  # offsets and indices of strangers
            check_number(batch.num_rows, batch.num_rows)
            if twice := [name for name, times in Counter(batch.schema.names).items() if times > 1]:
                raise RefusedError(BAD_REQUEST, f"column {twice[0]}: there are several of that name", twice[0])
            is_flat = USER not in batch.schema.names or not pa.types.is_dictionary(batch.schema.field(USER).type)
            parts = self._flat_parts(batch) if is_flat else self._parts(batch)
            waiting = asyncio.run_coroutine_threadsafe(self._score(parts), self._loop)
            scored = waiting.result(self._service.config.timeout_s + _SLACK_S)
        except RefusedError as refused:
            status = refused.status
            raise _as_flight(refused) from None
        except TimeoutError:
            waiting.cancel()
            late = RefusedError(DEADLINE, f"no scores within {self._service.config.timeout_s:g} s; send less at once")
            status = late.status
            raise _as_flight(late) from None
        except Exception as error:
            status = 400 if isinstance(error, pa.ArrowException) else 500
            raise
        finally:
            self._loop.call_soon_threadsafe(self._service.metrics.count_request, "flight", status, monotonic() - start)
        tasks = list(scored[0].model.tasks)
        scores = np.empty((len(tasks), batch.num_rows), np.float32)
        for part, one in zip(parts, scored, strict=True):
            scores[:, part.rows] = one.scores.T
        answer = pa.RecordBatch.from_arrays([pa.array(column) for column in scores], names=tasks)
        return answer, scored[0].model.identity

    async def _score(self, parts: list[_Part]) -> list[Scored]:
        at_once, scorer = asyncio.Semaphore(_MAX_REQUESTS), self._service.scorer

        async def one(part: _Part) -> Scored:
            async with at_once:
                scored = await scorer.score(part.columns, self._service.config.timeout_s)
                self._service.metrics.count_stages(scored.queue_s, scored.compute_s)
                return scored

        for _ in range(_MOST_TRIES):
            scored = await asyncio.gather(*map(one, parts))
            if all(part.model.identity == scored[0].model.identity for part in scored):
                return scored
        raise RefusedError(NOT_READY, "the model was changed while the batch was scored; ask again", None, 1)

    def _flat_parts(self, batch: pa.RecordBatch) -> list[_Part]:
        """The requests of a flat batch: runs of neighbours with equal features of the user."""
        names = [f.name for f in self._service.scorer.model.user]
        users = batch.select([name for name in batch.schema.names if name in names])
        firsts = np.zeros(batch.num_rows, bool)
        firsts[0] = True
        for column in users.columns:
            firsts[1:] |= _differs(column)
        candidates = batch.drop_columns(users.schema.names) if users.num_columns else batch
        return self._requests(candidates, users.take(pa.array(np.flatnonzero(firsts))), np.cumsum(firsts) - 1)

    def _parts(self, batch: pa.RecordBatch) -> list[_Part]:
        """The requests of a batch whose column ``user`` has unique rows and an inverse."""
        column = batch.column(USER)
        if column.null_count or not pa.types.is_struct(column.type.value_type):
            raise RefusedError(BAD_REQUEST, f"column {USER}: has to be a dictionary of structs without nulls", USER)
        users = pa.RecordBatch.from_struct_array(column.dictionary)
        return self._requests(batch.drop_columns([USER]), users, column.indices.to_numpy(zero_copy_only=False))

    def _requests(self, candidates: pa.RecordBatch, users: pa.RecordBatch, rows: np.ndarray) -> list[_Part]:
        limits = self._service.config.limits
        for batch in (candidates, users):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                check_lists(name, column, limits.values)
        order = np.argsort(rows, kind="stable")
        starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
        parts = []
        for places in np.split(order, starts[1:]):
            check_number(len(places), limits.candidates)
            own = candidates.take(pa.array(places))
            user = write_batch(users.slice(int(rows[places[0]]), 1).take(pa.array([0])))
            parts.append(_Part(RequestColumns(user, write_batch(own), len(places)), places))
        return parts


def _differs(column: pa.Array) -> np.ndarray:
    """For each row but the first whether it differs from the one before."""
    before, after = column.slice(0, len(column) - 1), column.slice(1)
    if pa.types.is_null(column.type):
        return np.zeros(len(before), bool)
    if not pa.types.is_nested(column.type):
        equal = pc.equal(before, after)
        both_null = pc.and_(before.is_null(), after.is_null())
        return ~np.asarray(pc.or_(pc.fill_null(equal, False), both_null), bool)
    return np.array([a != b for a, b in zip(before, after, strict=True)], bool)


def _as_flight(refused: RefusedError) -> Exception:
    """A refusal as Flight says it."""
    if refused.code in (QUEUE_FULL, NOT_READY):
        return flight.FlightUnavailableError(str(refused))
    if refused.code == DEADLINE:
        return flight.FlightTimedOutError(str(refused))
    if refused.code == SCORING_FAILED:
        return flight.FlightInternalError(str(refused))
    return pa.ArrowInvalid(str(refused))
