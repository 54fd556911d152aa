"""A service from its start to its end: it listens, says where, changes its model when told to, and ends gracefully."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from recd_dist.errors import ConfigError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import write_whole
from recd_dist.job.serve_options import ServeConfig, check_serving
from recd_dist.reader.tier.server_access import ServerAccess
from recd_dist.reader.tier.server_address import Address
from recd_dist.serve.access_guard import AccessGuard
from recd_dist.serve.http_connection import HttpConnection
from recd_dist.serve.http_service import Service, application
from recd_dist.serve.model_watch import watch_model
from recd_dist.serve.refused import RefusedError
from recd_dist.serve.scorer import Scorer
from recd_dist.serve.service_metrics import ServiceMetrics
from recd_dist.serve.user_rows import UserRows

if TYPE_CHECKING:
    from recd_dist.serve.flight_scoring import FlightScoring as FlightServer

logger = logging.getLogger(__name__)

WORKER: Sequence[str] = (sys.executable, "-m", "recd_dist.serve.export_worker")
"""The command of a worker."""

_BACKLOG, _KEEP_ALIVE_S = 2048, 75
_MIB = 1 << 20


@dataclass(frozen=True)
class Listening:
    """Where a service listens, and who may ask.

    Attributes:
        http: the address of HTTP; port 0 chooses a free one.
        access: token and certificate.
        flight: the address of Arrow Flight; None: not at all.
        announce: the file into which the addresses are written.
        command: starts a worker; the number of its socket is added.
    """

    http: Address
    access: ServerAccess
    flight: Address | None = None
    announce: Path | None = None
    command: Sequence[str] = field(default_factory=lambda: WORKER)


class _Server(uvicorn.Server):
    """uvicorn, without its own way with signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the service."""
        yield


def serve(config: ServeConfig, listening: Listening, report: Callable[[str], None]) -> int:
    """Serves until SIGTERM or Ctrl-C.

    Args:
        config: model, workers and limits.
        listening: where, and for whom.
        report: takes the one line that says that it is ready.

    Returns:
        0.

    Raises:
        ConfigError: the model cannot be loaded, an address cannot be listened at, or strangers could come in.
    """
    check_serving(config)
    for address in (listening.http, listening.flight):
        if address is not None and (warning := listening.access.check(address)):
            logger.warning("serve: %s", warning)
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(_serve(config, listening, report))


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(config: ServeConfig, listening: Listening, report: Callable[[str], None]) -> int:
    _allow_connections()
    bound = _bind(listening.http)
    metrics, token = ServiceMetrics(), listening.access.token()
    scorer = Scorer(config, listening.command, metrics)
    rows = UserRows(round(config.user_cache_mib * _MIB))
    service = Service(scorer, metrics, config, rows, config.model, token is not None)
    server = _server(service, listening, token)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    answering = asyncio.create_task(server.serve(sockets=[bound]))  # that it lives, while the model is loaded
    flight: FlightServer | None = None
    changing: list[asyncio.Task[None]] = []
    try:
        if not await _until(scorer.start(config.model), ending):
            return 0
        where = {"http": _http_address(bound, listening)}
        if listening.flight is not None:
            from recd_dist.serve.flight_scoring import FlightScoring

            flight = FlightScoring(listening.flight, listening.access, service, asyncio.get_running_loop())
            where["flight"] = str(flight.address)
        changing = _changes(service)
        if listening.announce is not None:
            _announce(listening.announce, where)
        model = scorer.model
        report(f"recd serve: ready at {' and '.join(where.values())}: {model.name}, step {model.step}")
        await asyncio.wait({answering, asyncio.create_task(ending.wait())}, return_when=asyncio.FIRST_COMPLETED)
        logger.info("serve: ending; %d requests wait", len(scorer))
    finally:
        scorer.is_draining = server.should_exit = True
        for task in changing:
            task.cancel()
        await answering
        if flight is not None:
            await asyncio.to_thread(flight.shutdown)
        await scorer.close(config.drain_s)
        if listening.announce is not None:
            listening.announce.unlink(missing_ok=True)
    return 0


async def _until(work: Coroutine[Any, Any, object], ending: asyncio.Event) -> bool:
    """Waits for some work, and says whether it was done before the end came."""
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(ending.wait())
    await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if not task.done():
        task.cancel()
        return False
    await task
    return True


def _server(service: Service, listening: Listening, token: str | None) -> _Server:
    """What speaks HTTP."""
    access = listening.access
    guarded = AccessGuard(application(service), token, listening.http.is_loopback)
    return _Server(
        uvicorn.Config(
            guarded,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(service.config.drain_s)),
            ssl_certfile=access.cert,
            ssl_keyfile=access.key,
        )
    )


def _allow_connections() -> None:
    """As many open files as the system grants: often it grants 1,024 at first, and each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _bind(address: Address) -> socket.socket:
    """Takes the address, so that a port which is not free is said before a model is loaded."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"--listen {address.host}:{address.port}: cannot be listened at ({error.strerror}); choose another port, "
            "or 0 for any"
        ) from error


def _http_address(bound: socket.socket, listening: Listening) -> str:
    host = listening.http.host
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if listening.access.cert else 'http'}://{shown}:{bound.getsockname()[1]}"


def _announce(file: Path, where: dict[str, str]) -> None:
    """Writes the addresses for scripts.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        write_whole(file, json_text({**where, "pid": os.getpid()}) + "\n")
    except OSError as error:
        raise ConfigError(f"--announce {file}: cannot be written ({error.strerror})") from error


def _changes(service: Service) -> list[asyncio.Task[None]]:
    """What changes the model without being asked over the network: SIGHUP, and another export at its place."""
    wish, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, wish.set)

    async def reload_on_signal() -> None:
        while True:
            await wish.wait()
            wish.clear()
            with contextlib.suppress(RefusedError):  # which the log has said
                await service.reload(None)

    changes: list[Coroutine[Any, Any, None]] = [reload_on_signal()]
    if service.config.watch_s is not None:
        changes.append(watch_model(service, service.config.watch_s))
    return [loop.create_task(change) for change in changes]
