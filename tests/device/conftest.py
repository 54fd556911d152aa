"""CUDA builds on a machine without a driver: fbgemm-gpu 1.9 wants a library that only drivers bring."""

import ctypes
import ctypes.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

_NVML = "libnvidia-ml.so.1"
_ASKED = ("Init_v2", "DeviceGetCount_v2", "DeviceGetHandleByIndex_v2", "DeviceGetPciInfo_v3")
_ASKED_OF_LINKS = ("DeviceGetNvLinkState", "DeviceGetNvLinkRemotePciInfo_v2")


def _load_stub() -> str | None:
    """Loads a library of the six functions that fbgemm-gpu asks for, each of which says that there is no driver.

    Returns:
        Why it cannot be made; None where a driver's own is there, or the stub.
    """
    try:
        ctypes.CDLL(_NVML, ctypes.RTLD_GLOBAL)
    except OSError:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            return f"no {_NVML} here (the driver brings it), and no C compiler to make a stub of it"
        source = "".join(f"int nvml{name}(void) {{ return 9; }}\n" for name in (*_ASKED, *_ASKED_OF_LINKS))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / _NVML
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{_NVML}", "-x", "c", "-", "-o", str(path)]
            subprocess.run(command, input=source.encode(), check=True)
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    return None


_reason = _load_stub() if torch.version.cuda and not torch.cuda.is_available() else None
collect_ignore_glob = ["test_*"] if _reason else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        for item in items:
            if "tests/device" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="there is a real device here: benchmarks/gpu.py uses it"))
