"""Embeddings: the tables of a model, fed unique rows (dedup=on) or every sample's own copy (dedup=off).

::

    IKJT --UniqueRows--> KJT per stride class --EmbeddingBagCollection--> [stride, D] --Assemble--> Grouped
                         KJT of stride 1      --EmbeddingCollection-----> vectors               --> GroupedJagged

With ``dedup=False`` the middle is what a TorchRec user writes: one EmbeddingBagCollection and one EmbeddingCollection
with a key per feature, on the expanded batch. Both yield the same types, from the same tables.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from recd_dist.embedding.exchange import SEQUENCES, Assemble, ExpandedRows, UniqueRows, stride_classes
from recd_dist.errors import ConfigError, nearest
from recd_dist.grouped import Embedded
from recd_dist.ikjt import IKJT
from recd_dist.schema import SAMPLE, Schema, Table

Pooling = Literal["sum", "mean"]

_WEIGHT = re.compile(
    r"(?:^|\.)(?:pooled\.[^.]+\.embedding_bags|sequences\.embeddings)\.(?P<table>\w+)(?P<rest>\.[\w.]+)?\Z"
)


class Embeddings(nn.Module):
    """All embedding tables of a model.

    A table with a feature in ``sequence_features`` is un-pooled: its vectors travel, and its other features are pooled
    on arrival. Every other table is pooled where it lies.

    Args:
        schema: features, groups, tables.
        tables: size of each table that the schema names.
        sequence_features: features handed on as jagged vectors.
        dedup: send unique rows; False trains the expanded batch through plain TorchRec.
        pooling: ``sum`` or ``mean`` of a row's vectors (we divide: TorchRec's MEAN is wrong under row-wise sharding).
        group_rows: expected unique rows of each group in a batch; classes of near stride are then sent as one.
        unique_ids: of un-pooled tables send each distinct id of a batch once.
        device: where weights are made; ``meta`` before sharding, so that no rank holds a whole table.

    Raises:
        ConfigError: a table without a size, or a sequence feature that the schema does not have.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, Table],
        *,
        sequence_features: Collection[str] = (),
        dedup: bool = True,
        pooling: Pooling = "sum",
        group_rows: Mapping[str, float] | None = None,
        unique_ids: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _check(schema, tables, sequence_features, pooling)
        self.schema, self.dedup, self.unique_ids = schema, dedup, unique_ids and dedup
        self.tables = {name: tables[name] for name in schema.tables}
        features = {t: tuple(f.name for f in schema.sparse if f.table == t) for t in schema.tables}
        kept = frozenset(sequence_features)
        self.sequence_tables = {t: fs for t, fs in features.items() if kept.intersection(fs)}
        dims = {t: size.dim for t, size in self.tables.items()}
        self.classes = stride_classes(schema, dims, self.sequence_tables, group_rows)
        pooled = [t for t in schema.tables if t not in self.sequence_tables]
        self.pooled = nn.ModuleDict()
        if dedup:
            self.rows: nn.Module = UniqueRows(self.classes, self.sequence_tables, unique_ids)
            for each in self.classes:
                self.pooled[each.name] = _bags(self.tables, each.tables, device)
        else:
            names = ([SAMPLE] if pooled else []) + ([SEQUENCES] if self.sequence_tables else [])
            self.rows = ExpandedRows(names)
            if pooled:
                self.pooled[SAMPLE] = _bags(self.tables, {t: features[t] for t in pooled}, device)
        keys = {t: (t,) for t in self.sequence_tables} if dedup else self.sequence_tables
        self.sequences = _lists(self.tables, keys, device) if keys else None
        mean = pooling == "mean"
        self.assemble = Assemble(schema, self.classes, self.sequence_tables, kept, mean, dedup)

    def forward(self, sparse: IKJT) -> Embedded:
        """Looks up a batch; nothing is expanded.

        Args:
            sparse: groups as in the schema, or all in ``sample`` when ``dedup`` is off.

        Returns:
            pooled: per group that has pooled features [U, sum of dims], features in schema order; with ``dedup`` off
            the single group ``sample``. sequences: per sequence feature its vectors.
        """
        sent = self.rows(sparse)
        pooled = [module(sent[name]) for name, module in self.pooled.items()]
        sequences = None if self.sequences is None else self.sequences(sent[SEQUENCES])
        return self.assemble(sparse, sent, pooled, sequences)

    @property
    def dims(self) -> dict[str, int]:
        """Width of each id feature's vectors, in schema order."""
        return {f.name: self.tables[f.table].dim for f in self.schema.sparse if f.table is not None}


def table_weights(module: nn.Module) -> dict[str, Tensor]:
    """Every table's weight by table name, under whatever module and sharding: Tensor or ShardedTensor [rows, dim].

    Args:
        module: Embeddings, or a model that holds them, sharded or not.
    """
    return dict(_weights(module.state_dict()))


def _weights(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in state.items():
        found = _WEIGHT.search(name)
        if found and found["rest"] == ".weight":
            yield found["table"], weight


def portable_name(name: str) -> str:
    """A parameter's name that does not depend on dedup or on the groups: for checkpoints.

    ``embeddings.pooled.user-sample.embedding_bags.item.weight`` -> ``embeddings.tables.item.weight``; other names are
    handed back as they are. Also for optimizer states (``...item.weight.momentum1``).
    """
    found = _WEIGHT.search(name)
    if found is None:
        return name
    prefix = name[: found.start()]
    return f"{prefix}{'.' if prefix else ''}tables.{found['table']}{found['rest'] or ''}"


def _bags(
    tables: Mapping[str, Table], keys: Mapping[str, tuple[str, ...]], device: torch.device | str
) -> EmbeddingBagCollection:
    """A plain EmbeddingBagCollection of some tables; ``keys`` names the KJT keys that look each one up."""
    configs = [
        EmbeddingBagConfig(
            name=name,
            embedding_dim=tables[name].dim,
            num_embeddings=tables[name].num_embeddings,
            feature_names=list(features),
            pooling=PoolingType.SUM,
        )
        for name, features in keys.items()
    ]
    return EmbeddingBagCollection(tables=configs, device=torch.device(device))


def _lists(
    tables: Mapping[str, Table], keys: Mapping[str, tuple[str, ...]], device: torch.device | str
) -> EmbeddingCollection:
    """A plain EmbeddingCollection of some tables (it takes tables of one width only)."""
    configs = [
        EmbeddingConfig(
            name=name,
            embedding_dim=tables[name].dim,
            num_embeddings=tables[name].num_embeddings,
            feature_names=list(features),
        )
        for name, features in keys.items()
    ]
    return EmbeddingCollection(tables=configs, device=torch.device(device))


def _check(schema: Schema, tables: Mapping[str, Table], sequence_features: Collection[str], pooling: str) -> None:
    """Refuses what cannot be built, with the remedy."""
    for name in schema.tables:
        if name not in tables:
            raise ConfigError(f"tables: table '{name}' has no size{nearest(name, tables)}")
        if tables[name].num_embeddings < 1 or tables[name].dim < 1:
            raise ConfigError(f"tables.{name}: num_embeddings and dim must be at least 1, found {tables[name]}")
    known = [f.name for f in schema.sparse]
    for name in sequence_features:
        if name not in known:
            raise ConfigError(f"sequence feature '{name}' is no id feature{nearest(name, known)}")
    if pooling not in ("sum", "mean"):
        raise ConfigError(f"pooling={pooling}: unknown{nearest(pooling, ['sum', 'mean'])}")
    dims = {tables[f.table].dim for f in schema.sparse if f.name in sequence_features and f.table is not None}
    if len(dims) > 1:
        raise ConfigError(f"tables of sequence features must have one dim, found {sorted(dims)}; set tables.NAME.dim")
