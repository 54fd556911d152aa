"""Whether the installed versions belong together: Python, torch, torchrec and fbgemm-gpu with its shim.

Names and versions of installed packages are read and none of them is imported, so that this can tell what is wrong
where ``import torch`` fails.
"""

import importlib.metadata
import platform
import sys

from recd_dist.errors import ConfigError
from recd_dist.ranks.health.finding import Finding, Level, fail, ok, warn
from recd_dist.ranks.health.release_lines import CPU_BUILD, CUDA_BUILD, installed_versions, require_release_line

OLDEST_PYTHON = (3, 11)
_SHIM = "install the shim, so that pip knows: pip install packaging/fbgemm-gpu-cpu-shim"


def check_python() -> Finding:
    """Whether this Python is new enough."""
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        return fail("python", found, f"use Python {oldest} or newer: PYTHON=python{oldest} make env")
    return ok("python", f"{found}, {sys.executable}")


def check_versions() -> Finding:
    """Whether torch, torchrec and fbgemm-gpu are of one release line, and pip knows of the CPU build."""
    found = installed_versions()
    try:
        require_release_line(found)
    except ConfigError as error:
        return Finding("versions", Level.FAIL, str(error))
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    if CPU_BUILD in found:
        shim = _shim_version()
        if shim is None:
            return warn("versions", f"{shown}; torchrec asks for {CUDA_BUILD}, which is missing", _SHIM)
        if shim != found[CPU_BUILD]:
            return warn("versions", f"{shown}; the shim that stands for {CUDA_BUILD} is {shim}", _SHIM)
    return ok("versions", shown)


def _shim_version() -> str | None:
    """The version of the shim without its local part; None where it is not installed."""
    try:
        return importlib.metadata.version(CUDA_BUILD).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None
