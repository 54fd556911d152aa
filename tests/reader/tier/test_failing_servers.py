"""Servers that die, hang, end or are not there: no sample is lost, none comes twice, nothing waits for ever."""

import logging
import signal
from contextlib import closing

import pytest
from tests.reader.conftest import batches, ids_of, loader
from tests.reader.tier.conftest import ServerProcess, local_batches, remote

from recd_dist.errors import ConfigError
from recd_dist.reader.tier.server_address import Address


def test_a_server_is_killed_and_started_anew(small, caplog):
    caplog.set_level(logging.INFO, "recd_dist")
    with ServerProcess(small.path) as server, closing(loader(small, servers=remote(server), batch_size=8)) as reader:
        seen = []
        for number, batch in enumerate(reader):
            seen += batch.sample_ids.tolist()
            if number == 5:
                server.end()
                server.start()
    assert seen == ids_of(batches(small, batch_size=8))
    said = [record.getMessage() for record in caplog.records]
    assert any("does not answer (" in line for line in said)
    assert any(line.endswith("answers again") for line in said)
    assert not any("gRPC client debug" in line for line in said)


def test_servers_that_go_for_good_are_replaced_by_those_that_stay(serve, small):
    """One is killed, one hangs, one ends as it is told to; the fourth reads what they have not sent."""
    killed, hung, ended = servers = [ServerProcess(small.path, wait=False) for _ in range(3)]
    with killed, hung, ended:
        source = remote(*(server.wait() for server in servers), serve(small.path), wait_s=60.0, call_s=2.0)
        with closing(loader(small, servers=source, batch_size=4, prefetch=1)) as reader:
            seen = []
            for count, batch in enumerate(reader):
                seen += batch.sample_ids.tolist()
                if count == 5:
                    killed.end(signal.SIGKILL)
                    hung.send(signal.SIGSTOP)
                    assert ended.end(signal.SIGTERM) == 0
    assert seen == ids_of(local_batches(small, 4, batch_size=4))


def test_a_server_that_is_started_anew_in_between_opens_another_session(serve, small):
    first = serve(small.path)
    with closing(loader(small, servers=remote(first), batch_size=8)) as reader:
        seen = ids_of(reader)
        for name in list(first.sessions._sessions):
            first.sessions.close(name)
        reader.start_epoch(1)
        assert sorted(ids_of(reader)) == sorted(seen)


def test_a_server_that_is_not_there_is_an_error_in_time(small):
    with pytest.raises(ConfigError, match=r"no server has sent a batch for 0\.3 s .*1:9.*Connection refused"):
        batches(small, servers=remote(Address("127.0.0.1", 9), wait_s=0.3))
    with pytest.raises(ConfigError, match=r"no server has sent a batch .*[Nn]ame"):
        batches(small, servers=remote(Address("no-such-host.invalid", 9), wait_s=0.3))


def test_servers_that_announce_themselves_are_found(small, tmp_path):
    directory = tmp_path / "readers"
    with ServerProcess(small.path, "--announce", str(directory)) as server:
        found = batches(small, servers=remote(directory=directory), num_workers=2)
        assert sorted(ids_of(found)) == list(range(len(small.samples)))
        assert server.end(signal.SIGTERM) == 0
    assert not directory.exists()
    with pytest.raises(ConfigError, match=f"servers: none in {directory}"):
        batches(small, servers=remote(directory=directory, wait_s=0.2), num_workers=2)
