"""Memory that a trainer lends to a server of its host: who may open it, and when it is used again."""

import gc
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.reader.conftest import batches, ids_of
from tests.reader.tier.conftest import remote

from recd_dist.reader.tier import lent_memory
from recd_dist.reader.tier.blocks import ArrivingBlocks, Blocks
from recd_dist.reader.tier.lent_memory import BorrowedMemory, LentMemory, can_lend

pytestmark = pytest.mark.skipif(not can_lend(), reason="needs Linux")


def test_both_sides_see_the_same():
    lent, borrowed = LentMemory(1000), BorrowedMemory()
    found = borrowed.find(lent.name)
    assert len(found) == len(lent.bytes) == 1064
    found[64:] = np.arange(1000) % 251
    assert np.array_equal(lent.bytes[64:], np.arange(1000) % 251)
    assert borrowed.find(lent.name) is found


OF_ANOTHER_HOST = [{"host": "another"}, {"host": ""}]
OF_NOBODY = [{"file": 10**6}, {"file": "x"}, {"process": 10**9}]
WITHOUT_THE_SECRET = [{"secret": "00" * 32}, {"secret": "x"}, {"secret": ""}]


@pytest.mark.parametrize("wrong", OF_ANOTHER_HOST + OF_NOBODY + WITHOUT_THE_SECRET)
def test_what_is_not_the_trainers_is_not_opened(wrong):
    lent = LentMemory(1000)
    assert BorrowedMemory().find(lent.name | wrong) is None
    assert BorrowedMemory().find(None) is None
    assert BorrowedMemory().find({}) is None


def test_no_other_file_is_opened(tmp_path):
    secret = bytes(32)
    (tmp_path / "file").write_bytes(secret * 4)
    with (tmp_path / "file").open("rb+") as file:
        name = {"host": lent_memory.host_id(), "process": os.getpid(), "file": file.fileno(), "secret": secret.hex()}
        assert BorrowedMemory().find(name) is None
    other = os.memfd_create(lent_memory._NAME, os.MFD_ALLOW_SEALING)  # not sealed: it could be cut under the server
    os.write(other, secret * 4)
    assert BorrowedMemory().find(name | {"file": other}) is None
    os.close(other)


def test_a_server_forgets_memory_beyond_a_bound():
    borrowed, lent = BorrowedMemory(), [LentMemory(64) for _ in range(lent_memory._MOST + 3)]
    assert all(borrowed.find(each.name) is not None for each in lent)
    assert len(borrowed._blocks) == lent_memory._MOST


def test_a_block_that_somebody_may_write_into_is_not_used_again():
    blocks = Blocks(lent=True)
    kept = blocks.take(100)
    tensor, name = kept.tensor[:8], kept.name
    del kept
    assert blocks.take(100).name != name  # a tensor over it lives
    gc.collect()
    del tensor
    names = {blocks.take(100).name["secret"] for _ in range(3)}
    assert len(names) <= 2
    lost = blocks.take(100)
    lost.lose()
    secret = lost.name["secret"]
    del lost
    assert all(blocks.take(100).name["secret"] != secret for _ in range(4))


def test_nothing_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    blocks = ArrivingBlocks(lends=True)
    taken = [blocks.near.take(1000) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before + 6
    del taken, blocks
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_of_another_process_is_found_while_it_lives():
    code = (
        "import json, sys\n"
        "from recd_dist.reader.tier.lent_memory import LentMemory\n"
        "lent = LentMemory(10); lent.bytes[64:] = 7\n"
        "print(json.dumps(lent.name), flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        name, borrowed = json.loads(process.stdout.readline()), BorrowedMemory()
        found = borrowed.find(name)
        assert found[64:].tolist() == [7] * 10
        process.kill()
    assert found[64:].tolist() == [7] * 10  # what a server has opened stays until it lets go
    assert BorrowedMemory().find(name) is None


def test_servers_that_cannot_open_it_send_batches(serve, small, monkeypatch):
    service = serve(small.path)
    monkeypatch.setattr(BorrowedMemory, "find", lambda *_: None)
    assert sorted(ids_of(batches(small, servers=remote(service)))) == list(range(len(small.samples)))


def test_a_batch_that_has_no_room_is_sent(serve, small, monkeypatch):
    taken = []
    take = Blocks.take

    def take_less(self, num_bytes):
        taken.append(num_bytes)
        return take(self, min(num_bytes, 64) if self._lent else num_bytes)

    monkeypatch.setattr(Blocks, "take", take_less)
    assert sorted(ids_of(batches(small, servers=remote(serve(small.path))))) == list(range(len(small.samples)))
    assert max(taken) > 64
