"""Embeddings: the tables of a model, for unique rows or for every sample's own copy.

::

    IKJT --unique rows, distinct ids--> tables of each class --vectors--> Assemble --> Grouped, GroupedJagged

On one process the tables are looked up where they are; over ranks ``sharded_embeddings.py`` puts the exchange between.
With ``dedup=False`` the middle is what a TorchRec user writes: one EmbeddingBagCollection and one EmbeddingCollection
with a key for each feature, on the expanded batch. Both ways have the same tables and return the same types.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from recd_dist.embedding.exchange.assemble import Assemble, AssembleExpanded, Block, LookupResult
from recd_dist.embedding.exchange.classes import ClassRows, TableClass, class_rows, table_classes
from recd_dist.embedding.names import SENDS, Codecs, Send
from recd_dist.errors import ConfigError, nearest
from recd_dist.table.schema import SAMPLE, Schema, Table
from recd_dist.tensors.grouped import Embedded
from recd_dist.tensors.ikjt import IKJT

Pooling = Literal["sum", "mean"]

_WEIGHT = re.compile(
    r"(?:^|\.)(?:pooled\.[^.]+\.embedding_bags|sequences\.embeddings)\.(?P<table>\w+)(?P<rest>\.[\w.]+)?\Z"
)


class Embeddings(nn.Module):
    """All embedding tables of a model.

    A table with a feature in ``sequence_features`` is un-pooled: its vectors travel, and its other features are pooled
    where the vectors arrive. Every other table is pooled where it lies, unless its distinct ids are sent.

    Args:
        schema: features, groups, tables.
        tables: size of each table that the schema names.
        sequence_features: names of the features whose vectors stay un-pooled, as jagged tensors.
        dedup: True to send unique rows, False to train the expanded batch through plain TorchRec.
        pooling: ``sum`` or ``mean`` of the vectors of a row. The division is ours, because TorchRec's MEAN is wrong
            under row-wise sharding.
        weighted: True if batches have a weight for each id; its vector is multiplied by the weight before it is summed.
        send: for each table what travels, ``rows`` or ``ids``; when absent, ``ids`` for un-pooled tables and ``rows``
            for others.
        codecs: how vectors and gradients are written while they travel between ranks; float32 when absent. With
            ``dedup=False`` only float32 is possible.
        device: device of the weights; ``meta`` before sharding, so that no rank holds a whole table.

    Raises:
        ConfigError: a table has no size, the schema lacks a sequence feature, or weights do not go with the other
            arguments.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, Table],
        *,
        sequence_features: Collection[str] = (),
        dedup: bool = True,
        pooling: Pooling = "sum",
        weighted: bool = False,
        send: Mapping[str, Send] | None = None,
        codecs: Codecs | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _check_arguments(schema, tables, sequence_features, pooling, weighted, send or {})
        self.codecs = codecs or Codecs()
        if not dedup and self.codecs != Codecs():
            raise ConfigError("Embeddings: dedup=False is plain TorchRec in fp32; codecs need dedup=True")
        self.schema, self.dedup, self.weighted = schema, dedup, weighted
        self.tables = {name: tables[name] for name in schema.tables}
        features = {t: tuple(f.name for f in schema.sparse if f.table == t) for t in schema.tables}
        kept = frozenset(sequence_features)
        self.sequence_tables = {t: fs for t, fs in features.items() if kept.intersection(fs)}
        wanted = send or {}
        self.send: dict[str, Send] = {
            t: wanted.get(t, "ids" if t in self.sequence_tables else "rows") for t in schema.tables
        }
        self.classes = table_classes(schema, self.send, self.sequence_tables)
        self.pooled = nn.ModuleDict()
        self.sequences: EmbeddingCollection | None = None
        mean = pooling == "mean"
        if dedup:
            for table_class in self.classes:
                is_weighted = weighted and table_class.pooled
                self.pooled[table_class.name] = _build_bags(self.tables, table_class.tables, is_weighted, device)
            self.assemble: nn.Module = Assemble(schema, kept, mean)
            return
        pooled = {t: fs for t, fs in features.items() if t not in self.sequence_tables}
        if pooled:
            self.pooled[SAMPLE] = _build_bags(self.tables, pooled, weighted, device)
        if self.sequence_tables:
            self.sequences = _build_lists(self.tables, self.sequence_tables, device)
        self.rows = ExpandedRows(weighted)
        self.assemble = AssembleExpanded(schema, self.sequence_tables, kept, mean)

    def forward(self, sparse: IKJT) -> Embedded:
        """Looks up a batch; nothing is expanded.

        Args:
            sparse: the batch, with the groups of the schema, or with the group ``sample`` only if ``dedup`` is off.

        Returns:
            pooled: for each group that has pooled features their sums, [U, sum of dims], with features in the order of
            the schema; if ``dedup`` is off, there is only the group ``sample``. sequences: for each sequence feature
            its vectors.

        Raises:
            ValueError: the batch has weights and the tables take none, or the other way round.
        """
        if not self.dedup:
            sent = self.rows(sparse)
            pooled = [module(sent) for module in self.pooled.values()]
            return self.assemble(sent, pooled, None if self.sequences is None else self.sequences(sent))
        check_weights(sparse, self.weighted)
        results = []
        for table_class in self.classes:
            rows = class_rows(sparse, table_class)
            out: KeyedTensor = self.pooled[table_class.name](class_kjt(table_class, rows))
            block = Block(tuple(out.keys()), tuple(out.length_per_key()), out.values())
            results.append(LookupResult(table_class, (block,)))
        return self.assemble(sparse, results)

    @property
    def dims(self) -> dict[str, int]:
        """For each id feature the number of columns of its vectors, in the order of the schema."""
        return {f.name: self.tables[f.table].dim for f in self.schema.sparse if f.table is not None}


class ExpandedRows(nn.Module):
    """Makes the KeyedJaggedTensor that a plain TorchRec job takes: a row for each sample.

    It is a module without parameters, and a leaf for torch.fx. So TrainPipelineSparseDist runs it (as a "postproc", in
    its words) and starts the input exchange of the next batch while this one computes.

    Args:
        weighted: True if the tables take weights.
    """

    def __init__(self, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted

    def forward(self, sparse: IKJT) -> KeyedJaggedTensor:
        """The expanded batch; nothing is copied if the batch is expanded already."""
        check_weights(sparse, self.weighted)
        if any(g.keys for g in sparse.groups if g.name != SAMPLE):
            return sparse.to_kjt()
        return sparse.rows_as_kjt(SAMPLE)


def check_weights(sparse: IKJT, weighted: bool) -> None:
    """Refuses weights that would be ignored, and a batch that lacks weights.

    Args:
        sparse: the batch.
        weighted: True if the tables take weights.

    Raises:
        ValueError: weights are there and should not be, or the other way round; the message names the remedy.
    """
    if sparse.weights is not None and not weighted:
        raise ValueError(
            "Embeddings: this batch carries weights, which the tables do not take; "
            "drop them in the reader or use Embeddings(weighted=True)"
        )
    if weighted and sparse.weights is None and len(sparse.values):
        raise ValueError("Embeddings: weighted=True, but this batch carries no weights; IKJT(weights=...) holds them")


def class_kjt(table_class: TableClass, rows: ClassRows) -> KeyedJaggedTensor:
    """The rows of a class as the KeyedJaggedTensor that its module takes.

    Args:
        table_class: the class.
        rows: its rows in one batch.
    """
    lengths = rows.lengths
    if lengths is None:
        lengths = torch.ones(rows.num_rows, dtype=torch.int32, device=rows.values.device)
    keys = list(table_class.stacks)
    return KeyedJaggedTensor(keys, rows.values, rows.weights, lengths=lengths, stride=rows.num_rows)


def table_weights(module: nn.Module) -> dict[str, Tensor]:
    """For each table its weight, Tensor or ShardedTensor [rows, dim], whatever the modules and the sharding are.

    Args:
        module: Embeddings, or a model that holds them, sharded or not.
    """
    return dict(_find_weights(module.state_dict()))


def _find_weights(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in state.items():
        match = _WEIGHT.search(name)
        if match and match["rest"] == ".weight":
            yield match["table"], weight


def portable_name(name: str) -> str:
    """The name that a parameter has in checkpoints, which does not depend on dedup or on the groups.

    ``embeddings.pooled.user-sample.embedding_bags.item.weight`` becomes ``embeddings.tables.item.weight``. Names of
    optimizer states (``...item.weight.momentum1``) change in the same way; names of other parameters stay as they are.

    Args:
        name: name of the parameter in the model.
    """
    match = _WEIGHT.search(name)
    if match is None:
        return name
    prefix = name[: match.start()]
    return f"{prefix}{'.' if prefix else ''}tables.{match['table']}{match['rest'] or ''}"


def _build_bags(
    tables: Mapping[str, Table], keys: Mapping[str, tuple[str, ...]], weighted: bool, device: torch.device | str
) -> EmbeddingBagCollection:
    """Builds an EmbeddingBagCollection of some tables; ``keys`` has for each table the KJT keys that look it up."""
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
    return EmbeddingBagCollection(tables=configs, is_weighted=weighted, device=torch.device(device))


def _build_lists(
    tables: Mapping[str, Table], keys: Mapping[str, tuple[str, ...]], device: torch.device | str
) -> EmbeddingCollection:
    """Builds an EmbeddingCollection of some tables, which must all have the same width."""
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


def _check_arguments(
    schema: Schema,
    tables: Mapping[str, Table],
    sequence_features: Collection[str],
    pooling: str,
    weighted: bool,
    send: Mapping[str, str],
) -> None:
    """Refuses arguments from which no tables can be built; the messages name the remedy."""
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
    for table, sent in send.items():
        if table not in schema.tables:
            raise ConfigError(f"plan.send: no table '{table}'{nearest(table, schema.tables)}")
        if sent not in SENDS:
            raise ConfigError(f"plan.send.{table}={sent}: unknown{nearest(str(sent), SENDS)}")
    if weighted and (pooling == "mean" or sequence_features):
        raise ConfigError("weighted tables are summed: use pooling=sum and no sequence features, or drop the weights")
    dims = {tables[f.table].dim for f in schema.sparse if f.name in sequence_features and f.table is not None}
    if len(dims) > 1:
        raise ConfigError(f"tables of sequence features must have one dim, found {sorted(dims)}; set tables.NAME.dim")
