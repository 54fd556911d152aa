"""The GPUs of a host: driver against build, number, memory, MIG. Torch's side of it comes from libraries.py."""

import csv
import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from recd_dist.ranks.health.finding import Finding, fail, ok, warn

_GIB = 2.0**30
ASK_S = 20.0
"""Seconds after which nvidia-smi has failed: a GPU that hangs makes it hang."""

_FIELDS = "name,driver_version,memory.total,memory.used,mig.mode.current"
_CUDA_BUILD = "install the CUDA build: VARIANT=cuda make env"
_CPU = "training uses the CPU"


@dataclass(frozen=True)
class Driver:
    """What the machine says of its GPUs, without torch.

    Attributes:
        cuda: the newest CUDA that the driver knows, such as ``(12, 8)``; None without a driver.
        devices: name, driver version, memory and MIG mode of each GPU, as nvidia-smi tells them.
        problem: why nvidia-smi tells nothing; empty where it tells or is not there.
    """

    cuda: tuple[int, int] | None = None
    devices: tuple[Mapping[str, str], ...] = ()
    problem: str = ""


def look_at_driver() -> Driver:
    """Asks the driver, and nvidia-smi where it is installed."""
    cuda = None
    with suppress(OSError, AttributeError):
        number = ctypes.c_int()
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)) == 0:
            cuda = number.value // 1000, number.value % 1000 // 10
    program = shutil.which("nvidia-smi")
    if program is None:
        return Driver(cuda)
    line = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(line, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Driver(cuda, problem=f"nvidia-smi gives no answer ({type(error).__name__})")
    if ended.returncode:
        return Driver(cuda, problem=f"nvidia-smi: {(ended.stdout or ended.stderr).strip().splitlines()[0]}")
    rows = csv.reader(ended.stdout.splitlines(), skipinitialspace=True)
    names = _FIELDS.split(",")
    return Driver(cuda, tuple(dict(zip(names, row, strict=False)) for row in rows if row))


def check_devices(driver: Driver, torch: Mapping[str, Any], num_ranks: int, device: str = "auto") -> list[Finding]:
    """Whether the ranks of this host have the devices that they want.

    Args:
        driver: what the machine says.
        torch: what torch says: ``cuda``, the version it was built for, ``devices`` and ``nccl``; empty where it did
            not load.
        num_ranks: ranks on this host.
        device: the option of that name: ``auto``, ``cpu`` or ``cuda``.
    """
    build, seen = torch.get("cuda"), torch.get("devices", [])
    if not torch or device == "cpu":
        return [ok("devices", "device=cpu" if torch else f"{len(driver.devices)} GPUs; torch does not load")]
    if build is None and not driver.devices and device == "auto":
        return [ok("devices", f"no GPU: {_CPU}")]
    value, remedy = _find_problem(driver, build, len(seen), num_ranks)
    if value:
        found = fail("devices", value, remedy) if device == "cuda" else warn("devices", f"{value}: {_CPU}", remedy)
        return [found]
    return [_describe(driver, torch), *_check_memory(seen[:num_ranks]), *_check_mig(driver, num_ranks)]


def _find_problem(driver: Driver, build: str | None, num_seen: int, num_ranks: int) -> tuple[str, str]:
    """Why ranks cannot have a GPU each, and the remedy; empty texts where they can."""
    if driver.problem:
        return driver.problem, "look at the driver and at dmesg"
    if build is None:
        return f"{len(driver.devices)} GPUs, but torch is a CPU build", _CUDA_BUILD
    if driver.cuda is None:
        remedy = "install the driver, run the container with --gpus all, or take the CPU build"
        return f"torch is built for CUDA {build}, and no driver is there", remedy
    if driver.cuda[0] < int(build.partition(".")[0]):
        known = ".".join(map(str, driver.cuda))
        remedy = "a newer driver, or a build of torch for an older CUDA"
        return f"torch is built for CUDA {build}, the driver knows CUDA {known} at most", remedy
    if num_seen < num_ranks:
        remedy = "start fewer ranks on this host, or ask for more GPUs (CUDA_VISIBLE_DEVICES?)"
        return f"torch sees {num_seen} GPUs for {num_ranks} ranks", remedy
    return "", ""


def _describe(driver: Driver, torch: Mapping[str, Any]) -> Finding:
    seen, build = torch["devices"], torch["cuda"]
    names = ", ".join(sorted({f"{found['name']}, {found['bytes'] / _GIB:.0f} GiB" for found in seen}))
    version = driver.devices[0].get("driver_version", "") if driver.devices else ""
    shown = f"{len(seen)} x {names}; driver {version} for CUDA {driver.cuda and '.'.join(map(str, driver.cuda))}"
    return ok("devices", f"{shown}, torch's build {build}, NCCL {torch.get('nccl')}")


def _check_memory(seen: list[Mapping[str, Any]]) -> list[Finding]:
    """Warns of GPUs that another process uses already."""
    used = {n: 1 - found["free_bytes"] / found["bytes"] for n, found in enumerate(seen)}
    taken = [f"GPU {number}: {share:.0%}" for number, share in used.items() if share > 0.1]
    if not taken:
        return []
    return [warn("GPU memory", f"in use by others: {', '.join(taken)}", "see nvidia-smi; end them or take other GPUs")]


def _check_mig(driver: Driver, num_ranks: int) -> list[Finding]:
    """Notices GPUs that are split: NCCL does not join slices of one GPU, and a process sees one slice."""
    split = [n for n, found in enumerate(driver.devices) if found.get("mig.mode.current") == "Enabled"]
    if not split:
        return []
    value = f"MIG is enabled on GPU {', '.join(map(str, split))}: a rank sees one slice"
    remedy = "one rank a host there, or have MIG switched off: NCCL does not join slices of one GPU"
    return [warn("MIG", value, remedy) if num_ranks > 1 else ok("MIG", value)]
