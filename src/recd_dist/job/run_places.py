"""Where the checkpoints of a run lie: in its directory, or where ``checkpoint.path`` says."""

from pathlib import Path

from recd_dist.job.options import TrainConfig
from recd_dist.table.location import Location, location

BEST_DIRECTORY = "best"
"""The directory of the best checkpoints, in the run's directory or in ``checkpoint.path``."""


def checkpoints_of(config: TrainConfig) -> Location:
    """The directory of a run's checkpoints.

    Raises:
        ConfigError: the store that ``checkpoint.path`` names cannot be opened.
    """
    return _root(config) / "checkpoints"


def best_of(config: TrainConfig) -> Location:
    """The directory of a run's best checkpoints.

    Raises:
        ConfigError: the store that ``checkpoint.path`` names cannot be opened.
    """
    return _root(config) / BEST_DIRECTORY


def _root(config: TrainConfig) -> Location:
    path = config.checkpoint.path
    return location(path) if path is not None else Path(config.run_dir)
