"""What a host and its container leave to a job: cores, memory, shared memory, open files, time."""

import os
import resource
import time
from pathlib import Path

from recd_dist.ranks.health.finding import Finding, fail, ok, warn
from recd_dist.ranks.health.machine_share import core_quota, usable_cores, usable_memory

_MIB, _GIB = 2.0**20, 2.0**30
RANK_BYTES = 512 * 2**20
"""What a rank needs before it has read or computed anything: torch, TorchRec and fbgemm take about 450 MB."""

WORKER_BYTES, LEAST_WORKER_BYTES = 64 * 2**20, 2 * 2**20
"""Shared memory of a reader worker: for a few batches of 10 MB (rm1, 4096 samples), and for the smallest ones."""

FEWEST_FILES = 256
"""Open files below which ranks fail: each has its libraries, sockets to all other ranks, files of the table, logs."""

WANTED_FILES = 1024
SHARED_MEMORY = Path("/dev/shm")


def check_cores(num_ranks: int, root: Path = Path("/")) -> Finding:
    """Whether the ranks of this host have a core each, of those that the container may use.

    Args:
        num_ranks: ranks on this host.
        root: the directory in which /proc and /sys lie.
    """
    there, cores, quota = os.cpu_count() or 1, usable_cores(root), core_quota(root)
    usable = min(cores, quota) if quota is not None else cores
    why = f" (quota of its container: {quota:g})" if quota is not None and quota < there else ""
    shown = f"{usable:g} of {there} cores{why} for {num_ranks} rank{'s'[: num_ranks > 1]}"
    if usable < num_ranks:
        more = "give the job more cores (--cpu of the component, docker --cpus, limits.cpu), or start fewer ranks"
        return warn("cores", shown, more)
    return ok("cores", shown)


def check_memory(num_ranks: int, root: Path = Path("/")) -> Finding:
    """Whether the ranks of this host have room to start, in the machine and in the container.

    Args:
        num_ranks: ranks on this host.
        root: the directory in which /proc and /sys lie.
    """
    limit = usable_memory(root)
    free = min(limit, _available_memory(root) or limit)
    shown = f"{free / _GIB:.1f} GiB free of {limit / _GIB:.1f} GiB for {num_ranks} rank{'s'[: num_ranks > 1]}"
    more = "give the job more memory (--memMB of the component, docker --memory, limits.memory), or start fewer ranks"
    if free < num_ranks * RANK_BYTES:
        return fail("memory", f"{shown}, a rank needs {RANK_BYTES / _GIB:.1f} GiB to start", more)
    if free < 2 * num_ranks * RANK_BYTES:
        return warn("memory", f"{shown}, which is little", more)
    return ok("memory", shown)


def _available_memory(root: Path) -> int | None:
    """The bytes that the kernel can still give away; None where it does not say."""
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def check_shared_memory(num_ranks: int, num_workers: int | None = None) -> Finding:
    """Whether /dev/shm holds the batches that reader workers hand over.

    Args:
        num_ranks: ranks on this host.
        num_workers: reader workers of each rank; None where that is not known.
    """
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        shown = f"{SHARED_MEMORY}: {error.strerror}"
        return warn("shared memory", shown, "mount it, or keep reader.num_workers=0: workers hand over batches there")
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    shown = f"{SHARED_MEMORY}: {free / _MIB:,.0f} MiB free of {whole / _MIB:,.0f} MiB"
    more = "enlarge it (docker --shm-size 1g, in Kubernetes an emptyDir of medium Memory)"
    workers = num_ranks * (1 if num_workers is None else num_workers)
    if workers and free < workers * WORKER_BYTES:
        shown += f"; {workers} reader workers may need {workers * WORKER_BYTES / _MIB:,.0f} MiB"
        bad = fail if num_workers and free < workers * LEAST_WORKER_BYTES else warn
        return bad("shared memory", shown, f"{more}, or fewer reader.num_workers; 0 needs none")
    return ok("shared memory", shown)


def check_open_files() -> Finding:
    """Whether a process may open as many files and sockets as a rank needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} (ulimit -n)"
    if soft == resource.RLIM_INFINITY or soft >= WANTED_FILES:
        return ok("open files", shown)
    allowed = hard == resource.RLIM_INFINITY or hard >= WANTED_FILES
    more = f"ulimit -n {WANTED_FILES}" if allowed else f"ask for a hard limit above {hard:,} (LimitNOFILE, --ulimit)"
    if soft < FEWEST_FILES:
        return fail("open files", f"{shown}, a rank needs {FEWEST_FILES}", more)
    return warn("open files", f"{shown}; many ranks or table files need more", more)


def check_time_limit() -> Finding | None:
    """How long the scheduler lets the job run; None where no scheduler says so."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    if not end.isdecimal():
        return None
    left_s = int(end) - time.time()
    shown = f"{_duration(left_s)} left (SLURM_JOB_END_TIME)"
    more = "ask for more with --time; the same command goes on from the newest checkpoint"
    if left_s < 60:
        return fail("time limit", shown, more)
    return warn("time limit", shown, more) if left_s < 600 else ok("time limit", shown)


def _duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 3725 -> 1:02:05."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
