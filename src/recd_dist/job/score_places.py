"""Where scores lie, and where the work on them lies until they are whole."""

import json
import os
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.job.options import PredictConfig
from recd_dist.table.location import Location, contents, file_size, is_remote, location

SUCCESS = "_SUCCESS"
"""The last file of a directory of scores that is written; it names the others."""


def scores_directory(config: PredictConfig) -> Location:
    """Where the scores of a config shall lie."""
    if config.out:
        return location(config.out)
    return Path(config.run_dir) / "scores" / ("input" if reads_input(config) else config.split)


def reads_input(config: PredictConfig) -> bool:
    """Whether a config scores files or the rows of a query, and no split of a table."""
    return config.data.path is not None or config.data.sql is not None


def work_directory(out: Location) -> Location:
    """The directory beside the scores that holds what is finished of them.

    Args:
        out: the directory of the scores, local or in a store.
    """
    place = Path(os.path.abspath(out)) if isinstance(out, Path) else out
    return place.parent / f".{place.name}.partial"


def read_success(out: Location) -> dict[str, Any]:
    """What ``_SUCCESS`` says of the scores in a directory.

    Args:
        out: the directory, local or in a store.
    """
    value: dict[str, Any] = json.loads(contents(out / SUCCESS))
    return value


def require_free(out: Location, overwrite: bool) -> None:
    """Refuses a directory that holds what may not be replaced.

    Args:
        out: the directory, local or in a store.
        overwrite: scores that are there are replaced.

    Raises:
        ConfigError: scores are there that may not be replaced, or something else; or it is named like a file.
    """
    if out.suffix == ".parquet":
        raise ConfigError(f"out={out}: several files are written, so name a directory: out={str(out)[:-8]}")
    if file_size(out) is not None:
        raise ConfigError(f"out={out}: a file is there; name a directory for the scores")
    if file_size(out / SUCCESS) is not None:
        if not overwrite:
            raise ConfigError(
                f"out={out}: scores are there already; overwrite=true replaces them, or choose another directory"
            )
        return
    if is_remote(out):
        return  # parts without _SUCCESS are what a killed upload has left
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"out={out}: something else than scores is there; choose another directory")
