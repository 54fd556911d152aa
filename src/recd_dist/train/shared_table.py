"""One look at the files for all ranks.

Flat Parquet files are opened by rank 0, which tells the others what it has found. If every rank looked for itself, one
could see a file that another one does not see yet, and their samples would have other numbers.
"""

from typing import Any

import torch.distributed as dist

from recd_dist.job.open_table import is_direct, open_table
from recd_dist.job.options import TrainConfig
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.open_files import AnyTable


def agree_on_table(config: TrainConfig, ranks: Ranks) -> AnyTable | None:
    """The table of a job that reads flat files, the same on every rank; a collective then.

    Args:
        config: the config of the job.
        ranks: this rank.

    Returns:
        None for a clustered table, of which the manifest says the same to every rank.
    """
    if not is_direct(config):
        return None
    told: list[Any] = [open_table(config) if ranks.is_first else None]
    dist.broadcast_object_list(told, src=0)
    table: AnyTable = told[0]
    return table
