"""TensorBoard's server behind a token and TLS; ``board_server.py`` starts it.

A browser is shown a form for the token, and keeps a cookie afterwards; other programs send ``Authorization: Bearer``.
The token never stands in an address, since addresses are kept in histories and logs. Without a token only this machine
is served, and only under its own name: a page from elsewhere whose name is made to point here (DNS rebinding) is not.
"""

import argparse
import hmac
import ssl
import sys
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from tensorboard.program import TensorBoard, WerkzeugServer

from recd_dist.metrics.board_secrets import read_token, tls_context

App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""

COOKIE = "recd_board"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_MAX_FORM_BYTES = 4096
_CONNECTION_TIMEOUT_S = 60.0

_FORM = b"""<!doctype html><title>TensorBoard</title>
<form method="post"><label>Token <input name="token" type="password" autofocus></label> <button>Show</button></form>
"""


class Guard:
    """Lets those pass who show the token.

    Args:
        app: what is guarded.
        token: what a reader must show; None serves whoever asks for this machine by its own name.
        is_tls: whether readers come by TLS, so that the cookie is for TLS alone.
    """

    def __init__(self, app: App, token: str | None, is_tls: bool) -> None:
        self._app, self._token, self._is_tls = app, token, is_tls

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answers a request, or asks for the token."""
        if self._token is None:
            name = environ.get("HTTP_HOST", "").lower()
            name = name if name.endswith("]") else name.rpartition(":")[0] or name
            if name in ("", *LOCAL_NAMES):
                return self._app(environ, start)
            return _answer(start, "403 Forbidden", b"Ask for localhost, or start it with --token-file.\n", "text/plain")
        if self._is_known(environ):
            return self._app(environ, start)
        if environ.get("REQUEST_METHOD") == "POST" and self._is_token(_posted_token(environ)):
            settings = f"HttpOnly; SameSite=Strict; Path=/{'; Secure' if self._is_tls else ''}"
            return _answer(
                start,
                "303 See Other",
                b"",
                "text/plain",
                ("Location", "/"),
                ("Set-Cookie", f"{COOKIE}={self._cookie()}; {settings}"),
            )
        return _answer(start, "401 Unauthorized", _FORM, "text/html", ("WWW-Authenticate", "Bearer"))

    def _is_known(self, environ: dict[str, Any]) -> bool:
        kind, _, shown = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(shown.strip()):
            return True
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie().encode())

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), str(self._token).encode())

    def _cookie(self) -> str:
        """What a browser keeps: it follows from the token, and the token does not follow from it."""
        return hmac.digest(str(self._token).encode(), COOKIE.encode(), "sha256").hex()


def _posted_token(environ: dict[str, Any]) -> str:
    try:
        length = min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_FORM_BYTES)
    except ValueError:
        return ""
    fields = parse_qs(environ["wsgi.input"].read(length).decode(errors="replace"))
    return fields.get("token", [""])[0].strip()


def _answer(start: Callable[..., Any], status: str, body: bytes, kind: str, *headers: tuple[str, str]) -> list[bytes]:
    fixed = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start(status, [*fixed, *headers])
    return [body]


class GuardedServer(WerkzeugServer):
    """TensorBoard's own server, guarded.

    Args:
        wsgi_app: TensorBoard.
        flags: TensorBoard's flags.
        token: what a reader must show, or None.
        tls: the TLS settings, or None for plain HTTP.
    """

    def __init__(self, wsgi_app: App, flags: Any, token: str | None, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        super().__init__(Guard(wsgi_app, token, tls is not None), flags)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in its own thread: one that begins TLS and falls silent holds up nobody else."""
        request.settimeout(_CONNECTION_TIMEOUT_S)
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        try:
            with self._tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except (ssl.SSLError, ConnectionError, TimeoutError):  # plain HTTP, a scanner, a browser that has left
            pass

    def get_url(self) -> str:
        """The address to open."""
        url = str(super().get_url())
        return url if self._tls is None else url.replace("http://", "https://", 1)


def main(argv: list[str]) -> int:
    """Serves until a signal comes.

    Args:
        argv: ``--token-file``, ``--cert``, ``--key``, and the flags of TensorBoard.

    Returns:
        TensorBoard's exit code.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--token-file", "--cert", "--key"):
        parser.add_argument(name, type=Path)
    options, flags = parser.parse_known_args(argv)
    token = read_token(options.token_file) if options.token_file else None
    tls = tls_context(options.cert, options.key) if options.cert else None
    board = TensorBoard(server_class=lambda app, given: GuardedServer(app, given, token, tls))
    board.configure(["tensorboard", *flags])
    if token is not None:
        sys.stderr.write(f"recd: the board asks for the token in {options.token_file}\n")
    return int(board.main())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
