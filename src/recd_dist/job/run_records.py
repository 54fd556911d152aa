"""What the directories of runs tell of them: config, numbers, state. Reads small files, loads no torch.

A damaged run is one whose files cannot be read; it stands in every table with what is wrong, and hides no other.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from recd_dist.job.days import DAYS_FILE
from recd_dist.job.dotted_names import dotted_names, value_at
from recd_dist.job.preflight import SUMMARY
from recd_dist.job.run_state import STATE, State, read_state
from recd_dist.job.tasks import TASKS

CONFIG, SUMMARY_STEPS = "config.yaml", "steps"
_STEP = re.compile(r"step-(\d+)$")


@dataclass(frozen=True)
class RunRecord:
    """A run as its directory tells it.

    Attributes:
        path: the directory.
        config: the options by dotted name; empty where they cannot be read.
        numbers: what it came to: ``steps``, and from summary.json ``samples_per_s``, ``loss``, ``ne``, ``auc``,
            ``dedup_factor`` by group, ``tasks`` by task.
        state: how far it is.
        message: what it said when it ended, or what is damaged.
        age_s: seconds since it was last written to.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.NEW
    message: str = ""
    age_s: float = 0.0

    @property
    def task_numbers(self) -> list[str]:
        """The names of the numbers of its tasks, where it has several."""
        tasks = self.numbers.get(TASKS)
        return list(dotted_names(tasks)) if isinstance(tasks, Mapping) else []

    @property
    def is_done(self) -> bool:
        """Whether it has trained to its end and says what it came to."""
        return self.state is State.ENDED and SUMMARY_STEPS in self.numbers

    def number(self, name: str) -> float | None:
        """One of its numbers, of a task as ``liked.auc``; None where it has none that can be compared: it diverged."""
        value = self.numbers[name] if name in self.numbers else value_at(self.numbers, f"{TASKS}.{name}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return float(value) if math.isfinite(value) else None


def find_runs(root: Path) -> Iterator[Path]:
    """The directories of runs at and below a directory, in order of their names.

    Args:
        root: a run's directory, or one that holds runs at any depth.
    """
    if is_run(root):
        yield root
        return
    for path in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        yield from find_runs(path)


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run."""
    return any((path / name).exists() for name in (CONFIG, SUMMARY, "checkpoints", STATE))


def read_run(path: Path) -> RunRecord:
    """Reads what there is of a run; what is damaged is said, and no error.

    Args:
        path: its directory.
    """
    damages: list[str] = []
    config = _read(path / CONFIG, damages)
    summary = {**_read(path / SUMMARY, damages), **_read(path / DAYS_FILE, damages)}
    state, said = read_state(path)
    steps = [int(found[1]) for p in path.glob("checkpoints/step-*") if (found := _STEP.search(p.name))]
    numbers = {SUMMARY_STEPS: max(steps), **summary} if steps else dict(summary)
    if (path / SUMMARY).exists() and summary and not (path / STATE).exists():
        state = State.ENDED  # of an earlier release
    state = State.DAMAGED if damages else state
    flat = {name: value_at(config, name) for name in dotted_names(config)}
    return RunRecord(path, flat, numbers, state, "; ".join([*damages, *([said] if said else [])]), _age_s(path))


def _read(path: Path, damages: list[str]) -> dict[str, Any]:
    """The content of a file of the run; empty where it is not there or damaged, which is noted."""
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)  # noqa: S506
        if not isinstance(value, dict):
            raise TypeError(f"holds {type(value).__name__}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        damages.append(f"{path.name} is damaged ({str(error).splitlines()[0]})")
        return {}
    return value


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A safe loader; that of libyaml reads a hundred configs in a second; the other one takes ten times as long."""


def _age_s(path: Path) -> float:
    """Seconds since the run was last written to."""
    small = [path / name for name in (CONFIG, SUMMARY, STATE)]
    times = [
        p.stat().st_mtime for p in (path, *small, *path.glob("board/*"), *path.glob("checkpoints/*")) if p.exists()
    ]
    return max(0.0, time.time() - max(times, default=time.time()))


def differing_options(records: Sequence[RunRecord]) -> list[str]:
    """The names of options that are not the same in all runs.

    Left out are ``run_dir``, and the options of the data where the runs have other data altogether.

    Args:
        records: the runs; those without a config do not count.
    """
    configs = [record.config for record in records if record.config]
    names = dict.fromkeys(name for config in configs for name in config)
    found = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1 and name != "run_dir"]
    return [name for name in found if "data.name" not in found or name == "data.name" or not name.startswith("data.")]


def short_labels(names: Sequence[str]) -> dict[str, str]:
    """For each dotted name as many of its last parts as tell it from the others: optim.dense.lr -> lr.

    Args:
        names: the dotted names.
    """
    labels = {}
    for name in names:
        parts = name.split(".")
        tails = (".".join(parts[-num:]) for num in range(1, len(parts) + 1))
        others = [f".{other}" for other in names if other != name]
        labels[name] = next((tail for tail in tails if not any(o.endswith(f".{tail}") for o in others)), name)
    return labels
