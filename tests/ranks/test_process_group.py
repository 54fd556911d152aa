"""How a rank joins its job."""

import os
import socket

import pytest

from recd_dist.errors import ConfigError
from recd_dist.ranks.process_group import process_group


def test_a_process_alone_tells_torchrec_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from torchrec.distributed.comm import get_local_size

    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with process_group("cpu") as ranks:
        assert get_local_size() == ranks.local_world_size == 1
    assert "LOCAL_WORLD_SIZE" not in os.environ
    assert caplog.records == []


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**names, "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        message = rf"MASTER_PORT={port}: rank 0 cannot listen on 127.0.0.1 \(Address already in use\); choose another"
        with pytest.raises(ConfigError, match=message), process_group("cpu"):
            pass
