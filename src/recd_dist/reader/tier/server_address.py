"""Addresses of servers: ``host:port``, ``grpc://host:port`` or, where they speak TLS, ``grpc+tls://host:port``."""

import ipaddress
import re
from dataclasses import dataclass

from recd_dist.errors import ConfigError

PLAIN, TLS = "grpc", "grpc+tls"
_ADDRESS = re.compile(r"(?:(?P<scheme>[a-z+]+)://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):(?P<port>\d{1,5})/?")
_LAST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: a name or number, without brackets.
        port: 0 on a server's command line chooses a free one.
        tls: whether it speaks TLS.
    """

    host: str
    port: int
    tls: bool = False

    @staticmethod
    def parse(text: str, option: str = "reader.servers") -> "Address":
        """Reads an address.

        Args:
            text: what was typed.
            option: the option that holds it, for the message.

        Raises:
            ConfigError: it is no address.
        """
        found = _ADDRESS.fullmatch(text.strip())
        if found is None or (found["scheme"] or PLAIN) not in (PLAIN, TLS) or int(found["port"]) > _LAST_PORT:
            raise ConfigError(f"{option}: '{text}' is no address; write HOST:PORT, or {TLS}://HOST:PORT for TLS")
        return Address(found["host"].strip("[]"), int(found["port"]), found["scheme"] == TLS)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{TLS if self.tls else PLAIN}://{host}:{self.port}"
