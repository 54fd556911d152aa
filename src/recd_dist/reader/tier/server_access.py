"""Who may ask a server for batches, and whom a trainer trusts: a bearer token, and TLS.

On loopback neither is needed. Beyond it a server without a token does not start; without TLS it warns, as the token and
the batches can then be read on the way. A token comes from a file or from an environment variable, never from a command
line, which others see.
"""

import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from pyarrow import flight

from recd_dist.errors import ConfigError
from recd_dist.metrics.board_secrets import read_token, require_certificate, require_token
from recd_dist.reader.tier.server_address import Address

TOKEN_VARIABLE = "RECD_READER_TOKEN"  # noqa: S105  (the name of one)
"""The environment variable with the token, for servers and trainers."""

_HEADER = "authorization"


@dataclass(frozen=True)
class ServerAccess:
    """Who may ask a server.

    Attributes:
        token_file: the file whose text every trainer must show; the environment variable is looked at without it.
        cert, key: the TLS certificate and its private key, as PEM.
        variable: the environment variable.
        risk: what strangers could do, for messages.
    """

    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    variable: str = TOKEN_VARIABLE
    risk: str = "read the tables"

    def check(self, address: Address) -> str | None:
        """Refuses to let strangers in.

        Args:
            address: where the server will listen.

        Returns:
            A warning, where what is sent can be read on the way.

        Raises:
            ConfigError: it would listen beyond loopback without a token; or a file cannot be used.
        """
        if self.key is not None and self.cert is None:
            raise ConfigError(f"--key {self.key}: belongs to a certificate; add --cert FILE")
        if self.cert is not None:
            require_certificate(self.cert, self.key)
        if address.is_loopback:
            return None
        if self.token() is None:
            raise ConfigError(
                f"--listen {address.host}:{address.port}: anyone who reaches that address could {self.risk}; add "
                f"--token-file FILE (to make one: openssl rand -hex 32 > FILE; chmod 600 FILE), or set {self.variable}"
            )
        if self.cert is None:
            return (
                f"{address.host}: without --cert and --key the token and what is sent can be read on the way; keep it "
                "inside a private network"
            )
        return None

    def token(self) -> str | None:
        """The token, or None.

        Raises:
            ConfigError: the file cannot be used.
        """
        return read_token(self.token_file) if self.token_file is not None else _variable(self.variable)

    def certificates(self) -> list[tuple[bytes, bytes]]:
        """What Flight wants of certificate and key; empty without TLS."""
        if self.cert is None:
            return []
        return [(self.cert.read_bytes(), (self.key or self.cert).read_bytes())]


@dataclass(frozen=True)
class TrainerAccess:
    """What a trainer shows, and whom it trusts.

    Attributes:
        token_file: the file with the token; the environment variable is looked at without it.
        tls_ca: certificates that servers must be signed by, as PEM; those of the system without it.
    """

    token_file: Path | None = None
    tls_ca: Path | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What goes with each question.

        Raises:
            ConfigError: the file cannot be used.
        """
        token = read_token(self.token_file) if self.token_file is not None else _variable()
        return [] if token is None else [(_HEADER.encode(), f"Bearer {token}".encode())]

    def certificates(self) -> bytes | None:
        """The certificates as Flight wants them.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.tls_ca is None:
            return None
        try:
            return self.tls_ca.read_bytes()
        except OSError as error:
            raise ConfigError(f"reader.tls_ca={self.tls_ca}: {error.strerror}") from error

    @property
    def token_text(self) -> str:
        """Where the token came from, for messages."""
        if self.token_file is not None:
            return f"the token in {self.token_file}"
        return f"the token in {TOKEN_VARIABLE}" if _variable() else "no token"


def _variable(name: str = TOKEN_VARIABLE) -> str | None:
    token = os.environ.get(name, "").strip()
    return require_token(name, token) if token else None


class TokenCheck(flight.ServerMiddlewareFactory):
    """Refuses every call that does not show the token.

    Args:
        token: what a trainer must show.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self._wanted = f"Bearer {token}".encode()

    def start_call(self, _info: flight.CallInfo, headers: dict[str, list[str]]) -> None:
        """Looks at the headers of a call."""
        shown = headers.get(_HEADER) or [""]
        if not hmac.compare_digest(str(shown[0]).encode(), self._wanted):
            raise flight.FlightUnauthenticatedError("the token is missing or wrong")
