import pytest

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.server_address import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "tls", "loopback", "shown"),
    [
        ("localhost:8815", "localhost", 8815, False, True, "grpc://localhost:8815"),
        ("127.0.0.1:0", "127.0.0.1", 0, False, True, "grpc://127.0.0.1:0"),
        ("grpc://node7:80", "node7", 80, False, False, "grpc://node7:80"),
        ("grpc+tls://10.0.0.7:443/", "10.0.0.7", 443, True, False, "grpc+tls://10.0.0.7:443"),
        ("[::1]:9", "::1", 9, False, True, "grpc://[::1]:9"),
        ("0.0.0.0:8815", "0.0.0.0", 8815, False, False, "grpc://0.0.0.0:8815"),
    ],
)
def test_addresses(text, host, port, tls, loopback, shown):
    address = Address.parse(text)
    assert (address.host, address.port, address.tls, address.is_loopback) == (host, port, tls, loopback)
    assert str(address) == shown


@pytest.mark.parametrize("text", ["", "node7", "node7:", ":80", "node7:65536", "http://node7:80", "a b:1", "u:p@h:1"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="no address"):
        Address.parse(text)
