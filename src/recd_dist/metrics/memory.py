"""Memory of this process, in GiB."""

import resource
from pathlib import Path

import torch

_GIB = 2.0**30


def usage_gib(device: torch.device) -> dict[str, float]:
    """Resident memory now and at its peak, and on CUDA what the allocator holds and its peak.

    Reader workers are processes of their own and not counted.

    Returns:
        ``rss``, ``rss_peak``, and on CUDA ``cuda``, ``cuda_peak``: GiB, the lines of the dashboard's memory chart.
    """
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {
        "rss": num_pages * resource.getpagesize() / _GIB,
        "rss_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.memory_allocated(device) / _GIB
        found["cuda_peak"] = torch.cuda.max_memory_allocated(device) / _GIB
    return found
