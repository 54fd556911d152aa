"""What this process may use of the machine: its cores, and the memory of its container.

A container sees every core and all memory of its host. What it may take of them stands in its control group: files of
cgroup v2 (``cpu.max``, ``memory.max``) or v1 (``cpu.cfs_quota_us``, ``memory.limit_in_bytes``), where every group above
it has a limit of its own and the lowest one counts.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use: those it is bound to, or the container's quota where that is less.

    Args:
        root: the directory in which /proc and /sys lie.

    Returns:
        At least 1. A part of a core counts as a core.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [bound, *(math.ceil(quota) for quota in _core_quotas(root))]
    return max(1, min(quotas))


def core_quota(root: Path = Path("/")) -> float | None:
    """The cores that the container may take at a time, perhaps a part of one; None where it has no quota.

    Args:
        root: the directory in which /proc and /sys lie.
    """
    return min(_core_quotas(root), default=None)


def usable_memory(root: Path = Path("/")) -> int:
    """The bytes of memory that this process may use: those of the machine, or the container's limit where that is less.

    Args:
        root: the directory in which /proc and /sys lie.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(group / name)
            limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def _core_quotas(root: Path) -> Iterator[float]:
    """The cores that each control group of this process may take, where it has a quota."""
    for group in _groups(root, "cpu"):
        texts = _read(group / "cpu.max").split()
        texts = texts or [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
        if len(texts) == 2 and all(text.isdecimal() and int(text) for text in texts):
            yield int(texts[0]) / int(texts[1])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's control groups that a controller can have, from the innermost outwards.

    Inside a container the path in ``/proc/self/cgroup`` may be that of the host, which is not there: then only the
    directory of the mount is, which is the container's own.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number != "0" and controller not in controllers.split(","):
            continue
        names = ("", "unified") if number == "0" else (controllers, controller)
        for mount in (root / "sys/fs/cgroup" / name for name in names):
            inner = Path(path.lstrip("/"))
            yield from (mount / group for group in (inner, *inner.parents))


def _read(path: Path) -> str:
    """The text of a small file; empty where it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
