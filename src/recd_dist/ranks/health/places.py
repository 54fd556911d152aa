"""Directories that a job writes to, and what its processes expect of their surroundings: disk, clock, home, text."""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from recd_dist.ranks.health.finding import Finding, fail, ok, warn

_MIB, _GIB = 2.0**20, 2.0**30
LEAST_FREE = 64 * 2**20
LITTLE_FREE = 2 * 2**30
SLOW_MIB_S = 20.0
PROBE_BYTES = 16 * 2**20
SKEW_S = 2.0
"""Clocks that differ by more mislead whoever compares the ages of files: leases, caches, `make`."""


def check_directory(name: str, path: Path, option: str, *, measure: bool = True) -> list[Finding]:
    """Whether a directory can be written, how much room and how fast it is, and what its file system's clock says.

    A directory that is not there yet is looked at where it would be made. Nothing stays behind.

    Args:
        name: what it is for, such as ``run_dir``.
        path: the directory.
        option: how to choose another, such as ``run_dir=...``.
        measure: whether to measure the speed of a write that is flushed to the disk.
    """
    check, there = f"disk, {name}", next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    shown = str(path) if there == path.absolute() else f"{path} (to be made in {there})"
    if not there.is_dir():
        return [fail(check, f"{path}: {there} is no directory", f"choose another with {option}")]
    try:
        mib_s, file_s = _write(there, PROBE_BYTES if measure else 0)
    except OSError as error:
        why = error.strerror or str(error)
        return [fail(check, f"{shown}: cannot be written ({why})", f"free it, or choose another with {option}")]
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    speed = f", {mib_s:,.0f} MiB/s written and flushed" if measure else ""
    value = f"{shown}: {free / _GIB:,.1f} GiB free{speed}"
    if free < LEAST_FREE:
        return [fail(check, value, f"make room, or choose another with {option}")]
    findings = [ok(check, value)]
    if free < LITTLE_FREE:
        findings = [warn(check, value, f"make room: checkpoints and tables need more; or {option}")]
    elif measure and mib_s < SLOW_MIB_S:
        findings = [warn(check, value, f"checkpoints would be slow there; a faster one with {option}")]
    skew_s = file_s - time.time()
    if abs(skew_s) > SKEW_S:
        value = f"the file system of {path} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this host"
        findings.append(warn("clock", value, "set both clocks by NTP (chrony, systemd-timesyncd)"))
    return findings


def _write(directory: Path, num_bytes: int) -> tuple[float, float]:
    """Writes and removes a file; returns MiB/s with the flush, and the file's time in seconds since the epoch."""
    number, name = tempfile.mkstemp(prefix=".recd-doctor-", dir=directory)
    try:
        with os.fdopen(number, "wb") as file:
            started_s = time.perf_counter()
            for _ in range(max(1, num_bytes // 2**20)):
                file.write(b"\0" * min(max(num_bytes, 1), 2**20))
            file.flush()
            if num_bytes:
                with suppress(OSError):  # some network file systems have no flush
                    os.fsync(file.fileno())
            took_s = time.perf_counter() - started_s
            return num_bytes / _MIB / max(took_s, 1e-9), os.fstat(file.fileno()).st_mtime
    finally:
        os.unlink(name)


def check_clock() -> Finding:
    """Whether this host's clock is later than the installation of this program, as it must be."""
    behind_s = Path(__file__).stat().st_mtime - time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if behind_s > SKEW_S:
        shown += f", {behind_s:,.0f} s before this program was installed"
        return warn("clock", shown, "set it by NTP (chrony, systemd-timesyncd): certificates look invalid, files new")
    return ok("clock", shown)


def check_clocks(times_s: Mapping[str, float]) -> Finding:
    """Whether the clocks of several hosts agree.

    Args:
        times_s: for each host what its clock said at one moment, in seconds since the epoch.
    """
    first, last = min(times_s, key=lambda h: times_s[h]), max(times_s, key=lambda h: times_s[h])
    skew_s = times_s[last] - times_s[first]
    if skew_s > SKEW_S:
        value = f"{last} is {skew_s:,.1f} s ahead of {first}"
        return warn("clocks", value, "set both by NTP (chrony, systemd-timesyncd): ages of files mislead")
    return ok("clocks", f"those of {len(times_s)} rank{'s'[: len(times_s) > 1]} agree within {skew_s:.2f} s")


def check_surroundings() -> list[Finding]:
    """Whether text is UTF-8, and whether a home directory is there for caches."""
    encoding = sys.getfilesystemencoding().lower()
    findings = [ok("text", encoding)]
    if encoding.replace("-", "") != "utf8":
        findings = [warn("text", f"names of files are {encoding}", "export LC_ALL=C.UTF-8, or PYTHONUTF8=1")]
    cache = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(__file__).resolve().parents[2] / "table"
    home = Path(cache) if cache else Path.home() / ".cache"
    places = [home] if cache else [beside, home]
    kept = next((p for p in places if _is_writable(p)), None)
    if kept is None:
        value = f"{' and '.join(map(str, places))} cannot be written: each process compiles its loops again"
        findings.append(warn("cache", value, "export NUMBA_CACHE_DIR=a directory that stays"))
    else:
        findings.append(ok("cache", f"compiled loops are kept in {kept}"))
    return findings


def _is_writable(path: Path) -> bool:
    """Whether a directory can be written, or made."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return os.access(there, os.W_OK | os.X_OK)
