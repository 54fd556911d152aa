"""Whether the libraries of a job load, tried in a process of its own: a library that crashes ends that one alone.

Started as a module it prints what loaded, and what torch says of the device, as JSON.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from recd_dist.files.json_text import json_text
from recd_dist.ranks.health.finding import Finding, fail, ok

LIBRARIES = ("numpy", "pyarrow.parquet", "duckdb", "numba", "torch", "fbgemm_gpu", "torchrec")
"""In the order in which they load; the first that fails is the cause of the others."""

LOAD_S = 180.0
"""Seconds after which loading has failed: a cold network disk needs a minute."""

_INSTALL = "install them again: remove the environment, then `make env`"
_GPU_LIBRARY = "libnvidia-ml"


def load_libraries(timeout_s: float = LOAD_S) -> dict[str, Any]:
    """Loads the libraries in another process.

    Args:
        timeout_s: seconds after which it is ended.

    Returns:
        ``loaded``: names; ``failed``: name -> why, of the first that failed; ``torch``: what torch says of its build
        and of the devices, where it loaded.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    line = [sys.executable, "-m", "recd_dist.ranks.health.libraries"]
    try:
        ended = subprocess.run(
            line, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {"loaded": [], "failed": {"torch": f"nothing was loaded after {timeout_s:.0f} s"}, "torch": {}}
    found: dict[str, Any] = {"loaded": [], "failed": {}, "torch": {}}
    for text in ended.stdout.splitlines():
        if text.startswith("{"):
            step = json.loads(text)
            found["loaded"] += step.get("loaded", [])
            found["failed"] |= step.get("failed", {})
            found["torch"] |= step.get("torch", {})
    if ended.returncode and not found["failed"]:
        next_one = next((name for name in LIBRARIES if name not in found["loaded"]), "torch")
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
        said = ended.stderr.strip().splitlines()
        found["failed"] = {next_one: f"ended its process with {how}" + (f" ({said[-1]})" if said else "")}
    return found


def check_libraries(found: Mapping[str, Any]) -> Finding:
    """Whether all libraries loaded, and a kernel of fbgemm computes what it should.

    Args:
        found: what ``load_libraries`` returned.
    """
    for name, why in found["failed"].items():
        remedy = _INSTALL
        if _GPU_LIBRARY in why:
            remedy = (
                "this is a CUDA build on a machine without the driver; install the driver, or `make env` for the CPU"
            )
        return fail("libraries", f"{name} does not load: {why}", remedy)
    return ok("libraries", f"{', '.join(name.partition('.')[0] for name in found['loaded'])} load")


def main() -> int:
    """Loads the libraries one after the other and prints a line of JSON for each step."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except BaseException as error:  # a library may even exit
            text = str(error).strip().splitlines()
            _tell({"failed": {name: f"{type(error).__name__}: {text[0] if text else ''}"}})
            return 1
        _tell({"loaded": [name]})
    import torch

    sums = torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([2, 1]))
    if sums.tolist() != [0, 2, 3]:
        _tell({"failed": {"fbgemm_gpu": f"its kernel computes {sums.tolist()}, not [0, 2, 3]"}})
        return 1
    _tell({"torch": _devices(torch)})
    return 0


def _devices(torch: Any) -> dict[str, Any]:
    """What torch says of its build and of the devices."""
    devices = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, whole = torch.cuda.mem_get_info(number)
        devices.append({"name": torch.cuda.get_device_name(number), "free_bytes": free, "bytes": whole})
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if devices else None
    return {"cuda": torch.version.cuda, "devices": devices, "nccl": nccl}


def _tell(step: Mapping[str, Any]) -> None:
    sys.stdout.write(json_text(step).replace("\n", "") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
