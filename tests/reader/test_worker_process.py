"""The server of worker processes: forked where that is safe, else started by Python."""

import json
import subprocess
import sys

_READ = """
import json, multiprocessing as mp, os, sys, threading, time
import recd_dist.reader.worker  # what the server needs is there already
from pathlib import Path
from recd_dist.reader.worker_process import WorkerContext, fork_server
if os.fork():  # the child has one thread, whatever torch has started
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
own = os.open(sys.executable, os.O_RDONLY)  # a file that the server must not keep
os.set_inheritable(own, True)
if sys.argv[1] == "thread":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
forked = fork_server()
context = WorkerContext()
queue = context.SimpleQueue()
worker = context.Process(target=queue.put, args=("read",))
worker.start()
said = queue.get()
worker.join()
server = mp.forkserver._forkserver._forkserver_pid
files = [os.readlink(f) for f in Path(f"/proc/{server}/fd").iterdir() if int(f.name) > 2]
print(json.dumps([forked, said, worker.exitcode, os.path.realpath(sys.executable) in files, server]))
"""

_FIRST_LOOP = """
import os, sys
import recd_dist.reader.forkserver
there = set(sys.modules)
import numpy as np
from recd_dist.reader import kernels
kernels.hash_ids(np.arange(3), 5, np.empty(3, np.int64))
sys.exit(" ".join(sorted(set(sys.modules) - there)) or 0)
"""


def test_workers_import_nothing_for_their_first_loop() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST_LOOP], capture_output=True, text=True, check=False)
    assert not done.stderr


def test_the_server_is_forked_and_ends_with_its_process() -> None:
    for argument, is_forked in (("alone", True), ("thread", False)):
        command = [sys.executable, "-c", _READ, argument]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        *found, server = json.loads(done.stdout)
        assert found == [is_forked, "read", 0, False]
        assert _has_ended(server)


def _has_ended(pid: int) -> bool:
    """Waits for the end of a process that is no child; a server that stays lets the test's own timeout end it."""
    wait = f"import os, time\nwhile os.path.exists('/proc/{pid}'): time.sleep(0.05)"
    return subprocess.run([sys.executable, "-c", wait], timeout=30, check=False).returncode == 0
