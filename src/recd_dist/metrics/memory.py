"""The memory of this process, in GiB."""

import resource
from pathlib import Path

import torch

_GIB = 2.0**30


def measure_memory(device: torch.device) -> dict[str, float]:
    """Measures resident memory now and at its peak, and on CUDA what the allocator holds now and at its peak.

    Reader workers are processes of their own, and their memory is not counted.

    Args:
        device: where this process computes.

    Returns:
        ``rss_gib`` and ``rss_peak_gib``, and on CUDA ``cuda_gib`` and ``cuda_peak_gib``.
    """
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = {
        "rss_gib": num_pages * resource.getpagesize() / _GIB,
        "rss_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB,
    }
    if device.type == "cuda":
        memory["cuda_gib"] = torch.cuda.memory_allocated(device) / _GIB
        memory["cuda_peak_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
    return memory
