import pytest

from recd_dist.errors import ConfigError
from recd_dist.job.check_servers import check_servers, has_servers
from recd_dist.job.reader_options import Reader


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"servers": ["node7"]}, "'node7' is no address; write HOST:PORT, or grpc\\+tls://HOST:PORT for TLS"),
        ({"servers": ["http://node7:80"]}, "is no address"),
        ({"servers": ["node7:0"]}, "write the port that the server's ready line says"),
        ({"servers": ["a:1"], "servers_dir": "d"}, "names servers a second time"),
        ({"servers_dir": "d"}, "reader.num_workers=4"),
        ({"compression": "gzip"}, "unknown"),
        ({"token_file": "t"}, "is for servers only"),
        ({"servers": ["a:1"], "tls_ca": "none.crt"}, "no such file"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(given, said):
    with pytest.raises(ConfigError, match=said):
        check_servers(Reader(**given))


def test_servers_are_optional():
    check_servers(Reader())
    check_servers(Reader(servers=["a:1", "grpc+tls://b:2", "[::1]:3"]))
    check_servers(Reader(servers_dir="d", num_workers=2))
    assert [has_servers(r) for r in (Reader(), Reader(servers=["a:1"]), Reader(servers_dir="d"))] == [False, True, True]
