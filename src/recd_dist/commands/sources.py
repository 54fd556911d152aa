"""From a data config to its source; writes synthetic logs that are not there yet."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recd_dist.errors import ConfigError, nearest
from recd_dist.etl.source.source import Source
from recd_dist.job.options import SOURCE_KINDS, Data
from recd_dist.screen.command_line import command_line, override


def source_of(data: Data, seed: int = 0) -> Source:
    """The source that a data config describes.

    Args:
        data: the config.
        seed: the seed with which synthetic logs are generated.

    Raises:
        ConfigError: mistakes in the config, all in one message.
    """
    plain = asdict(data)
    write_synthetic_logs(plain, seed)
    return Source.from_dict(plain)


def no_table(data: Data, overrides: Sequence[str], config_dir: str | None) -> ConfigError:
    """The error of a command that reads a table where there is none, with the line that makes it.

    Args:
        data: the config.
        overrides: the overrides from which it came.
        config_dir: the directory of the user's own configs.
    """
    if data.reader == "direct":
        line = command_line("recd", "stats", "raw", "--suggest", override("data.path", str(data.path)))
        return ConfigError(f"data.reader=direct: there is no table to look at; `{line}` looks at the files themselves")
    of_data = [o for o in overrides if re.match(r"\+*(data[.=]|hydra\.searchpath=)", o)]
    line = command_line("recd", "etl", *(["--config-dir", config_dir] if config_dir else []), *of_data)
    return ConfigError(f"data.table={data.table}: no clustered table there; make it with `{line}`")


def write_synthetic_logs(data: Mapping[str, Any], seed: int, *, again: bool = True) -> None:
    """Writes the logs of a synthetic source, unless they are there; does nothing for other sources.

    Args:
        data: the data config as a plain dict.
        seed: the seed with which the logs are generated.
        again: replace logs that were made with other parameters; False: any that are there stay.

    Raises:
        ConfigError: an unknown kind of source, or parameters that do not fit.
        DataError: something else is there, or the disk is full.
    """
    kind = data.get("source", "sql")
    if kind not in SOURCE_KINDS:
        raise ConfigError(f"data.source={kind}: unknown{nearest(str(kind), SOURCE_KINDS)}")
    path = Path(str(data["path"]))
    if kind == "sql" or (path.exists() and not again):
        return
    if kind == "synthetic_events":
        from recd_dist.synthetic.event_spec import EventSpec
        from recd_dist.synthetic.events import generate_events

        generate_events(EventSpec.from_dict(data["synthetic_events"]), path, seed=seed)
    else:
        from recd_dist.synthetic.logs import generate
        from recd_dist.synthetic.spec import SyntheticSpec

        generate(SyntheticSpec.from_dict(data["synthetic"]), path, seed=seed, split=data.get("split"))
