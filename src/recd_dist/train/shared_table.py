"""One look at the files for all ranks.

Rank 0 opens the table and tells the others what it has found. If every rank looked for itself, one could see a file
that another one does not see yet, and their samples would have other numbers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from recd_dist.errors import UserError
from recd_dist.job.open_table import open_table
from recd_dist.job.options import TrainConfig
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.open_files import AnyTable

T = TypeVar("T")


def agree_on(look: Callable[[], T], ranks: Ranks) -> T:
    """What rank 0 sees, the same on every rank; a collective.

    Args:
        look: opens a table, or looks for files; called on rank 0 alone.
        ranks: this rank.

    Raises:
        ConfigError, DataError: rank 0 cannot; every rank says so.
    """
    told: list[Any] = [None]
    if ranks.is_first:
        try:
            told = [look()]
        except UserError as error:
            told = [error]
    dist.broadcast_object_list(told, src=0)
    if isinstance(told[0], UserError):
        raise told[0]
    seen: T = told[0]
    return seen


def agree_on_table(config: TrainConfig, ranks: Ranks) -> AnyTable:
    """The table of a job that is trained on; a collective."""
    return agree_on(lambda: open_table(config), ranks)
