"""The releases of torch, TorchRec and fbgemm that belong together.

fbgemm's kernels are compiled against one torch and do not load beside another; TorchRec calls fbgemm's operators by
name and argument. pip knows of neither, so that a later ``pip install -U torch`` breaks an environment without a word.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass

from recd_dist.errors import ConfigError


@dataclass(frozen=True)
class ReleaseLine:
    """Releases that were chosen and tested together; any patch release of them counts as the same.

    Attributes:
        name: as VERSIONS names it in ``make env``; empty for the default line.
        torch: major and minor number, such as ``2.13``.
        torchrec: the same of TorchRec.
        fbgemm: the same of fbgemm-gpu (CUDA) or fbgemm-gpu-cpu.
    """

    name: str
    torch: str
    torchrec: str
    fbgemm: str

    def __str__(self) -> str:
        return f"torch {self.torch}, torchrec {self.torchrec}, fbgemm-gpu {self.fbgemm}"


LINES = (ReleaseLine("", "2.13", "1.8", "1.8"), ReleaseLine("newest", "2.14", "1.9", "1.9"))
"""Every line that is tested; the first is the default."""

CPU_BUILD, CUDA_BUILD = "fbgemm-gpu-cpu", "fbgemm-gpu"


def installed_versions() -> dict[str, str]:
    """The versions that are installed here.

    Returns:
        Distribution -> version, of torch, torchrec, fbgemm-gpu-cpu and fbgemm-gpu; those that are not here are absent.
        The shim that stands in for fbgemm-gpu beside the CPU build (``1.8.0+cpu``) is none.
    """
    found = {}
    for name in ("torch", "torchrec", CPU_BUILD, CUDA_BUILD):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name != CUDA_BUILD or not version.endswith("+cpu"):
            found[name] = version
    return found


def require_release_line(versions: Mapping[str, str] | None = None) -> ReleaseLine:
    """Finds the release line of an environment, without importing any of its libraries.

    Args:
        versions: distribution -> version, as ``installed_versions`` returns them; those installed here by default.

    Returns:
        The line whose releases are all there.

    Raises:
        ConfigError: a library is missing, or those that are there do not belong together.
    """
    versions = installed_versions() if versions is None else versions
    if CPU_BUILD in versions and CUDA_BUILD in versions:
        raise ConfigError(
            f"{CPU_BUILD} {versions[CPU_BUILD]} and {CUDA_BUILD} {versions[CUDA_BUILD]} write the same files: remove "
            "both (pip uninstall fbgemm-gpu fbgemm-gpu-cpu), then install the one that you need"
        )
    fbgemm = CUDA_BUILD if CUDA_BUILD in versions else CPU_BUILD
    names = ("torch", "torchrec", fbgemm)
    if missing := [name for name in names if name not in versions]:
        raise ConfigError(f"{', '.join(missing)}: not installed; `make env`, or pip install 'recd-dist[cpu]'")
    minors = [".".join(versions[name].split(".")[:2]) for name in names]
    for line in LINES:
        if minors == [line.torch, line.torchrec, line.fbgemm]:
            return line
    raise ConfigError(
        f"{', '.join(f'{name} {versions[name]}' for name in names)} do not belong together; install "
        f"{', or '.join(str(line) for line in LINES)} (`make env`, pip install 'recd-dist[cpu]' or 'recd-dist[cuda]')"
    )
