"""A worker with a model that is none: numbers that can be checked by hand, a delay, and items that kill or fail.

An export of it is a directory with ``export.json``. A score is step + 10 * region + item + 0.5 * length of history.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recd_dist.errors import DataError
from recd_dist.serve.scoring_worker import main
from recd_dist.serve.served_model import LoadedModel, ServedFeature

KILLS, FAILS, HANGS = 666, 500, 999
"""Items that kill the worker, make scoring fail, and never end."""
USER = (("region", "id"), ("history", "ids"))
CANDIDATE = (("item", "id"), ("price", "dense"))
SAMPLE = {"user": {"region": 1, "history": [7, 8]}, "candidates": {"item": [5, 6], "price": [0.5, 1.0]}}


def write_export(directory: Path, step: int = 1, delay_ms: float = 0.0) -> Path:
    """Writes an export of the fake model."""
    directory.mkdir(parents=True, exist_ok=True)
    told = {"name": "fake", "step": step, "version": f"v{step}", "tasks": ["click", "buy"], "delay_ms": delay_ms}
    (directory / "new.json").write_text(json.dumps(told))
    (directory / "new.json").replace(directory / "export.json")
    return directory


class RequestError(ValueError):
    """A request that does not fit."""

    def __init__(self, feature: str, message: str) -> None:
        super().__init__(message)
        self.feature = feature


class FakeModel:
    """Scores by arithmetic."""

    def __init__(self, directory: str, _dedup: bool) -> None:
        try:
            self.description = json.loads((Path(directory) / "export.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{directory}: no export ({error})") from error
        features = [tuple(ServedFeature(n, k) for n, k in group) for group in (USER, CANDIDATE)]
        told = {name: self.description[name] for name in ("name", "step", "version", "tasks")}
        self.told = LoadedModel(**told, user=features[0], candidate=features[1], description={}, sample=SAMPLE)
        self.counts: dict[str, Any] = {}

    def read(self, user: Mapping[str, Any], candidates: Mapping[str, Sequence[Any]]) -> Any:
        """Checks a request."""
        for values, features in ((user, USER), (candidates, CANDIDATE)):
            for name in values:
                if name not in dict(features) and not self.description.get("any"):
                    raise RequestError(name, f"unknown feature '{name}'")
            for name, _ in features:
                if name not in values:
                    raise RequestError(name, f"feature '{name}' is missing")
        for name, values in candidates.items():
            if not isinstance(values, np.ndarray):
                raise RequestError(name, f"feature '{name}': a list, and takes one number")
        return user, {name: np.asarray(values, np.float64) for name, values in candidates.items()}

    def score(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """Scores requests."""
        items = [candidates["item"] for _, candidates in requests]
        if any(KILLS in item for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(FAILS in item for item in items):
            raise RuntimeError("this item fails")
        if any(HANGS in item for item in items):
            time.sleep(1000)
        time.sleep(self.description["delay_ms"] / 1000)
        self.counts = {
            "rows": {"user": len(Counter(str(user) for user, _ in requests))},
            "samples": {"user": sum(map(len, items))},
            "unknown": {"item": int(sum((item > 1000).sum() for item in items))},
        }
        return [self._scores(user, candidates) for user, candidates in requests]

    def _scores(self, user: Mapping[str, Any], candidates: Mapping[str, np.ndarray]) -> np.ndarray:
        click = self.description["step"] + 10 * user["region"] + candidates["item"] + 0.5 * len(user["history"])
        return np.stack([click, -click], axis=1)


if __name__ == "__main__":
    main(FakeModel)
