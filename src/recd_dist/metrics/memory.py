"""Memory of this process, in GiB."""

import resource
from pathlib import Path

import torch

_GIB = 2.0**30


def usage(device: torch.device) -> dict[str, float]:
    """Resident memory now and at its peak, and on CUDA what the allocator holds and its peak.

    Reader workers are processes of their own and not counted.

    Returns:
        ``rss_gib``, ``rss_peak_gib``, and on CUDA ``cuda_gib``, ``cuda_peak_gib``.
    """
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {
        "rss_gib": num_pages * resource.getpagesize() / _GIB,
        "rss_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,
    }
    if device.type == "cuda":
        found["cuda_gib"] = torch.cuda.memory_allocated(device) / _GIB
        found["cuda_peak_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
    return found
