"""``recd stats raw --suggest``: what deduplication would gain on raw logs."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recd_dist.commands.sources import write_synthetic_logs
from recd_dist.errors import ConfigError
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_options import KEY_NAMES
from recd_dist.files.json_text import json_text
from recd_dist.job.config import load
from recd_dist.job.options import Data, EtlConfig
from recd_dist.screen.console import console

_BARE = "parquet"  # configs/data/parquet.yaml: a table that nobody has named
_EXAMPLE = "recd stats raw --suggest data.path=clicks.parquet"


def suggest(options: argparse.Namespace, config_name: str) -> int:
    """Suggests groups for raw logs.

    Args:
        options: the arguments of ``recd stats``.
        config_name: the config that its overrides belong to.

    Raises:
        ConfigError: ``--suggest`` is missing, there is no path, or a file cannot be written.
        DataError: a path, query or column does not fit.
    """
    if not options.suggest:
        flag = "raw" if "raw" in options.overrides else "--html" if options.html else "--sample"
        raise ConfigError(f"recd stats {flag}: needs --suggest, as in `recd stats raw --suggest data.path=FILE`")
    config: EtlConfig = load(config_name, _overrides(options.overrides), options.config_dir)
    for flag, file in (("--json", options.json), ("--html", options.html)):
        if file and not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"{flag} {file}: no directory {Path(file).absolute().parent}; make it first")
    from recd_dist.etl.etl_run import Options
    from recd_dist.suggest.proposals import suggest as suggest_groups
    from recd_dist.suggest.sample import SAMPLES
    from recd_dist.suggest.suggestion_text import render

    data = asdict(config.data)
    suggestion = suggest_groups(
        _source(data, config.seed),
        data_config=_said(data),
        num_samples=SAMPLES if options.sample is None else options.sample,
        options=Options(config.row_group_samples, config.compression, config.memory_limit, config.threads),
    )
    console(sys.stdout).print(render(suggestion), crop=False)
    if options.json:
        _write("--json", options.json, json_text(suggestion.to_json()) + "\n")
    if options.html:
        from recd_dist.suggest.report import to_html

        _write("--html", options.html, to_html(suggestion, shlex.join(["recd", *options.argv])))
    return 0


def _said(data: dict[str, Any]) -> dict[str, Any]:
    """What a data config says beyond the defaults of its options."""
    defaults = asdict(Data())

    def differs(value: Any, default: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(default, dict):
            return value
        return {k: v for k, v in value.items() if v != default.get(k)}

    return {name: differs(value, defaults[name]) for name, value in data.items() if value != defaults[name]}


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments without the word ``raw``; a path alone means a flat table, not the demo's."""
    overrides = [o for o in arguments if o != "raw"]
    if not any(o.startswith("data=") for o in overrides):
        overrides.insert(0, f"data={_BARE}")
    return overrides


def _source(data: dict[str, Any], seed: int) -> Source:
    """The source as far as it is described; keys and labels may be missing."""
    if not data.get("path"):
        raise ConfigError(f"data.path is missing; give the raw file, directory or glob: {_EXAMPLE}")
    write_synthetic_logs(data, seed, again=False)
    if data.get("name") == _BARE:
        stem = re.sub(r"\W+", "_", Path(str(data["path"])).name.partition(".")[0]).strip("_")
        data = data | {"name": stem or _BARE}
    keys = {k: v for k, v in (data.get("keys") or {}).items() if v is not None or k not in KEY_NAMES}
    described = {**data, "keys": keys}
    if data.get("labels"):
        return Source.from_dict(described)
    known = Source.from_dict(described | {"labels": ["label"]})
    return Source(**{**vars(known), "labels": ()})


def _write(flag: str, file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{flag} {file}: cannot be written ({error.strerror})") from error
