"""An exported model: reads requests and scores them, without torchrec and without the run that it came from.

::

    request --read--> columns as the table stores them --.
    request --read--> ----------------------------------+--> one batch, rows of users once --transforms--> Batch
                                                              --tables (memory-mapped)--> dense layers --> scores

Transforms, batches and dense layers are the code that trains.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from recd_dist.errors import DataError
from recd_dist.exported.batch_of_rows import build_batch
from recd_dist.exported.delta import open_rows
from recd_dist.exported.dense_layers import load_layers
from recd_dist.exported.description import IDS, Description, read_description
from recd_dist.exported.given_values import read_column, require_names
from recd_dist.exported.lookups import Lookups, MappedRows
from recd_dist.exported.request_schema import RequestError, RequestFeature, RequestSchema
from recd_dist.exported.requests import Request, UserRow, join_requests
from recd_dist.model.scores import to_scores
from recd_dist.reader.prepared_rows import RowPreparation
from recd_dist.reader.transform import Transforms
from recd_dist.table.column import Column
from recd_dist.table.schema import SAMPLE, Feature
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.grouped import Embedded


@dataclass(frozen=True)
class BatchCounts:
    """What was in the batches that were scored.

    Attributes:
        num_samples: candidates.
        num_rows: for each group its unique rows.
    """

    num_samples: int
    num_rows: Mapping[str, int]


class ExportedModel:
    """A model that ``ExportedModel.load`` has read. It may be used by several threads, one after the other.

    Attributes:
        description: what the export is.
        inputs: the features that a request gives.
    """

    def __init__(self, description: Description, lookups: Lookups, layers: nn.Module) -> None:
        self.description, self.lookups, self.layers = description, lookups, layers
        schema, stored = description.schema, description.stored
        transforms = Transforms.parse(schema, description.transforms, stored)
        self._preparation = RowPreparation(
            schema, stored, description.tables, transforms, description.on_bad_id, description.on_nan
        )
        self._may_be_nan = frozenset(
            f.name for f in stored.dense if transforms.fills(f.name) or description.on_nan == "zero"
        )
        self._limits = _limits(description, transforms)
        self.inputs = RequestSchema.of(stored, _text_features(description, transforms))
        self._lock = threading.Lock()

    @staticmethod
    def load(directory: str | Path, engine: str = "layers") -> "ExportedModel":
        """Opens an export; rows of tables are mapped into memory, and read when they are looked up.

        Args:
            directory: what ``recd export`` has written.
            engine: ``layers`` for the classes of this package, and the user's own module by its name; or ``program``
                for the program of torch.export, of an export that you trust: torch makes code of it.

        Raises:
            ConfigError, DataError: there is no export, it is damaged, or of a newer format.
        """
        path = Path(directory)
        description = read_description(path)
        lookups = Lookups(description, open_rows(path, description), _load_mapped(path, description))
        return ExportedModel(description, lookups, load_layers(path, description, engine))

    # --- requests ----------------------------------------------------------------------------------------------------

    def read_user(self, user: Mapping[str, Any]) -> UserRow:
        """Reads the user's row of a request.

        Args:
            user: for each feature of ``inputs.user`` a value, or a list of ids; weights under their own name.

        Raises:
            RequestError: a feature is missing, unknown, or of another kind.
        """
        require_names(list(user), self.inputs.user, "user")
        rows = {f.name: self._column(f, [user[f.name]], _weights(f, user, True), 1) for f in self.inputs.user}
        return UserRow.of(rows, self.description.stored)

    def read(
        self,
        user: Mapping[str, Any] | UserRow,
        candidates: Mapping[str, Sequence[Any]],
        num_candidates: int | None = None,
    ) -> Request:
        """Reads a request.

        Args:
            user: the user's row, or what ``read_user`` has made of it.
            candidates: for each feature of ``inputs.candidate`` a value, or a list of ids, for each candidate.
            num_candidates: their number; only wanted where a model has no features of candidates.

        Raises:
            RequestError: a feature is missing, unknown, or of another kind; or there is no candidate.
        """
        row = user if isinstance(user, UserRow) else self.read_user(user)
        require_names(list(candidates), self.inputs.candidate, "candidates")
        for feature in self.inputs.candidate:
            if isinstance(values := candidates[feature.name], str | bytes | Mapping) or not hasattr(values, "__len__"):
                raise RequestError(feature.name, "one value for all; give a list with a value for each candidate")
        size = len(candidates[self.inputs.candidate[0].name]) if self.inputs.candidate else num_candidates or 1
        if size < 1:
            raise RequestError(None, "candidates: there is none; give at least one")
        columns = {
            f.name: self._column(f, candidates[f.name], _weights(f, candidates, False), size)
            for f in self.inputs.candidate
        }
        return Request(row, columns, size)

    def _column(self, feature: RequestFeature, values: Any, weights: Any, size: int) -> Column:
        stored = self.description.stored[feature.name]
        column = read_column(feature, values, weights, stored, feature.name in self._may_be_nan, size)
        if (limit := self._limits.get(feature.name)) is not None and len(column.values):
            low, high = int(column.values.min()), int(column.values.max())
            if low < 0 or high >= limit:
                bad = low if low < 0 else high
                raise RequestError(
                    feature.name,
                    f"id {bad} is none of the {limit:,} rows of its table; leave it out, or export with "
                    "reader.on_bad_id=drop, which leaves such ids out and counts them",
                )
        return column

    # --- scores ------------------------------------------------------------------------------------------------------

    def score(self, requests: Sequence[Request], dedup: bool = True) -> list[NDArray[np.float32]]:
        """Scores requests in one batch, in which equal rows of users stand once.

        Args:
            requests: what ``read`` has returned.
            dedup: False to compute with a copy of the user's row for each candidate.

        Returns:
            For each request float32 [candidates, T], a column for each task.

        Raises:
            RequestError: a value of one of them does not fit after its transforms; score them one by one to learn
                whose.
        """
        return self.score_batch(self.batch(requests), requests, dedup) if requests else []

    def score_batch(self, batch: Batch, requests: Sequence[Request], dedup: bool = True) -> list[NDArray[np.float32]]:
        """Scores a batch of requests; arguments and result are otherwise those of ``score``.

        Args:
            batch: what ``batch`` has made of the requests.
            requests: the requests, at least one.
            dedup: as for ``score``.

        Raises:
            RequestError: lists that the model wants aligned are not.
        """
        scores = to_scores(self.logits(batch if dedup else batch.expand()), self.description.tasks).numpy()
        ends = np.cumsum([request.num_candidates for request in requests])
        return np.split(scores, ends[:-1])

    def batch(self, requests: Sequence[Request]) -> Batch:
        """The batch of some requests, deduplicated.

        Raises:
            RequestError: a value does not fit after its transforms.
        """
        with self._lock:  # the preparation counts
            try:
                rows = join_requests(requests, self.description.stored)
                return build_batch(rows, self.description.schema, self._preparation)
            except DataError as error:
                raise RequestError(None, str(error)) from error

    def embed(self, batch: Batch) -> Embedded:
        """Looks up a batch in the tables."""
        return self.lookups.look_up(batch)

    def logits(self, batch: Batch) -> Tensor:
        """The logits of a batch, float32 [B, T].

        Args:
            batch: deduplicated or expanded.

        Raises:
            RequestError: lists of a request that belong together are not of one length.
        """
        dense = {group: batch.dense_of(group) for group in batch.dense}
        try:
            with torch.inference_mode():
                logits: Tensor = self.layers(self.embed(batch), dense)
        except DataError as error:
            raise RequestError(None, str(error)) from error
        return logits.float()

    @property
    def unknown(self) -> Counter[str]:
        """Ids and values that were left out or not known so far, by feature or table."""
        return self._preparation.counts + Counter({f"table {t}": n for t, n in self.lookups.unknown.items()})


def _weights(feature: RequestFeature, given: Mapping[str, Any], is_one_row: bool) -> Any:
    if feature.weights is None:
        return None
    return [given[feature.weights]] if is_one_row else given[feature.weights]


def _limits(description: Description, transforms: Transforms) -> dict[str, int]:
    """The features whose ids go to their table as they are given, and must be among its rows."""
    if description.on_bad_id != "error":
        return {}
    tables = {f.name: description.tables[str(f.table)] for f in description.schema.sparse if not f.made_from}
    return {
        name: table.num_embeddings
        for name, table in tables.items()
        if name not in transforms.steps and not table.hashed and table.mapped is None
    }


def _text_features(description: Description, transforms: Transforms) -> list[str]:
    """The features of which any id is good, however large: those that are hashed, mapped or transformed."""
    schema = description.schema

    def takes_any(feature: Feature) -> bool:
        if feature.name not in schema or feature.name in transforms.steps:
            return True
        table = description.tables[str(schema[feature.name].table)]
        return table.hashed or table.mapped is not None

    return [f.name for f in description.stored.sparse if takes_any(f)]


def _load_mapped(path: Path, description: Description) -> dict[str, MappedRows]:
    """The ids of mapped tables."""
    names = [name for name, table in description.tables.items() if table.mapped is not None]
    if not names:
        return {}
    found = load_file(path / IDS)
    return {name: MappedRows(found[f"{name}.row_ids"].numpy(), found[f"{name}.row_seen"].numpy()) for name in names}


def count_batch(batch: Batch) -> BatchCounts:
    """What a batch holds."""
    groups = {g.name: g.num_rows for g in batch.sparse.groups if g.name != SAMPLE}
    return BatchCounts(batch.batch_size, groups)
