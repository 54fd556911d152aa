"""A connection of HTTP that is closed on a client who does not bring the head of a request to its end.

uvicorn waits without limit for the first request of a connection, and for the rest of its headers, however slowly or
however many come. As many connections as the process may open files would keep everybody else out. The body has its own
time limit, that of the request.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 20.0
"""Seconds from the first byte of a request to the end of its headers."""

HEAD_BYTES = 1 << 16
"""Bytes of a request's line and headers."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's connection, with limits for the head of a request."""

    _limit: asyncio.TimerHandle | None = None
    _head_bytes = -1  # of the head that has begun; negative where none has

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gives a client as long for its first byte as between two requests."""
        super().connection_made(transport)
        self._close_after(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; some of them begin a head, or go on with one."""
        is_between = self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)
        if is_between and self._head_bytes < 0:
            self._head_bytes = 0
            self._close_after(HEAD_S)
        super().data_received(data)
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """Ends the head; from here on the limits are those of the request."""
        self._head_bytes = -1
        self._close_after(None)
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the limit."""
        self._close_after(None)
        super().connection_lost(exc)

    def _close_after(self, seconds: float | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = None if seconds is None else self.loop.call_later(seconds, self.transport.close)
