"""``recd checkpoint``: lists, shows, verifies, compares and exports checkpoints."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from recd_dist.checkpoint.catalog import DESCRIPTION, list_steps
from recd_dist.checkpoint.overview import describe, list_checkpoints
from recd_dist.commands.command import JSON, Argument, Command, write_json
from recd_dist.errors import ConfigError, DataError, nearest
from recd_dist.job.run_places import checkpoint_at, places_of
from recd_dist.screen.console import console
from recd_dist.screen.numbers import figure, size
from recd_dist.screen.plain_table import PlainTable
from recd_dist.table.location import Location, file_size, location

_UNITS = {"MB": 10**6, "GB": 10**9}


def run(options: argparse.Namespace) -> int:
    """Does what the first word says.

    Raises:
        ConfigError: the word is unknown, or it needs another number of paths.
    """
    if options.action not in _ACTIONS:
        raise ConfigError(f"recd checkpoint {options.action}: unknown{nearest(options.action, _ACTIONS)}")
    action, wanted = _ACTIONS[options.action]
    if len(options.paths) != len(wanted.split()):
        raise ConfigError(f"recd checkpoint {options.action}: takes {wanted}")
    return action(options)


def _list(options: argparse.Namespace) -> int:
    lines = [line for directory in places_of(options.paths[0]) for line in list_checkpoints(directory)]
    if not lines:
        raise ConfigError(f"{options.paths[0]}: no checkpoint there; name a run's directory or one with checkpoints")
    table = PlainTable(
        "", ("checkpoint", "written", "size", "ranks", "quality", "state"), ("written", "quality", "state")
    )
    for line in lines:
        num_bytes, quality = line["bytes"], line["quality"] or {}
        shown = ", ".join(f"{name} {figure(quality[name])}" for name in ("ne", "auc") if quality.get(name) is not None)
        state = line["state"] + (" (latest)" if line["latest"] else "")
        sized = "-" if num_bytes is None else size(num_bytes)
        table.add_row(line["path"], line["time"] or "-", sized, str(line["world_size"] or "-"), shown or "-", state)
    _print(table)
    write_json(options.json, lines)
    return 0


def _show(options: argparse.Namespace) -> int:
    found = describe(checkpoint_at(options.paths[0]))
    num_bytes = found["bytes"]
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    _print(
        f"{found['path']}: step {found['step']:,}, {found['world_size']} ranks, "
        f"{'of unknown size' if num_bytes is None else size(num_bytes)}, {len(found['files'])} files"
    )
    if versions:
        _print(f"written {found['time']} in {found['seconds']} s by {versions}")
    _print(f"labels {', '.join(found['labels'])}; {len(found['features'])} features")
    table = PlainTable("", ("tensor", "shape", "dtype", "parts"), ("dtype",))
    for tensor in found["tensors"]:
        table.add_row(
            tensor["name"], " x ".join(map(str, tensor["shape"])) or "1", tensor["dtype"], str(tensor["parts"])
        )
    _print(table)
    if options.config:
        _print(str(found["extra"].get("config", "")).rstrip())
    write_json(options.json, found)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from recd_dist.checkpoint.soundness import find_damage

    given = location(options.paths[0])
    is_one = file_size(given / DESCRIPTION) is not None
    paths = [given] if is_one else [path for place in places_of(options.paths[0]) for path in list_steps(place)]
    if not paths:
        raise ConfigError(f"{options.paths[0]}: no checkpoint there; name a run's directory or one with checkpoints")
    found = {str(path): find_damage(path) for path in paths}
    for path, damage in found.items():
        _print(f"{path}: {f'DAMAGED: {damage}' if damage else 'sound'}")
    write_json(options.json, [{"path": path, "damage": damage} for path, damage in found.items()])
    return 1 if any(found.values()) else 0


def _diff(options: argparse.Namespace) -> int:
    from recd_dist.checkpoint.stored_tensors import StoredTensors, compare

    one, other = (_sound_at(text) for text in options.paths)
    first, second = StoredTensors(one), StoredTensors(other)
    lines: list[dict[str, Any]] = []
    with _Bar("comparing", sum(map(first.num_bytes, first.kinds))) as advance:
        for name, difference, gap in compare(first, second):
            lines.append({"tensor": name, "difference": difference, "max_abs": gap})
            advance(first.num_bytes(name) if name in first.kinds else 0)
    differ = [line for line in lines if line["difference"]]
    table = PlainTable("", ("tensor", "largest", "difference"), ("difference",))
    for line in differ:
        table.add_row(line["tensor"], _gap(line["max_abs"]), line["difference"])
    if differ:
        _print(table)
    _print(f"{len(differ):,} of {len(lines):,} tensors differ between {one} and {other}")
    write_json(options.json, {"first": str(one), "second": str(other), "tensors": lines})
    return 1 if differ else 0


def _convert(options: argparse.Namespace) -> int:
    from recd_dist.checkpoint.export import export
    from recd_dist.checkpoint.stored_tensors import StoredTensors

    out, part_bytes = location(options.paths[1]), _bytes(options.part)
    if not isinstance(out, Path):
        raise ConfigError(f"{out}: a local file is needed; upload it afterwards")
    path = _sound_at(options.paths[0])
    tensors = StoredTensors(path)
    names = [name for name in tensors.kinds if options.optimizer or name.startswith("model/")]
    with _Bar("converting", sum(map(tensors.num_bytes, names))) as advance:
        files = export(path, out, part_bytes, with_optimizer=options.optimizer, report=advance)
    for file in files:
        _print(f"{file}: {size(file.stat().st_size)}")
    write_json(options.json, {"checkpoint": str(path), "files": [str(file) for file in files]})
    return 0


def _sound_at(text: str) -> Location:
    """The checkpoint that a text names, whose files are as they were written.

    Raises:
        DataError: it is damaged.
    """
    from recd_dist.checkpoint.soundness import find_damage

    path = checkpoint_at(text)
    if damage := find_damage(path):
        raise DataError(f"{path}: {damage}; `recd checkpoint verify RUN` says which checkpoints of a run are sound")
    return path


_ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "list": (_list, "RUN"),
    "show": (_show, "CHECKPOINT"),
    "verify": (_verify, "RUN"),
    "diff": (_diff, "CHECKPOINT CHECKPOINT"),
    "convert": (_convert, "CHECKPOINT FILE.safetensors"),
}
"""What can be done, and the paths that it takes."""


def _bytes(text: str) -> int:
    """The bytes of a size such as 4GB.

    Raises:
        ConfigError: it is none.
    """
    number, unit = text[:-2], text[-2:].upper()
    if unit not in _UNITS or not number.isdigit() or int(number) < 1:
        raise ConfigError(f"--part {text}: no size; write 500MB or 4GB")
    return int(number) * _UNITS[unit]


def _gap(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


class _Bar:
    """A progress bar in bytes, on a terminal."""

    def __init__(self, what: str, num_bytes: int) -> None:
        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        screen = console(sys.stderr)
        self._bar = Progress(*columns, console=screen, transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("", total=num_bytes)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.__enter__()
        return lambda num_bytes: self._bar.advance(self._task, num_bytes)

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def _print(text: Any) -> None:
    console(sys.stdout).print(text, highlight=False, soft_wrap=True, markup=False)


COMMAND = Command(
    name="checkpoint",
    summary="list, show, verify, compare and export checkpoints",
    details="list RUN                 every checkpoint of a run: when, how large, of which quality, whole or not\n"
    "show CHECKPOINT          tables, tensors, ranks and versions of one; --config prints the config, too\n"
    "verify RUN               reads every file and compares it with its checksum; exit code 1 when one is damaged\n"
    "diff ONE OTHER           the tensors that differ, and by how much; exit code 1 when some do\n"
    "convert CHECKPOINT FILE  the weights as safetensors, whole tables whatever plan they were trained under\n"
    "A run's directory stands for its newest checkpoint, RUN/best for the best one; stores are read, too.",
    examples=(
        "recd checkpoint list runs/tiny-dlrm",
        "recd checkpoint verify runs/tiny-dlrm --json verified.json",
        "recd checkpoint diff runs/a runs/b",
        "recd checkpoint convert runs/tiny-dlrm model.safetensors",
    ),
    run=run,
    arguments=(
        Argument("action", "list, show, verify, diff or convert"),
        Argument("paths", "a run's directory, or that of one checkpoint", {"nargs": "*", "metavar": "PATH"}),
        Argument("--config", "show: print the run's config", {"action": "store_true"}),
        Argument("--optimizer", "convert: the states of the optimizers, too", {"action": "store_true"}),
        Argument("--part", "convert: the most bytes of a file (default 4GB)", {"default": "4GB", "metavar": "SIZE"}),
        JSON,
    ),
)
