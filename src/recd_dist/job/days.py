"""The days that a run, and the runs before it, have trained one after the other (``progressive``).

::

    monday's run              tuesday's run, run_from=monday
    day 24, day 25    ---->   chain: day 24, day 25      days: day 26

Every checkpoint has both: the chain, which is what there was when its run began, and the days of the run itself. Loads
no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from recd_dist.errors import ConfigError
from recd_dist.job.options import TrainConfig
from recd_dist.table.manifest import Manifest

CHAIN, DAYS, PARTITIONS = "chain", "days", "partitions"
"""Keys of a checkpoint's extra values: the runs before; in the reader's position the days; the partitions trained."""

NUMBERS = ("auc", "ne", "loss", "rmse")
"""Numbers of an evaluation that days are told by, of those that a task has; beside the recall of the shortest list."""

MEAN = "progressive_"
"""What the names of a run's numbers over all days begin with."""

DAYS_FILE = "days.json"
"""The file in a run's directory with its days, while it trains and afterwards."""

Drawn = tuple[tuple[int, int], ...]
"""How the rows of a table were drawn: rows up to a number, as in a table of so many rows, from a seed."""


@dataclass(frozen=True)
class Day:
    """A partition, and what it came to.

    Attributes:
        name: the partition, such as ``2026-11-26``.
        run: the directory of the run that trained it.
        samples: its samples.
        epochs: how often each was trained.
        first_step, last_step: the steps of the run before its first and after its last sample; None while it is not
            trained to its end, and where it was not trained day by day.
        before: its evaluation by the model that had not trained it yet; empty before that.
        loss: the mean loss of its samples while they were trained for the last time.
        samples_per_s: samples of all ranks trained in a second.
        new_rows: for each table the rows that it looks up and that no step had changed before; of a mapped table the
            ids that have got one.
        unknown: for each table the share of the lookups of its evaluation that went to such rows; of a mapped table
            those of the unknown row.
    """

    name: str
    run: str
    samples: int = 0
    epochs: int = 1
    first_step: int | None = None
    last_step: int | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    loss: float = math.nan
    samples_per_s: float = math.nan
    new_rows: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; ``Day.from_json`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Day":
        """The day that ``to_json`` wrote, perhaps in a release that knows more of it."""
        known = {f.name: value[f.name] for f in fields(Day) if f.name in value}
        for name in ("loss", "samples_per_s"):
            known[name] = math.nan if known.get(name) is None else known[name]
        return Day(**known)

    @property
    def number_of(self) -> dict[str, float]:
        """The numbers of its evaluation that it is told by; those of the first task."""
        recalls = sorted(
            (name for name in self.before if name.startswith("recall@")), key=lambda name: (len(name), name)
        )
        names = (*NUMBERS, *recalls[:1])
        return {name: float(self.before[name]) for name in names if _is_number(self.before.get(name))}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Chain:
    """What there was when a run began.

    Attributes:
        steps: the steps of the runs before it.
        days: the days that they have trained.
        drawn: for each table how its rows were drawn, as it grew from run to run; empty where all are of this run.
    """

    steps: int = 0
    days: tuple[Day, ...] = ()
    drawn: Mapping[str, Drawn] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, as a checkpoint holds it."""
        return {"steps": self.steps, "days": [day.to_json() for day in self.days], "drawn": dict(self.drawn)}


def chain_of(extra: Mapping[str, Any]) -> Chain:
    """The chain that a checkpoint holds: of the run that wrote it.

    Args:
        extra: the extra values of the checkpoint; an earlier release has no chain in them.
    """
    stored = extra.get(CHAIN, {})
    drawn = {name: tuple((int(a), int(b)) for a, b in parts) for name, parts in stored.get("drawn", {}).items()}
    return Chain(int(stored.get("steps", 0)), tuple(map(Day.from_json, stored.get("days", ()))), drawn)


def days_of(extra: Mapping[str, Any]) -> tuple[Day, ...]:
    """The days that the run of a checkpoint has trained to their end, or has begun.

    Args:
        extra: the extra values of the checkpoint.
    """
    return tuple(map(Day.from_json, extra.get("reader", {}).get(DAYS, ())))


def chain_after(extra: Mapping[str, Any], step: int, run: str) -> Chain:
    """The chain of a run that begins with a checkpoint of another one.

    Args:
        extra: the extra values of that checkpoint.
        step: its step.
        run: what to call its run, where that did not go day by day.
    """
    before, own = chain_of(extra), days_of(extra)
    if DAYS not in extra.get("reader", {}):
        known = {day.name for day in before.days}
        own = tuple(Day(name, run) for name in extra.get(PARTITIONS, ()) if name not in known)
    return Chain(before.steps + step, (*before.days, *own), before.drawn)


def days_left(config: TrainConfig, manifest: Manifest, chain: Chain, own: Sequence[Day]) -> tuple[str, ...]:
    """The partitions that are left to train, in their order.

    Those that ``data.partitions`` names are trained whatever the runs before have done; otherwise all are that no run
    has trained.

    Args:
        config: the config of the run.
        manifest: what it trains on.
        chain: the runs before.
        own: the days of the run; one that has begun and not ended is left.
    """
    done = {day.name for day in own if day.last_step is not None}
    if config.data.partitions is None:
        done |= {day.name for day in chain.days}
    return tuple(name for name in manifest.partitions if name not in done)


def check_days(config: TrainConfig, manifest: Manifest, chain: Chain, world_size: int) -> None:
    """Refuses what does not go day by day.

    Args:
        config: the config of the run.
        manifest: what it trains on.
        chain: the runs before.
        world_size: the number of ranks.

    Raises:
        ConfigError: the message names the option and the remedy.
    """
    if not config.progressive:
        return
    if config.reader.follow:
        raise ConfigError(
            "progressive=true: reader.follow=true trains parts as they come; choose one of them, and partitions of a "
            "table (`recd etl ... append=true`) to go day by day"
        )
    if not manifest.partitions:
        raise ConfigError(
            f"progressive=true: the table {manifest.name}/{manifest.split} has no partitions; make it with "
            "`recd etl ... data.partition=day overwrite=true`"
        )
    if config.evaluate.patience is not None:
        raise ConfigError(
            f"progressive=true: evaluate.patience={config.evaluate.patience} would end training before the last day; "
            "write evaluate.patience=null"
        )
    sizes = dict.fromkeys(manifest.partitions, 0)
    for part in manifest.parts:
        sizes[part.partition] += part.num_samples
    for name, size in sizes.items():
        if size < world_size:
            raise ConfigError(
                f"progressive=true: partition '{name}' has {size} samples for {world_size} ranks, each needs at least "
                "one; start fewer ranks, or leave it out of data.partitions"
            )
    open_days = [day for day in chain.days if day.last_step is None and day.first_step is not None]
    if open_days and config.data.partitions is None:
        raise ConfigError(
            f"run_from={config.run_from}: that checkpoint is from the middle of {open_days[0].name}; train "
            f"{open_days[0].run} to its end, or name the days to train, data.partitions=[{open_days[0].name}]"
        )


def mean_before(days: Sequence[Day]) -> dict[str, float]:
    """Numbers of all days' evaluations as one, each day weighed by its samples.

    The first day of a chain was evaluated by a model that had learnt nothing; it does not count.

    Args:
        days: the chain and the days of a run.
    """
    known = [day for day in days[1:] if day.before]
    means = {}
    for name in dict.fromkeys(name for day in known for name in day.number_of):
        of_days = [(day.number_of[name], day.samples) for day in known if name in day.number_of]
        if of_days and len(of_days) == len(known):
            means[name] = sum(value * size for value, size in of_days) / sum(size for _, size in of_days)
    return means


def with_drawn(chain: Chain, sizes: Mapping[str, tuple[int, int]], was_seed: int, seed: int) -> Chain:
    """The chain of a run whose tables have grown.

    Args:
        chain: what there was.
        sizes: for each table its rows before and now.
        was_seed: the seed of the run before.
        seed: the seed of the run.
    """
    drawn = {}
    for name, (was, now) in sizes.items():
        parts = chain.drawn.get(name) or ((was, was_seed),)
        drawn[name] = (*parts, (now, seed)) if now > was else parts
    return replace(chain, drawn=drawn)
