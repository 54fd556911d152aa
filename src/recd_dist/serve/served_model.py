"""What a service needs of a model: it reads requests, and scores some of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np


class ServedModel(Protocol):
    """The part of an export that scores."""

    @property
    def told(self) -> "LoadedModel":
        """What the front knows of it."""

    @property
    def counts(self) -> Mapping[str, Any]:
        """Of the newest batch: ``rows`` and ``samples`` by group, ``unknown`` ids by feature."""

    def read(self, user: Mapping[str, Any], candidates: Mapping[str, Sequence[Any]]) -> Any:
        """Checks and transforms a request; raises a ValueError, perhaps with ``feature``, where one does not fit."""

    def score(self, requests: Sequence[Any]) -> Sequence[np.ndarray]:
        """Scores float32 [candidates, tasks] of each request, computed in one batch."""


@dataclass(frozen=True)
class ServedFeature:
    """A feature of a request.

    Attributes:
        name: its name.
        kind: ``id``, ``ids`` or ``dense``.
        is_text: whether ids are texts.
        weights: the feature that holds the weights of its ids.
    """

    name: str
    kind: str
    is_text: bool = False
    weights: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """What the front knows of a model that a worker has loaded.

    Attributes:
        name, step, version: which model it is; they stand in each answer.
        tasks: the tasks, in the order of the columns of scores.
        user, candidate: the features of a request.
        description: all that the export says of itself.
        sample: a request that scores, or None.
    """

    name: str
    step: int
    version: str
    tasks: Sequence[str]
    user: Sequence[ServedFeature]
    candidate: Sequence[ServedFeature]
    description: Mapping[str, Any]
    sample: Mapping[str, Any] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Which model it is."""
        return {"name": self.name, "step": self.step, "version": self.version}

    def to_json(self) -> dict[str, Any]:
        """The model as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LoadedModel":
        """Reads what ``to_json`` made."""
        features = {group: tuple(ServedFeature(**f) for f in value[group]) for group in ("user", "candidate")}
        return cls(**{**value, **features})
