"""Moves the server that forks worker processes out of the trainer's process group.

Only that server imports this module. A signal to the process group (Ctrl-C, a launcher that ends its ranks) then
reaches the trainer alone, which may want a few more batches before it writes its last checkpoint. SIGTERM to every
process of a job, as Slurm sends it, is not for the server either (nor for its workers, ``worker.start_worker``). The
server and its workers end when the trainer does, however it ends.

What every worker needs is loaded here, once for all of them: torch, pyarrow, the reader and its compiled loops.
"""

import contextlib
import os
import signal

import recd_dist.reader.worker  # noqa: F401
from recd_dist.reader.load_loops import load_loops

load_loops()
with contextlib.suppress(PermissionError):  # a session's leader has a group of its own already
    os.setpgid(0, 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
