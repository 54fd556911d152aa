"""Where the checkpoints of a run lie, in its directory or where ``checkpoint.path`` says, and what they tell of it."""

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.checkpoint.catalog import DESCRIPTION, Checkpoint, find_newest, list_steps, list_whole, read_description
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.config import from_yaml
from recd_dist.job.job import require_writable
from recd_dist.job.options import TrainConfig
from recd_dist.table.location import Location, StoreError, file_size, is_remote, location, put

BEST_DIRECTORY = "best"
"""The directory of the best checkpoints, in the run's directory or in ``checkpoint.path``."""


_PASSING = ("memory",)
"""Protocols of stores that are gone when the process ends, and that each rank has for itself."""


def run_directory(text: str) -> Path:
    """The directory that ``run_dir`` names.

    Raises:
        ConfigError: the text is empty, as after a variable of the shell that is not set, or names a store.
    """
    if not text.strip():
        raise ConfigError(f"run_dir={text}: names no directory; write run_dir=runs/NAME, or leave it out")
    protocol, is_address, rest = text.partition("://")
    if not is_address:
        return Path(text).expanduser()
    if protocol.lower() == "file":
        raise ConfigError(f"run_dir={text}: is an address; write it as a path, run_dir={rest}")
    raise ConfigError(
        f"run_dir={text}: the directory of a run is local, or on a file system that all hosts see; name such a one, "
        f"and checkpoint.path={text} for checkpoints in the store"
    )


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


def require_place(config: TrainConfig) -> None:
    """Proves that checkpoints can be written where ``checkpoint.path`` says, before hours of training show it.

    Raises:
        ConfigError: they cannot; the message has the reason.
    """
    if config.checkpoint.path is None:
        return
    option = f"checkpoint.path={config.checkpoint.path}"
    if not config.checkpoint.path.strip():
        raise ConfigError(f"{option}: names no directory; leave it out, or write null, for the one of the run")
    root = _root(config)
    if config.checkpoint.path.partition("://")[0].lower() in _PASSING and is_remote(root):
        raise ConfigError(f"{option}: is gone when the process ends; name a directory, or a store that stays")
    try:
        if isinstance(root, Path):
            require_writable(root)
        else:
            put(root / ".writable", b"")
            with suppress(FileNotFoundError):
                root.fs.rm_file((root / ".writable").path)
    except (ConfigError, StoreError) as error:
        raise ConfigError(f"{option}: no checkpoint can be written there ({error})") from error


def newest_readable(config: TrainConfig) -> Checkpoint | None:
    """The newest checkpoint of a run whose description can be read; None where there is none.

    Raises:
        StoreError: the store cannot be reached.
    """
    for path in reversed(list_whole(checkpoints_of(config))):
        try:
            return read_description(path)
        except StoreError:
            raise
        except DataError:
            continue
    return None


def config_of_run(config: TrainConfig) -> dict[str, Any] | None:
    """The config of the run whose checkpoints are there; None where there are none.

    It stands in the run's directory, and in each checkpoint, for a run whose directory is lost.

    Raises:
        StoreError: the store cannot be reached.
    """
    if not list_whole(checkpoints_of(config)):
        return None
    saved = Path(config.run_dir) / "config.yaml"
    if saved.is_file():
        return asdict(from_yaml("train", saved))
    found = newest_readable(config)
    known: dict[str, Any] | None = yaml.safe_load(found.extra["config"]) if found and "config" in found.extra else None
    return known


def places_of(text: str) -> list[Location]:
    """The directories with the checkpoints of a run: all, and the best.

    Args:
        text: a run's directory, one that holds ``checkpoints``, or one of checkpoints, here or in a store.

    Raises:
        ConfigError: the store cannot be opened.
    """
    root = location(text)
    saved = root / "config.yaml"
    if isinstance(saved, Path) and saved.is_file():
        with suppress(ConfigError):  # another release may have written it
            config = replace(from_yaml("train", saved), run_dir=text)  # it may have moved since
            return [checkpoints_of(config), best_of(config)]
    inside = [root / "checkpoints", root / BEST_DIRECTORY]
    return inside if any(list_steps(place) for place in inside) else [root]


def checkpoint_at(text: str) -> Location:
    """The checkpoint that a text names: itself, or the newest one of a run or of a directory of checkpoints.

    Args:
        text: the directory of a checkpoint, of a run, or of checkpoints such as ``RUN/best``, here or in a store.

    Raises:
        ConfigError: there is none.
        StoreError: the store cannot be reached.
    """
    root = location(text)
    if file_size(root / DESCRIPTION) is not None:
        return root
    if found := find_newest(places_of(text)[0]):
        return found
    raise ConfigError(
        f"{text}: no checkpoint there; name the directory of a run that `recd train` wrote, its best/, or one of its "
        "checkpoints"
    )
