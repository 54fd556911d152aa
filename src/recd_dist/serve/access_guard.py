"""Who may ask a service over HTTP: those who show the token; on loopback no page of a browser that is from elsewhere.

A service on loopback without a token answers every program of the machine. A browser is one of them, and runs pages of
strangers: those say where they come from (Origin), or reach this machine under a name of theirs (Host).
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from recd_dist.serve.refused import FORBIDDEN, UNAUTHORIZED, RefusedError

OPEN_PATHS = ("/health/live", "/health/ready", "/docs", "/swagger/")
"""What is answered without the token: whether it lives, and the page's program, which asks for the token itself."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AccessGuard:
    """Stands before an application.

    Args:
        app: the application.
        token: what callers must show; None: nothing.
        is_loopback: whether it listens on loopback alone.
    """

    def __init__(self, app: App, token: str | None, is_loopback: bool) -> None:
        self._app, self._is_loopback = app, is_loopback
        self._wanted = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] == "http" and (refused := self._look(scope)) is not None:
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            headers += [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
            await send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "http.response.body", "body": orjson.dumps(refused.to_json())})
            return
        await self._app(scope, receive, send)

    def _look(self, scope: Scope) -> RefusedError | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            return RefusedError(FORBIDDEN, f"Origin {origin[:100]}: pages from elsewhere may not ask")
        if self._is_loopback and host and not is_loopback_name(host):  # every browser says it, HTTP/1.0 need not
            return RefusedError(FORBIDDEN, f"Host {host[:100]}: this service answers to localhost alone")
        if self._wanted is None or str(scope["path"]).startswith(OPEN_PATHS):
            return None
        if hmac.compare_digest(headers.get(b"authorization", b""), self._wanted):
            return None
        return RefusedError(UNAUTHORIZED, "the token is missing or wrong; send the header Authorization: Bearer TOKEN")


def is_loopback_name(host: str) -> bool:
    """Whether the header Host names this machine's loopback; a port may stand behind it."""
    name = host.rpartition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
