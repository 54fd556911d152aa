"""How a server ends: at a signal, at a file, and not before a job's trainers have saved."""

import signal
import time

from tests.reader.tier.conftest import ServerProcess

from recd_dist.reader.tier import serving
from recd_dist.reader.tier.server_address import Address


def test_a_server_of_a_job_ends_with_the_job_and_not_at_the_first_signal(small, tmp_path):
    ended = tmp_path / "ended"
    with ServerProcess(small.path, "--until", str(ended)) as server:
        server.send(signal.SIGTERM)
        time.sleep(3 * serving._LOOK_S)
        assert server._process.poll() is None
        ended.touch()
        assert server._process.wait() == 0


def test_the_second_signal_ends_it_at_once(tmp_path):
    for until, signals in ((None, 1), (tmp_path / "ended", 2)):
        wish = serving._Wish(until)
        for _ in range(signals):
            assert not wish.is_due()
            wish.hear()
        assert wish.is_due()


def test_a_server_on_all_addresses_is_announced_by_one_that_others_reach(monkeypatch):
    monkeypatch.setattr(serving.socket, "gethostname", lambda: "node7")
    for number, host in (("127.0.1.1", "node7"), ("10.0.0.7", "10.0.0.7")):
        monkeypatch.setattr(serving.socket, "gethostbyname", lambda _, number=number: number)
        assert serving._reachable(Address("0.0.0.0", 80)) == Address(host, 80)
    assert serving._reachable(Address("127.0.0.1", 80)) == Address("127.0.0.1", 80)
