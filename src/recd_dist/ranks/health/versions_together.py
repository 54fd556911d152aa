"""Whether the installed versions belong together: Python, torch, torchrec and fbgemm-gpu with its shim.

Which versions belong together stands in ``pyproject.toml``: each extra that pins torch, torchrec and fbgemm-gpu is one
release line. Names and versions of installed packages are read and none of them is imported, so that this can tell what
is wrong where ``import torch`` fails.
"""

import platform
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from recd_dist.ranks.health.finding import Finding, fail, ok, warn

NAMES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu")
OLDEST_PYTHON = (3, 11)
_INSTALL = "install one line again: `make env`, or pip install 'recd-dist[cpu]' (docs/upstream.md)"
_SHIM = "install the shim, so that pip knows: pip install packaging/fbgemm-gpu-cpu-shim"


_PIN = re.compile(r"""([\w.-]+)==([\w.+]+)\s*;\s*extra == ["'](.*?)["']""")


def release_lines() -> list[tuple[str, str, str]]:
    """The release lines of torch, torchrec and fbgemm-gpu that this program runs on, such as (2.13, 1.8, 1.8).

    They are read from the checkout's ``pyproject.toml``, or from what the installed package says of itself.
    """
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    for text in _requirements():
        if pin := _PIN.match(text):
            lines[pin[3]][pin[1].removesuffix("-cpu")] = _line(pin[2])
    wanted = ("torch", "torchrec", "fbgemm-gpu")
    found = [tuple(line[name] for name in wanted) for line in lines.values() if all(name in line for name in wanted)]
    return sorted({(torch, torchrec, fbgemm) for torch, torchrec, fbgemm in found})


def _requirements() -> Iterable[str]:
    """What this program requires, as ``name==version; extra == "cpu"``."""
    checkout = Path(__file__).resolve().parents[4] / "pyproject.toml"
    if checkout.is_file():
        extras = tomllib.loads(checkout.read_text())["project"]["optional-dependencies"]
        return [f"{text}; extra == '{extra}'" for extra, texts in extras.items() for text in texts]
    try:
        return requires("recd-dist") or ()
    except PackageNotFoundError:
        return ()


def installed_versions() -> dict[str, str]:
    """The versions of the packages that belong together, as far as they are installed."""
    found = {}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_python() -> Finding:
    """Whether this Python is new enough."""
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        return fail("python", found, f"use Python {oldest} or newer: PYTHON=python{oldest} make env")
    return ok("python", f"{found}, {sys.executable}")


def check_versions(found: Mapping[str, str] | None = None) -> Finding:
    """Whether torch, torchrec and fbgemm-gpu are of one release line.

    Args:
        found: versions by name; those that are installed by default.
    """
    found = installed_versions() if found is None else found
    shown = ", ".join(f"{name} {found[name]}" for name in NAMES if name in found) or "none of torch, torchrec, fbgemm"
    kernels = found.get("fbgemm-gpu-cpu", found.get("fbgemm-gpu"))
    missing = [name for name in ("torch", "torchrec") if name not in found] + ["fbgemm-gpu"] * (kernels is None)
    if missing:
        return fail("versions", f"{shown}; {', '.join(missing)} missing", _INSTALL)
    has = tuple(_line(text) for text in (found["torch"], found["torchrec"], str(kernels)))
    if (wanted := release_lines()) and has not in wanted:
        lines = "; ".join(
            f"torch {torch}, torchrec {torchrec}, fbgemm-gpu {kernel}" for torch, torchrec, kernel in wanted
        )
        return fail("versions", f"{shown} do not belong together (these do: {lines})", _INSTALL)
    if "fbgemm-gpu-cpu" in found and "fbgemm-gpu" not in found:
        return warn("versions", f"{shown}; torchrec asks for fbgemm-gpu, which is missing", _SHIM)
    if "fbgemm-gpu-cpu" in found and _line(found["fbgemm-gpu"]) != _line(found["fbgemm-gpu-cpu"]):
        return fail("versions", f"{shown}: the shim is of another line than the kernels", _SHIM)
    if "fbgemm-gpu-cpu" in found and "+cpu" not in found["fbgemm-gpu"]:
        both = "the CPU and the CUDA build have written into one folder"
        return fail("versions", f"{shown}: {both}", f"uninstall both, then {_INSTALL}")
    return ok("versions", shown)


def _line(text: str) -> str:
    """The release line of a version: 2.13.0+cpu -> 2.13."""
    return ".".join(text.partition("+")[0].split(".")[:2])
