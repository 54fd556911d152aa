"""What all ranks find out together: each other's values, and whether a write has failed on one of them."""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from recd_dist.errors import DataError

Group = dist.ProcessGroup | None
"""The ranks that agree; None: all ranks of the default group."""


class SaveError(Exception):
    """A rank could not write."""


def rank() -> int:
    """This rank's number; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any, group: Group = None) -> list[Any]:
    """Every rank's value, on every rank; a collective.

    Args:
        value: a small value that can be pickled.
        group: the ranks, which are all ranks of the job.
    """
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value, group=group)
    return values


def all_or_none(write: Callable[[], Any], group: Group = None) -> list[Any]:
    """Calls ``write`` on every rank; when it fails on one rank, all ranks raise; a collective.

    Args:
        write: what to do.
        group: the ranks.

    Returns:
        What it returned on every rank.

    Raises:
        SaveError: the first rank's reason, in its words.
    """
    value, failure = None, None
    try:
        value = write()
    except (OSError, RuntimeError, DataError) as error:  # torch.save raises RuntimeError when the disk is full
        failure = str(error)
    told = gather((failure, value), group)
    if failures := [failed for failed, _ in told if failed]:
        raise SaveError(failures[0])
    return [done for _, done in told]
