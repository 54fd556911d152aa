"""Embeddings: the tables of a model, for unique rows or for every sample's own copy.

::

    IKJT --unique rows, distinct ids--> tables of each class --vectors--> Assemble --> Grouped, GroupedJagged

On one process the tables are looked up where they are; over ranks ``sharded_embeddings.py`` puts the exchange between.
With ``dedup=False`` the middle is what a TorchRec user writes: one EmbeddingBagCollection, a second one with
``is_weighted=True`` for tables whose features have weights, and one EmbeddingCollection. They have a key for each
feature and take the expanded batch. Both ways have the same tables and return the same types.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from recd_dist.embedding.exchange.assemble import Assemble, AssembleExpanded, Block, LookupResult
from recd_dist.embedding.exchange.classes import ClassRows, TableClass, class_rows, table_classes
from recd_dist.embedding.vocabulary.names import EXCHANGES, SENDS, Codecs, ExchangeName, Send
from recd_dist.errors import ConfigError, nearest
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import SAMPLE, Schema, Table
from recd_dist.tensors.grouped import Embedded
from recd_dist.tensors.ikjt import IKJT

Pooling = Literal["sum", "mean"]

WEIGHTED = "weighted"
"""Name of the module of pooled tables that take weights if ``dedup`` is off; the module ``sample`` has the others."""

_WEIGHT = re.compile(
    r"(?:^|\.)(?:pooled\.[^.]+\.embedding_bags|sequences\.embeddings)\.(?P<table>\w+)(?P<rest>\.[\w.]+)?\Z"
)


class Embeddings(nn.Module):
    """All embedding tables of a model.

    A table with a feature in ``sequence_features`` is un-pooled: its vectors travel, and its other features are pooled
    where the vectors arrive. Every other table is pooled where it lies, unless its distinct ids are sent.

    If a feature has weights, the vector of each id is multiplied by the id's weight before it is summed up or returned
    un-pooled. A mean is the sum of these products divided by the number of ids, as in fbgemm, and not by the sum of the
    weights; torch's own EmbeddingBag refuses weighted means.

    Args:
        schema: features, groups, tables, and which features have weights. If any feature has weights, a batch has a
            weight for each id of every feature; it is 1 if the feature has none.
        tables: size of each table that the schema names.
        sequence_features: names of the features whose vectors stay un-pooled, as jagged tensors.
        dedup: True to send unique rows, False to train the expanded batch through plain TorchRec.
        pooling: ``sum`` or ``mean`` of the vectors of a row. The division is ours, because TorchRec's MEAN is wrong
            under row-wise sharding.
        send: for each table what travels, ``rows`` or ``ids``; when absent, ``ids`` for un-pooled tables and ``rows``
            for others.
        codecs: how vectors and gradients are written while they travel between ranks; float32 when absent. With
            ``dedup=False`` only float32 is possible.
        exchange: ``direct``, or ``by_host`` to travel inside the host first; on one host it is always direct.
        device: device of the weights; ``meta`` before sharding, so that no rank holds a whole table.

    Raises:
        ConfigError: a table has no size, the schema lacks a sequence feature, or the arguments do not go together.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, Table],
        *,
        sequence_features: Collection[str] = (),
        dedup: bool = True,
        pooling: Pooling = "sum",
        send: Mapping[str, Send] | None = None,
        codecs: Codecs | None = None,
        exchange: ExchangeName = "direct",
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _check_arguments(schema, tables, sequence_features, pooling, send or {})
        self.codecs, self.exchange = codecs or Codecs(), exchange
        if exchange not in EXCHANGES:
            raise ConfigError(f"plan.exchange={exchange}: unknown{nearest(str(exchange), EXCHANGES)}")
        if not dedup and self.codecs != Codecs():
            raise ConfigError("Embeddings: dedup=False is plain TorchRec in fp32; codecs need dedup=True")
        self.schema, self.dedup, self.weighted = schema, dedup, bool(schema.weights)
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
            for each in self.classes:
                self.pooled[module_key(each.name)] = _build_bags(self.tables, each.tables, each.weighted, device)
            self.assemble: nn.Module = Assemble(schema, kept, mean)
            return
        pooled = {t: fs for t, fs in features.items() if t not in self.sequence_tables}
        for name, weighted in ((SAMPLE, False), (WEIGHTED, True)):
            of_module = {t: fs for t, fs in pooled.items() if any(f in schema.weights for f in fs) is weighted}
            if of_module:
                self.pooled[name] = _build_bags(self.tables, of_module, weighted, device)
        if self.sequence_tables:
            self.sequences = _build_lists(self.tables, self.sequence_tables, device)
        names = tuple(f.name for f in schema.sparse)
        self.rows = ExpandedRows(names, self.weighted, keep_weights=False)
        self.weighted_rows = ExpandedRows(names, True, keep_weights=True) if self.weighted else None
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
            plain = self.rows(sparse)
            sent = plain if self.weighted_rows is None else self.weighted_rows(sparse)
            pooled = [module(sent if name == WEIGHTED else plain) for name, module in self.pooled.items()]
            return self.assemble(sparse, sent, pooled, None if self.sequences is None else self.sequences(plain))
        check_weights(sparse, self.weighted)
        results = []
        for table_class in self.classes:
            rows = class_rows(sparse, table_class)
            out: KeyedTensor = self.pooled[module_key(table_class.name)](class_kjt(table_class, rows))
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
        names: the features that are looked up; others of a batch are left out.
        weighted: True if batches have weights.
        keep_weights: True to return the rows with their weights, False to leave the weights out. Sharded TorchRec
            modules send and use whatever weights they take, even if they were not built with ``is_weighted``.
    """

    def __init__(self, names: tuple[str, ...], weighted: bool, keep_weights: bool) -> None:
        super().__init__()
        self.names, self.weighted, self.keep_weights = frozenset(names), weighted, keep_weights

    def forward(self, sparse: IKJT) -> KeyedJaggedTensor:
        """The expanded batch; nothing is copied if the batch is expanded already."""
        check_weights(sparse, self.weighted)
        if sparse.weights is not None and not self.keep_weights:
            sparse = replace(sparse, weights=None)
        if not self.names.issuperset(sparse.keys):
            sparse = sparse.select([key for key in sparse.keys if key in self.names])
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
            "Embeddings: this batch carries weights, which no feature of the schema has; "
            "name them there (Feature.weights), or leave them out of the batch"
        )
    if weighted and sparse.weights is None:
        raise ValueError(
            "Embeddings: features of the schema have weights, but this batch carries none; IKJT(weights=...) holds them"
        )


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
    dims = {tables[f.table].dim for f in schema.sparse if f.name in sequence_features and f.table is not None}
    if len(dims) > 1:
        raise ConfigError(f"tables of sequence features must have one dim, found {sorted(dims)}; set tables.NAME.dim")
