"""What the host knows of tensors on a device, and how numbers get there without making it wait.

On CUDA the host runs ahead: it queues the kernels of a step while the device still computes those before. Whoever asks
a tensor on the device for a number, or for a result whose size only the device knows, stops that, and the device idles
until the next kernel is queued. So sizes are computed on the host, from the batch as it was before it moved.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.tensors.tracing import is_traced

HostArray = NDArray[np.int32]
"""A copy on the host of an int32 tensor that lies on a device; on the CPU the same memory."""


def is_on_host(tensor: Tensor) -> bool:
    """Whether a tensor lies in the host's memory, where its numbers are read without waiting.

    It does not while a program is traced, in which it stands for whatever is given later.

    Args:
        tensor: the tensor.
    """
    return tensor.device.type == "cpu" and not is_traced()


def host_array(tensor: Tensor, known: HostArray | None = None) -> Any:
    """A tensor's numbers on the host. The host waits for the device if the tensor lies there and no copy is known.

    Args:
        tensor: the tensor.
        known: the same numbers, if the host has them.
    """
    return tensor.detach().cpu().numpy() if known is None else known


def host_integers(numbers: Sequence[int] | NDArray[np.int64], like: Tensor) -> Tensor:
    """Integers of this step as an int64 tensor on the device of another tensor, without making the host wait.

    Args:
        numbers: the integers.
        like: a tensor on the device.
    """
    integers = torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64))
    return integers if is_on_host(like) else integers.pin_memory().to(like.device, non_blocking=True)


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype to which autocast brings the operands of products; None where it is off or the device has none.

    Args:
        tensor: a tensor on the device.
    """
    device = tensor.device.type
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_on else None


@lru_cache(maxsize=512)
def constant(numbers: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Integers of the plan as a tensor on a device, which are copied there once.

    The tensor is shared between steps: nobody may write to it.

    Args:
        numbers: the integers.
        device: the device.
        dtype: dtype of the result.
    """
    return torch.tensor(numbers, dtype=dtype, device=device)
