"""From a data config, as a plain dict, to the options of a source; synthetic logs are written where they are wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.job.options import SOURCE_KINDS

_ELSEWHERE = ("source", "table", "tables", "synthetic", "partitions")


def source_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Source.from_dict`` takes of a data config."""
    return {name: value for name, value in data.items() if name not in _ELSEWHERE}


def make_logs(data: Mapping[str, Any], seed: int, *, again: bool = True) -> None:
    """Writes the logs of a synthetic source, unless they are there.

    Args:
        data: the data config.
        seed: of the logs.
        again: logs of other parameters are replaced; else any that are there stay.

    Raises:
        ConfigError: an unknown kind of source, or parameters that do not fit.
        DataError: something else is there, or the disk is full.
    """
    kind = data.get("source", "sql")
    if kind not in SOURCE_KINDS:
        raise ConfigError(f"data.source={kind}: unknown{nearest(str(kind), SOURCE_KINDS)}")
    path = Path(str(data["path"]))
    if kind == "synthetic" and (again or not path.exists()):
        from recd_dist.synthetic.logs import generate
        from recd_dist.synthetic.spec import SyntheticSpec

        generate(SyntheticSpec.from_dict(data["synthetic"]), path, seed=seed, split=data.get("split"))
