"""``recd stats raw --suggest``: from a config to what is printed and written."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from recd_dist.commands.sources import make_logs, source_options
from recd_dist.errors import ConfigError
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import KEY_NAMES
from recd_dist.suggest.proposals import suggest
from recd_dist.suggest.report import to_html
from recd_dist.suggest.sample import SAMPLES
from recd_dist.suggest.suggestion_text import render

_BARE = "parquet"  # configs/data/parquet.yaml: a table that nobody has named
_EXAMPLE = "recd stats raw --suggest data.path=clicks.parquet"


def overrides_of(given: Sequence[str]) -> list[str]:
    """Overrides without the word ``raw``; a path alone is a flat table, not the demo's.

    Args:
        given: arguments of the command.
    """
    overrides = [o for o in given if o != "raw"]
    if not any(o.startswith("data=") for o in overrides):
        overrides.insert(0, f"data={_BARE}")
    return overrides


def run(
    data: dict[str, Any],
    *,
    num_samples: int | None = None,
    compression: str = "zstd",
    memory_limit: str = "1GB",
    seed: int = 0,
    json_file: str | None = None,
    html_file: str | None = None,
    command: Sequence[str] = (),
) -> None:
    """Suggests groups, prints them, and writes what was asked for.

    Args:
        data: the data config as a plain dict.
        num_samples: to look at; None takes the default.
        compression: of the table.
        memory_limit: of DuckDB.
        seed: of a synthetic source that is not there yet.
        json_file: where to write JSON; None writes none.
        html_file: where to write the report; None writes none.
        command: arguments as typed, shown in the report.

    Raises:
        ConfigError: no path, or a file that cannot be written.
        DataError: a path, query or column that does not fit.
    """
    for option, file in (("--json", json_file), ("--html", html_file)):
        if file and not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"{option} {file}: no directory {Path(file).absolute().parent}; make it first")
    source = _source(data, seed)
    found = suggest(
        source,
        given=data,
        num_samples=SAMPLES if num_samples is None else num_samples,
        compression=compression,
        memory_limit=memory_limit,
    )
    Console(width=None if sys.stdout.isatty() else 120).print(render(found))
    if json_file:
        _write("--json", json_file, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
    if html_file:
        _write("--html", html_file, to_html(found, shlex.join(["recd", *command])))


def _source(data: dict[str, Any], seed: int) -> Source:
    """The source as far as it is described; keys and labels may be missing."""
    if not data.get("path"):
        raise ConfigError(f"data.path is missing; give the raw file, directory or glob: {_EXAMPLE}")
    make_logs(data, seed, again=False)
    if data.get("name") == _BARE:
        stem = re.sub(r"\W+", "_", Path(str(data["path"])).name.partition(".")[0]).strip("_")
        data = data | {"name": stem or _BARE}
    described = source_options(data)
    described["keys"] = {k: v for k, v in (data.get("keys") or {}).items() if v is not None or k not in KEY_NAMES}
    if data.get("labels"):
        return Source.from_dict(described)
    known = Source.from_dict(described | {"labels": ["label"]})
    return Source(**{**vars(known), "labels": ()})


def _write(option: str, file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {file}: cannot be written ({error.strerror})") from error
