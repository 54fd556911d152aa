"""The checks of one host: those before a job's ranks start, and all of them.

::

    first step   versions, cores, memory, shared memory, open files, disk, time limit       a few ms, no torch
    recd doctor  the same, libraries, devices, speed of the disk, clock, ports, names       seconds, in other processes
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recd_dist.ranks.health import devices, libraries, limits, places, ports, versions_together
from recd_dist.ranks.health.finding import Finding, failures

SWITCH = "RECD_DOCTOR"
"""The environment variable by which jobs start without the first step: ``off``."""


@dataclass(frozen=True)
class Wanted:
    """What a job needs of a host.

    Attributes:
        num_ranks: ranks on this host.
        num_hosts: hosts of the job.
        run_dir, tables, checkpoints: local directories that it reads and writes; None: it has none.
        num_workers: reader workers of each rank; None where that is not known.
        device: ``auto``, ``cpu`` or ``cuda``.
        endpoint: host:port where several hosts meet, on the host that is to listen there.
    """

    num_ranks: int = 1
    num_hosts: int = 1
    run_dir: Path | None = None
    tables: Path | None = None
    checkpoints: Path | None = None
    num_workers: int | None = None
    device: str = "auto"
    endpoint: str = ""


def check_first(wanted: Wanted) -> Iterator[Finding]:
    """The checks before ranks start, in a few milliseconds and without torch; a job that would fail ends here."""
    yield versions_together.check_python()
    yield versions_together.check_versions()
    yield from _check_limits(wanted)
    yield from _check_disks(wanted, measure=False)


def check_all(wanted: Wanted) -> Iterator[Finding]:
    """All checks of one host; libraries are loaded, and devices asked, in other processes."""
    yield versions_together.check_python()
    yield versions_together.check_versions()
    loaded = libraries.load_libraries()
    yield libraries.check_libraries(loaded)
    yield from devices.check_devices(devices.look_at_driver(), loaded["torch"], wanted.num_ranks, wanted.device)
    yield from _check_limits(wanted)
    yield from _check_disks(wanted, measure=True)
    yield places.check_clock()
    yield from places.check_surroundings()
    if wanted.num_hosts > 1:
        yield ports.check_host_name()
    if (port := wanted.endpoint.rpartition(":")[2]).isdecimal():
        yield ports.check_port(
            "rendezvous", "", int(port), "choose another for all hosts: --rdzv_port, --rdzv-endpoint"
        )
    board = "recd board --port chooses another"
    yield ports.check_port("board", "127.0.0.1", ports.BOARD_PORT, board, needed=False)


def needs_of(num_ranks: int, num_hosts: int, overrides: Iterable[str]) -> Wanted:
    """What a job needs of a host, as far as it is known before its config is composed.

    Args:
        num_ranks: ranks on this host.
        num_hosts: hosts of the job.
        overrides: the overrides of its config.
    """
    run, given = os.environ.get("RECD_RUN_DIR"), dict(text.partition("=")[::2] for text in overrides)
    workers = given.get("reader.num_workers", "")
    num_workers = int(workers) if workers.isdecimal() else None
    return Wanted(num_ranks, num_hosts, run_dir=Path(run) if run else None, num_workers=num_workers)


def refusal(wanted: Wanted) -> str:
    """Why ranks must not start on this host, in one line that names host, check and remedy; empty where they may.

    Args:
        wanted: what the job needs.
    """
    if os.environ.get(SWITCH) == "off":
        return ""
    found = failures(check_first(wanted))
    return "; ".join(f"{finding.host}: {finding.line}" for finding in found) + (
        f" (`recd doctor` says more; {SWITCH}=off starts all the same)" if found else ""
    )


def _check_limits(wanted: Wanted) -> Iterator[Finding]:
    yield limits.check_cores(wanted.num_ranks)
    yield limits.check_memory(wanted.num_ranks)
    yield limits.check_shared_memory(wanted.num_ranks, wanted.num_workers)
    yield limits.check_open_files()
    if (left := limits.check_time_limit()) is not None:
        yield left


def _check_disks(wanted: Wanted, *, measure: bool) -> Iterator[Finding]:
    yield from places.check_directory("temporary", Path(tempfile.gettempdir()), "TMPDIR=...", measure=measure)
    if wanted.run_dir is not None:
        yield from places.check_directory("run_dir", wanted.run_dir, "run_dir=...", measure=measure)
    if wanted.checkpoints is not None:
        yield from places.check_directory("checkpoints", wanted.checkpoints, "checkpoint.path=...", measure=measure)
    if wanted.tables is not None:
        yield from places.check_directory("tables", wanted.tables, "data.table=...", measure=measure)
