"""What it costs to train a sample, by numbers that a table can tell beforehand. Runs without torch.

::

    samples of a session      1         2         3
    history row             [7 8 9]   [7 8 9]   [7 8 9]          one unique row
    sample                    1         1         1              costs of the sample itself
    id                        3         -         -              ids of a row, once where the row begins
    pair                      9         -         -              each id with each, where a model attends to itself
    look                      3         3         3              ids that each sample looks at
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recd_dist.errors import ConfigError
from recd_dist.table.column import Array

PARTS = ("sample", "id", "look", "pair")
"""What work is made of."""

BATCHES = ("samples", "work")
"""By what an epoch may be cut into batches."""


@dataclass
class GivenWork:
    """What training a sample costs, in any unit; all null: measured before the first step. docs/training.md."""

    sample: float | None = None  # a sample itself
    id: float | None = None  # an id of its lists, once per unique row
    look: float | None = None  # an id of its history, for each sample that looks at it
    pair: float | None = None  # two ids of a history, once per unique row: the square of its length


@dataclass(frozen=True)
class Work:
    """What training a sample costs, in one unit.

    Attributes:
        sample: a sample itself.
        id: an id of a list, once per unique row.
        look: an id of a history, for each sample that looks at it.
        pair: two ids of a history, once per unique row: a row of L ids costs L * L of them.
    """

    sample: float = 0.0
    id: float = 0.0
    look: float = 0.0
    pair: float = 0.0

    @staticmethod
    def of(given: GivenWork) -> "Work | None":
        """The costs that a config gives; None where it gives none.

        Args:
            given: what the config says; what it leaves open beside others costs nothing.

        Raises:
            ConfigError: a cost is negative or no number, or histories cost nothing.
        """
        costs = {name: value for name, value in asdict(given).items() if value is not None}
        for name, value in costs.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"reader.work.{name}={value}: must be a number, at least 0")
        if not costs:
            return None
        work = Work(**costs)
        if not work.depends_on_lists:
            raise ConfigError(
                "reader.work: only samples cost something, so that batches by work are batches by samples; add "
                "reader.work.id=..., or take reader.batches=samples"
            )
        return work

    @property
    def depends_on_lists(self) -> bool:
        """Whether two samples may differ."""
        return self.id + self.look + self.pair > 0

    def to_json(self) -> dict[str, float]:
        """A JSON-ready dict; ``Work(**value)`` is its inverse."""
        return asdict(self)

    def __str__(self) -> str:
        """The options that give these costs."""
        return " ".join(f"reader.work.{name}={value:g}" for name, value in asdict(self).items())

    def of_rows(self, lengths: Array, is_history: bool) -> Array:
        """What each row of a list costs once, float64 [rows].

        Args:
            lengths: ids of each row, [rows].
            is_history: whether a model takes the list as a history, not pooled.
        """
        ids = lengths.astype(np.float64)
        return self.id * ids + (self.pair * ids * ids if is_history else 0.0)

    def of_looks(self, lengths: Array, is_history: bool) -> Array:
        """What each row of a list costs each sample that has it, float64 [rows]; the arguments are as above."""
        return self.look * lengths * is_history


@dataclass(frozen=True)
class CountedList:
    """A list feature whose ids are work.

    Attributes:
        name: the feature.
        is_history: whether the model takes it as a history, not pooled.
        longest: ids beyond so many are left out by transforms or by the model; None: none are.
    """

    name: str
    is_history: bool = False
    longest: int | None = None

    def count(self, lengths: Array) -> Array:
        """The ids that count of lists of some lengths."""
        return lengths if self.longest is None else np.minimum(lengths, self.longest)


def fit_work(parts: Mapping[str, Array], seconds: Array) -> Work:
    """The costs that explain measured times best, none of them negative; beside them a step may cost a constant.

    Args:
        parts: for each of ``PARTS`` how many of them each measured batch had, [batches].
        seconds: how long each batch took, [batches].

    Returns:
        The costs in microseconds, rounded to two digits: the next digit would be noise.
    """
    names = [name for name in PARTS if np.ptp(parts[name]) > 0]
    columns = np.stack([np.ones(len(seconds)), *(parts[name] for name in names)], 1) / seconds[:, None]
    best, found = math.inf, dict.fromkeys(PARTS, 0.0)
    for chosen in range(1, 2 ** (len(names) + 1)):
        used = [n for n in range(len(names) + 1) if chosen >> n & 1]
        costs, *_ = np.linalg.lstsq(columns[:, used], np.ones(len(seconds)), rcond=None)
        error = float(np.square(columns[:, used] @ costs - 1).sum())
        if (costs >= 0).all() and error < best:
            best = error
            found = dict.fromkeys(PARTS, 0.0) | {names[n - 1]: float(c) for n, c in zip(used, costs, strict=True) if n}
    return Work(**{name: _round(1e6 * value) for name, value in found.items()})


def _round(value: float) -> float:
    return float(f"{value:.2g}")


def to_work(value: Mapping[str, Any] | None) -> Work | None:
    """The costs that ``Work.to_json`` wrote; None where there are none."""
    return None if value is None else Work(**{name: float(value[name]) for name in PARTS})
