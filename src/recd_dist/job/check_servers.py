"""The servers of the reader: what a config says of them is checked before a rank starts."""

from pathlib import Path

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.reader_options import Reader
from recd_dist.reader.defaults import COMPRESSIONS
from recd_dist.reader.tier.server_address import Address


def has_servers(reader: Reader) -> bool:
    """Whether batches come from servers."""
    return bool(reader.servers) or reader.servers_dir is not None


def has_far_servers(reader: Reader) -> bool:
    """Whether batches may come over a network: from servers on other hosts, or on hosts that are not known yet."""
    return reader.servers_dir is not None or any(not Address.parse(a).is_loopback for a in reader.servers)


def check_servers(reader: Reader) -> None:
    """Checks what a config says about servers; whether they answer is found by the ranks.

    Args:
        reader: the options of the reader.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    if reader.compression not in COMPRESSIONS:
        raise ConfigError(
            f"reader.compression={reader.compression}: unknown{nearest(reader.compression, COMPRESSIONS)}"
        )
    for address in reader.servers:
        if Address.parse(address).port == 0:
            raise ConfigError(
                f"reader.servers: '{address}' has port 0; write the port that the server's ready line says"
            )
    if reader.servers and reader.servers_dir is not None:
        raise ConfigError(f"reader.servers_dir={reader.servers_dir}: names servers a second time; keep one of the two")
    if reader.servers_dir is not None and not reader.num_workers:
        raise ConfigError(
            f"reader.servers_dir={reader.servers_dir}: say how many streams each rank reads, all must agree on it "
            "before a server is there: reader.num_workers=4"
        )
    for name in ("token_file", "tls_ca"):
        value = getattr(reader, name)
        if value is not None and not has_servers(reader):
            raise ConfigError(f"reader.{name}={value}: is for servers only; add reader.servers=[HOST:PORT]")
        if value is not None and not Path(value).expanduser().is_file():
            raise ConfigError(f"reader.{name}={value}: no such file")
