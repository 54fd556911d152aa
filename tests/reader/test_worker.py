"""Worker processes: they read what a thread reads, and end with the trainer."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.reader.conftest import ids_of, loader


def test_worker_processes_read_the_same_epochs(small):
    reader = loader(small, num_workers=2)
    in_thread = loader(small)
    for epoch in range(2):
        reader.start_epoch(epoch)
        in_thread.start_epoch(epoch)
        found = list(reader)
        assert len(found) == len(reader)
        assert sorted(ids_of(found)) == list(range(len(small.samples)))
        assert sorted(ids_of(in_thread)) == sorted(ids_of(found))
    reader.close()


def test_a_dead_worker_is_an_error(small):
    reader = loader(small, num_workers=1, batch_size=2, prefetch=1)
    iterator = iter(reader)
    next(iterator)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"worker process of rank 0 has died"):
        list(iterator)
    reader.close()


def test_sigterm_to_all_processes_of_a_job_leaves_the_reader_its_workers(small):
    """Slurm sends it to every process; the trainer wants a few more batches before it saves."""
    reader = loader(small, num_workers=1, batch_size=2, prefetch=1)
    iterator = iter(reader)
    found = [next(iterator)]
    (worker,) = multiprocessing.active_children()
    server = int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != os.getpid()
    for pid in (worker.pid, server):
        os.kill(pid, signal.SIGTERM)
    found += iterator
    assert sorted(ids_of(found)) == list(range(len(small.samples)))
    reader.close()


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), EOFError()])
def test_a_worker_that_dies_while_it_hands_a_batch_over_is_the_same_error(small, monkeypatch, error):
    def broken():
        raise error
        yield

    reader = loader(small, num_workers=1, batch_size=2)
    monkeypatch.setattr(reader, "_data_loader", broken)
    with pytest.raises(RuntimeError, match=r"worker process of rank 0 has died"):
        list(reader)
    reader.close()


# A script without `if __name__ == "__main__"`: workers do not run it.
TRAINER = """
import multiprocessing, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import SCHEMA, TABLES
from recd_dist.reader.loader import Loader
from recd_dist.table.clustered import ClusteredTable
table = ClusteredTable.load(Path({table!r}))
for number, batch in enumerate(Loader(table, SCHEMA, TABLES, batch_size=2, num_workers=2)):
    if number == 0:
        print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    time.sleep(1)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_trainer(small, tmp_path, sent):
    """The signal goes to the whole process group, as a terminal or a launcher sends it."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(tests=str(Path(__file__).parent), table=str(small.path)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    trainer = subprocess.Popen([sys.executable, str(script)], **pipes)
    workers = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(trainer.pid, sent)
    _, said = trainer.communicate(timeout=120)
    assert trainer.returncode == -sent
    assert "died" not in said
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def test_a_signal_to_the_group_leaves_the_workers_to_a_trainer_that_goes_on(small, tmp_path):
    script = tmp_path / "trainer.py"
    source = TRAINER.format(tests=str(Path(__file__).parent), table=str(small.path)).replace("sleep(1)", "sleep(0.01)")
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor number"
    script.write_text(source.replace("for number", ignore) + "print(number + 1)\n")
    pipes = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    trainer = subprocess.Popen([sys.executable, str(script)], **pipes)
    trainer.stdout.readline()
    os.killpg(trainer.pid, signal.SIGTERM)
    said, _ = trainer.communicate(timeout=60)
    assert trainer.returncode == 0
    assert int(said) == len(loader(small, batch_size=2, num_workers=2))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
