"""Sweeps: the values of options on a command line, and the runs that follow from them.

::

    data=tiny optim.dense.lr=0.01,0.02 seed=range(1,3)

    fixed  data=tiny
    swept  optim.dense.lr: 0.01 | 0.02          lr=0.01_seed=1   lr=0.01_seed=2
           seed:           1 | 2                lr=0.02_seed=1   lr=0.02_seed=2      one directory each

Several values are written as in Hydra: with commas between them, as ``choice(a, b)``, or as a range without its stop,
``range(start, stop, step)``. A comma in brackets, braces or quotes belongs to a value: ``model.over=[64,32],[128]``.
"""

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recd_dist.errors import ConfigError
from recd_dist.job.overrides import Override, parse_override
from recd_dist.screen.command_line import command_line, split_list, unquote

_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_OTHER_SWEEPS = ("interval", "glob", "tag", "sort", "shuffle", "extend_list")
"""Functions of Hydra's sweeps that are not there."""

_MOST_RUNS = 10_000
_LONGEST_NAME = 100
SEED = "seed"
"""The option over which results are averaged."""


@dataclass(frozen=True)
class Axis:
    """An option with its values, as they were typed.

    Attributes:
        name: the dotted name of the option.
        label: its last part, or as much of it as tells it from the others.
        values: at least two.
    """

    name: str
    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        name: the name of its directory.
        chosen: the value of each axis by its label, in the order of the axes.
        overrides: its own overrides, behind those that all runs share.
    """

    name: str
    chosen: dict[str, str] = field(hash=False)
    overrides: tuple[str, ...]

    @property
    def shown(self) -> str:
        """What tells it from the others, for people."""
        return " ".join(f"{label}={value}" for label, value in self.chosen.items())


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
        fixed: the overrides that all runs share.
        axes: the options that differ.
        combinations: the runs.
    """

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    combinations: tuple[Combination, ...]


def plan_sweep(overrides: Sequence[str], sample: int | None = None, sample_seed: int = 0) -> Sweep:
    """The runs that a command line asks for.

    Args:
        overrides: the overrides; those with several values make an axis.
        sample: so many runs, drawn at random; None takes all.
        sample_seed: the seed of that draw.

    Raises:
        ConfigError: no option has several values, a value cannot be read, or there are too many runs.
    """
    given = [(parse_override(typed), split_values(typed)) for typed in overrides]
    swept = {override.name: (override, values) for override, values in given if len(values) > 1}
    if not swept:
        example = command_line("recd", "sweep", *overrides, f"{SEED}=1,2,3")
        raise ConfigError(f"no option has several values, which stand between commas, as in `{example}`")
    for name in swept:
        if sum(override.name == name for override, _ in given) > 1:
            raise ConfigError(f"{name}: stands there twice; give all its values at once")
    fixed = tuple(override.typed for override, _ in given if override.name not in swept)
    labels = _shorten([override for override, _ in swept.values()])
    axes = tuple(Axis(name, labels[name], tuple(values)) for name, (_, values) in swept.items())
    num_runs = math.prod(len(axis.values) for axis in axes)
    if num_runs > _MOST_RUNS and sample is None:
        raise ConfigError(f"{num_runs:,} runs: at most {_MOST_RUNS:,} at a time; --sample 100 draws some of them")
    if sample is not None and sample < 1:
        raise ConfigError(f"--sample {sample}: must be at least 1")
    combinations = []
    for number in _draw(num_runs, sample, sample_seed):
        values = _values_at(axes, number)
        typed = tuple(_with_value(swept[axis.name][0], value) for axis, value in zip(axes, values, strict=True))
        chosen = {axis.label: value for axis, value in zip(axes, values, strict=True)}
        combinations.append(Combination(_directory_name(chosen), chosen, typed))
    counts = Counter(combination.name for combination in combinations)
    alike = {name for name, count in counts.items() if count > 1}
    named = (replace(c, name=f"{c.name}-{_digest(c.overrides)}") if c.name in alike else c for c in combinations)
    return Sweep(fixed, axes, tuple(named))


def _with_value(override: Override, value: str) -> str:
    """The override with one of its values."""
    return f"{override.typed[: len(override.typed) - len(override.text)]}{value}"


def split_values(typed: str) -> list[str]:
    """The values of an override; a single one where nothing asks for several.

    Args:
        typed: the override, ``name=value``.

    Raises:
        ConfigError: brackets or quotes are not in pairs, or the values of a range are no numbers.
    """
    given = parse_override(typed)
    call = _CALL.fullmatch(given.text)
    if call and call[1] in _OTHER_SWEEPS:
        raise ConfigError(f"{typed}: {call[1]}(...) is not there; write the values with commas, or as range(1, 4)")
    if call and call[1] == "range":
        return _range(typed, call[2])
    text = call[2] if call and call[1] == "choice" else given.text
    if "," not in text or unquote(text) is not None:
        return [text]
    try:
        values = split_list(text)
    except ValueError as error:
        raise ConfigError(f"{typed}: {error}; put a value with commas in quotes: {given.name}='\"a,b\",c'") from error
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ConfigError(f"{typed}: {twice} stands there twice")
    return values


def _range(typed: str, arguments: str) -> list[str]:
    """The numbers of ``range(start, stop, step)``, without the stop."""
    try:
        numbers = [float(text) if re.search("[.eE]", text) else int(text) for text in arguments.split(",")]
        start, stop, step = (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1)[:3]
        num = math.ceil((stop - start) / step - 1e-9)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise ConfigError(f"{typed}: a range is written range(start, stop) or range(start, stop, step)") from error
    if not 0 < num <= _MOST_RUNS or len(numbers) > 3:
        raise ConfigError(f"{typed}: that range has {max(num, 0):,} values, it must have 1 to {_MOST_RUNS:,}")
    values = [start + i * step for i in range(num)]
    return [str(value) if isinstance(value, int) else f"{value:.10g}" for value in values]


def _draw(num_runs: int, sample: int | None, seed: int) -> list[int]:
    """Numbers of the runs to make, in order."""
    if sample is None or sample >= num_runs:
        return list(range(num_runs))
    return sorted(random.Random(seed).sample(range(num_runs), sample))


def _values_at(axes: Sequence[Axis], number: int) -> list[str]:
    """The values of a run by its number; the last axis changes first."""
    values = []
    for axis in reversed(axes):
        number, place = divmod(number, len(axis.values))
        values.append(axis.values[place])
    return values[::-1]


def _shorten(swept: Sequence[Override]) -> dict[str, str]:
    """For each option as many of its last parts as tell it from the others: optim.dense.lr -> lr."""
    labels = {}
    for override in swept:
        others = [other.path for other in swept if other.path != override.path]
        for num in range(1, len(override.path) + 1):
            tail = override.path[-num:]
            if all(other[-num:] != tail for other in others):
                break
        labels[override.name] = ".".join(tail)
    return labels


def _directory_name(chosen: Mapping[str, str]) -> str:
    """A name that every file system takes; a long one ends with a hash of the whole."""
    whole = "_".join(f"{label}={value}" for label, value in chosen.items())
    plain = re.sub(r"[^\w.=+-]+", "~", re.sub(r"[\[\]{}()\"' ]", "", whole))
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}-{_digest((whole,))}"


def _digest(typed: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(typed).encode()).hexdigest()[:8]
