"""A worker that loads what ``recd export`` has written: ``python -m recd_dist.serve.export_worker SOCKET``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recd_dist.exported.description import REQUEST, Description
from recd_dist.exported.exported_model import ExportedModel, count_batch
from recd_dist.exported.request_schema import RequestFeature
from recd_dist.exported.requests import Request
from recd_dist.serve.scoring_worker import main
from recd_dist.serve.served_model import LoadedModel, ServedFeature


class ServedExport:
    """An export that scores.

    Args:
        directory: the export.
        dedup: whether equal rows are computed once.
    """

    def __init__(self, directory: str, dedup: bool) -> None:
        self._model, self._dedup = ExportedModel.load(directory), dedup
        self._unknown: Counter[str] = Counter()
        description, inputs = self._model.description, self._model.inputs
        self.told = LoadedModel(
            name=description.name,
            step=description.step,
            version=description.version,
            tasks=[task.name for task in description.tasks],
            user=[_served(feature) for feature in inputs.user],
            candidate=[_served(feature) for feature in inputs.candidate],
            description=_shown(description),
            sample=orjson.loads((Path(directory) / REQUEST).read_bytes())["request"],
        )
        self.counts: dict[str, Any] = {}

    def read(self, user: Mapping[str, Any], candidates: Mapping[str, Sequence[Any]]) -> Request:
        """Checks a request."""
        return self._model.read(user, candidates)

    def score(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """Scores float32 [candidates, tasks] of each request, computed in one batch."""
        batch = self._model.batch(requests)
        counted = count_batch(batch)
        scores = self._model.score_batch(batch, requests, self._dedup)
        unknown = self._model.unknown
        self.counts = {
            "rows": dict(counted.num_rows),
            "samples": dict.fromkeys(counted.num_rows, counted.num_samples),
            "unknown": dict(unknown - self._unknown),
        }
        self._unknown = unknown
        return scores


def _served(feature: RequestFeature) -> ServedFeature:
    return ServedFeature(feature.name, feature.kind.value, feature.takes_text, feature.weights)


def _shown(description: Description) -> dict[str, Any]:
    """What is shown of a description: all but the files, which are the loader's."""
    return {name: value for name, value in description.to_json().items() if name != "files"}


if __name__ == "__main__":
    main(ServedExport)
