"""Two towers: a vector for the query, once per unique row, and one for the item, once per distinct item of a batch.

::

    user, history --query tower--> q [U, D] --.
                                              '--> score = q . v
    candidate ------item tower---> v [I, D] --'

After Covington et al., 2016, and Yi et al., 2019. The towers meet in a product alone, so that a store of item vectors
answers a query. Trained by the loss ``in_batch`` (in_batch.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recd_dist.errors import ConfigError
from recd_dist.model.layers import MLP, check_layers
from recd_dist.model.model_inputs import Inputs, join_columns
from recd_dist.model.tower_choice import find_towers
from recd_dist.model.towers import Towers
from recd_dist.table.schema import SAMPLE, Kind, Schema
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.host_side import host_array, host_integers, is_on_host
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Rows, Shared
from recd_dist.tensors.slots import take_distinct


class TwoTower(nn.Module):
    """A query tower and an item tower, each an MLP over the vectors and dense features that it takes.

    Args:
        schema: the features; every table must be ``dim`` wide.
        dim: the width of the embeddings.
        query: the features of the query tower; None for those of the deduplicated groups.
        item: the features of the item tower, the one that names the item first; None for the candidates of histories.
        query_tower, item_tower: the widths of the hidden layers; [] for a linear layer alone.
        vector: D, the width of the towers' vectors.
        normalize: vectors have length 1, so that a score is a cosine over the temperature.
        temperature: what scores are divided by; smaller makes the softmax sharper.
        dropout: the share of hidden activations that is dropped in training, in [0, 1).
        num_tasks: T, the number of tasks, which all have the same scores.

    Attributes:
        ids: the features whose ids the model wants beside their vectors, to find equal items.

    Raises:
        ConfigError: a tower has no features, or a value is out of range.
    """

    def __init__(  # noqa: PLR0913  (each is an option of the model)
        self,
        schema: Schema,
        dim: int,
        *,
        query: Sequence[str] | None = None,
        item: Sequence[str] | None = None,
        query_tower: Sequence[int] = (128,),
        item_tower: Sequence[int] = (128,),
        vector: int = 64,
        normalize: bool = True,
        temperature: float = 0.1,
        dropout: float = 0.0,
        num_tasks: int = 1,
    ) -> None:
        super().__init__()
        hidden = {"query_tower": query_tower, "item_tower": item_tower}
        check_layers(dropout, dim=[dim], vector=[vector], **{name: of for name, of in hidden.items() if of})
        if not temperature > 0:
            raise ConfigError(f"model.temperature is {temperature}; scores are divided by it, it must be above 0")
        self.dim, self.num_tasks, self.normalize, self.temperature = dim, num_tasks, normalize, temperature
        chosen = find_towers(schema, query, item)
        self.query_columns = _TowerColumns(schema, chosen.query)
        self.item_columns = _TowerColumns(schema, chosen.item)
        self.query_tower = _build_tower(self.query_columns.width(dim), query_tower, vector, dropout)
        self.item_tower = _build_tower(self.item_columns.width(dim), item_tower, vector, dropout)
        of_item = [schema[name] for name in chosen.item]
        self.ids = tuple(f.name for f in of_item) if all(f.kind is Kind.id for f in of_item) else ()

    @staticmethod
    def sequence_features(schema: Schema) -> tuple[str, ...]:
        """The features that this model takes as lists of vectors: none, because lists come pooled."""
        del schema
        return ()

    @staticmethod
    def id_features(
        schema: Schema, query: Sequence[str] | None = None, item: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """The id features that need no table: those that no tower takes."""
        return find_towers(schema, query, item).unused(schema)

    def forward(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """The scores of each sample's own query and item, float [B, T].

        Args:
            embedded: for each group its pooled features, [U, n * dim].
            dense: for each group its dense features, [U, n].
        """
        return self.towers(embedded, dense).scores(self.num_tasks)

    def towers(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> Towers:
        """The vectors of the batch. The arguments are those of ``forward``."""
        inputs = Inputs.of(embedded, dense, self.dim)
        query = self.query_tower(self.query_columns(inputs))
        item = self.item_tower(_share_items(self.item_columns(inputs), self.ids, embedded, dense))
        if self.normalize:
            query, item = F.normalize(query, dim=1), F.normalize(item, dim=1)
        return Towers(query / self.temperature, item)


def _build_tower(width: int, sizes: Sequence[int], vector: int, dropout: float) -> nn.Module:
    """An MLP that ends in a linear layer, so that vectors point anywhere."""
    last = nn.Linear(sizes[-1] if sizes else width, vector)
    return nn.Sequential(MLP(width, sizes, dropout), last) if sizes else last


class _TowerColumns(nn.Module):
    """Some features side by side: the vectors of ids, then the dense features; no parameters."""

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        super().__init__()
        self.groups = (*schema.dedup_groups, SAMPLE)
        self.sparse = tuple(n for g in self.groups for n in schema.sparse_of(g) if n in names)
        self.dense = {g: schema.dense_of(g) for g in self.groups}
        self.wanted = frozenset(f.name for f in schema.dense if f.name in names)

    def width(self, dim: int) -> int:
        """The number of columns."""
        return len(self.sparse) * dim + len(self.wanted)

    def forward(self, inputs: Inputs) -> Rows:
        """The columns [B, width], each with its rows shared as they are in its group."""
        parts = [inputs.columns(self.sparse), *(self._pick(inputs, group) for group in self.groups)]
        columns = join_columns(parts)
        if columns is None:
            raise ValueError("two_tower: a tower has no features")
        return columns

    def _pick(self, inputs: Inputs, group: str) -> Rows | None:
        """The dense features of a group that the tower takes; with dedup off ``sample`` has those of all groups."""
        if group not in inputs.dense:
            return None
        rows, names = inputs.dense[group], self.dense[group]
        if rows.shape[1] != len(names):
            names = tuple(name for g in self.groups for name in self.dense[g])
        places = [place for place, name in enumerate(names) if name in self.wanted]
        if not places or len(places) == len(names):
            return rows if places else None
        picked: Rows = rows[:, places]
        return picked


def _share_items(columns: Rows, ids: Sequence[str], embedded: Embedded, dense: Mapping[str, Grouped]) -> Rows:
    """Item columns once for each distinct item, where items are told by their ids and something is deduplicated.

    A device would have to be waited for; there, each sample has its own row.
    """
    groups, has_ids = [*embedded.pooled.values(), *dense.values()], ids and all(name in embedded.ids for name in ids)
    if isinstance(columns, Tensor) and has_ids and is_on_host(columns) and any(g.inverse is not None for g in groups):
        first, inverse = find_distinct([embedded.ids[name] for name in ids])
        level = Levels().find(torch.from_numpy(inverse.astype(np.int32)), len(first), inverse.astype(np.int32))
        if level is not None:
            return Shared(take_distinct(columns, host_integers(first, columns)), level)
    return columns


def find_distinct(ids: Sequence[GroupedJagged]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct combinations of single ids among samples.

    Args:
        ids: for each feature its ids, one or none for each sample.

    Returns:
        int64 [D], for each combination the first sample that has it; int64 [B], for each sample its combination.
    """
    inverse = np.zeros(ids[0].batch_size, np.int64)
    for feature in ids:
        _, own = np.unique(single_ids(feature), return_inverse=True)
        inverse = inverse * (int(own.max(initial=0)) + 1) + own
        _, inverse = np.unique(inverse, return_inverse=True)
    _, first = np.unique(inverse, return_index=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def single_ids(feature: GroupedJagged) -> NDArray[np.int64]:
    """The id of each sample, int64 [B]; -1 where it has none.

    Args:
        feature: single ids, int32 or int64 [N], of unique rows or of samples.
    """
    lengths = host_array(feature.lengths, feature.known_lengths)
    values = host_array(feature.values).astype(np.int64)
    rows = np.full(len(lengths), -1, np.int64)
    rows[lengths > 0] = values[np.cumsum(lengths)[lengths > 0] - lengths[lengths > 0]]
    if feature.inverse is None:
        return rows
    return rows[host_array(feature.inverse, feature.known_inverse)]
