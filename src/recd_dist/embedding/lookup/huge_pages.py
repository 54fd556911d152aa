"""Puts tables on huge pages: a row then costs one miss in the processor's table of pages less."""

import ctypes
import mmap

from torch import Tensor

HUGE = 2 * 2**20
"""Bytes of a huge page."""

_COLLAPSE = 25
"""Linux 6.1's MADV_COLLAPSE: pages are put together at once. Python's mmap does not know it."""


def use_huge_pages(tensor: Tensor) -> bool:
    """Asks Linux to put a tensor on huge pages; its numbers stay as they are.

    Nothing is lost where the system offers none: another system than Linux, huge pages switched off, memory in pieces.
    Linux before 6.1 is asked to do it in the background. Pages that the tensor shares with others stay small, so that
    it takes no more memory.

    Args:
        tensor: a tensor on CPU, contiguous.

    Returns:
        True if it lies on huge pages now.
    """
    begin = -(-tensor.data_ptr() // HUGE) * HUGE
    length = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // HUGE * HUGE - begin
    wanted = getattr(mmap, "MADV_HUGEPAGE", None)
    if wanted is None or length <= 0:
        return False
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return madvise(begin, length, wanted) == 0 and madvise(begin, length, _COLLAPSE) == 0
