"""Moves the server that forks worker processes out of the trainer's process group.

Only that server imports this module. A signal to the process group (Ctrl-C, a launcher that ends its ranks) then
reaches the trainer alone, which may want a few more batches before it writes its last checkpoint. SIGTERM to every
process of a job, as Slurm sends it, is not for the server either (nor for its workers, ``worker.start_worker``). The
server and its workers end when the trainer does, however it ends.

What every worker needs is loaded here, once for all of them: torch, pyarrow, the reader, and what numba imports before
it runs its first loop, which takes 0.35 s of a core and would otherwise be a part of each worker's first batch.
"""

import contextlib
import os
import signal

import numpy as np

import recd_dist.reader.worker  # noqa: F401
from recd_dist.reader import kernels

kernels.hash_ids(no_ids := np.zeros(0, np.int64), 1, no_ids)
with contextlib.suppress(PermissionError):  # a session's leader has a group of its own already
    os.setpgid(0, 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
