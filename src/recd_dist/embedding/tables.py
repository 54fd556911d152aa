"""Embeddings: the tables of a model, fed unique rows (dedup=on) or every sample's own copy (dedup=off).

::

    IKJT --unique rows, unique ids--> tables of each class --vectors--> Assemble --> Grouped, GroupedJagged

On one process the tables are looked up where they are; over ranks ``embedding/sharded_embeddings.py`` puts the
exchange between. With ``dedup=False`` the middle is what a TorchRec user writes: one EmbeddingBagCollection and one
EmbeddingCollection with a key per feature, on the expanded batch. Both yield the same types, from the same tables.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from recd_dist.embedding.exchange.assemble import Assemble, AssembleExpanded, Block, Looked
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
    on arrival. Every other table is pooled where it lies, unless its distinct ids are sent.

    Args:
        schema: features, groups, tables.
        tables: size of each table that the schema names.
        sequence_features: features handed on as jagged vectors.
        dedup: send unique rows; False trains the expanded batch through plain TorchRec.
        pooling: ``sum`` or ``mean`` of a row's vectors (we divide: TorchRec's MEAN is wrong under row-wise sharding).
        weighted: batches carry a weight per id, by which its vector is multiplied before it is summed.
        send: per table what travels, ``rows`` or ``ids``; ``ids`` for un-pooled tables and ``rows`` for others when
            absent.
        codecs: how vectors and gradients travel between ranks; float32 when absent. Not with ``dedup=False``.
        device: where weights are made; ``meta`` before sharding, so that no rank holds a whole table.

    Raises:
        ConfigError: a table without a size, a sequence feature that the schema does not have, or weights where they
            mean nothing.
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
        _check(schema, tables, sequence_features, pooling, weighted, send or {})
        self.codecs = codecs or Codecs()
        if not dedup and self.codecs != Codecs():
            raise ConfigError("Embeddings: dedup=False is plain TorchRec in fp32; codecs need dedup=True")
        self.schema, self.dedup, self.weighted = schema, dedup, weighted
        self.tables = {name: tables[name] for name in schema.tables}
        features = {t: tuple(f.name for f in schema.sparse if f.table == t) for t in schema.tables}
        kept = frozenset(sequence_features)
        self.sequence_tables = {t: fs for t, fs in features.items() if kept.intersection(fs)}
        chosen = send or {}
        self.send: dict[str, Send] = {
            t: chosen.get(t, "ids" if t in self.sequence_tables else "rows") for t in schema.tables
        }
        self.classes = table_classes(schema, self.send, self.sequence_tables)
        self.pooled = nn.ModuleDict()
        self.sequences: EmbeddingCollection | None = None
        mean = pooling == "mean"
        if dedup:
            for each in self.classes:
                self.pooled[each.name] = _bags(self.tables, each.tables, weighted and each.pooled, device)
            self.assemble: nn.Module = Assemble(schema, kept, mean)
            return
        pooled = {t: fs for t, fs in features.items() if t not in self.sequence_tables}
        if pooled:
            self.pooled[SAMPLE] = _bags(self.tables, pooled, weighted, device)
        if self.sequence_tables:
            self.sequences = _lists(self.tables, self.sequence_tables, device)
        self.rows = ExpandedRows(weighted)
        self.assemble = AssembleExpanded(schema, self.sequence_tables, kept, mean)

    def forward(self, sparse: IKJT) -> Embedded:
        """Looks up a batch; nothing is expanded.

        Args:
            sparse: groups as in the schema, or all in ``sample`` when ``dedup`` is off.

        Returns:
            pooled: per group that has pooled features [U, sum of dims], features in schema order; with ``dedup`` off
            the single group ``sample``. sequences: per sequence feature its vectors.

        Raises:
            ValueError: the batch carries weights and the tables take none, or the other way round.
        """
        if not self.dedup:
            sent = self.rows(sparse)
            pooled = [module(sent) for module in self.pooled.values()]
            return self.assemble(sent, pooled, None if self.sequences is None else self.sequences(sent))
        check_weights(sparse, self.weighted)
        looked = []
        for each in self.classes:
            out: KeyedTensor = self.pooled[each.name](class_kjt(each, class_rows(sparse, each)))
            block = Block(tuple(out.keys()), tuple(out.length_per_key()), out.values())
            looked.append(Looked(each, (block,)))
        return self.assemble(sparse, looked)

    @property
    def dims(self) -> dict[str, int]:
        """Width of each id feature's vectors, in schema order."""
        return {f.name: self.tables[f.table].dim for f in self.schema.sparse if f.table is not None}


class ExpandedRows(nn.Module):
    """IKJT -> the KeyedJaggedTensor that a plain TorchRec job is fed: a row per sample.

    A leaf without parameters for torch.fx, so that TrainPipelineSparseDist runs it (a "postproc" in its words) and the
    input exchange of the next batch while this one computes.

    Args:
        weighted: the tables take weights.
    """

    def __init__(self, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted

    def forward(self, sparse: IKJT) -> KeyedJaggedTensor:
        """The expanded batch, without a copy when it comes expanded."""
        check_weights(sparse, self.weighted)
        if any(g.keys for g in sparse.groups if g.name != SAMPLE):
            return sparse.to_kjt()
        return sparse.rows_as_kjt(SAMPLE)


def check_weights(sparse: IKJT, weighted: bool) -> None:
    """Refuses weights that would be passed over, and their absence.

    Raises:
        ValueError: names the remedy.
    """
    if sparse.weights is not None and not weighted:
        raise ValueError(
            "Embeddings: this batch carries weights, which the tables do not take; "
            "drop them in the reader or use Embeddings(weighted=True)"
        )
    if weighted and sparse.weights is None and len(sparse.values):
        raise ValueError("Embeddings: weighted=True, but this batch carries no weights; IKJT(weights=...) holds them")


def class_kjt(table_class: TableClass, rows: ClassRows) -> KeyedJaggedTensor:
    """A class's rows as the KeyedJaggedTensor of its module."""
    lengths = rows.lengths
    if lengths is None:
        lengths = torch.ones(rows.num_rows, dtype=torch.int32, device=rows.values.device)
    keys = list(table_class.stacks)
    return KeyedJaggedTensor(keys, rows.values, rows.weights, lengths=lengths, stride=rows.num_rows)


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
    tables: Mapping[str, Table], keys: Mapping[str, tuple[str, ...]], weighted: bool, device: torch.device | str
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
    return EmbeddingBagCollection(tables=configs, is_weighted=weighted, device=torch.device(device))


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


def _check(
    schema: Schema,
    tables: Mapping[str, Table],
    sequence_features: Collection[str],
    pooling: str,
    weighted: bool,
    send: Mapping[str, str],
) -> None:
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
    for table, what in send.items():
        if table not in schema.tables:
            raise ConfigError(f"plan.send: no table '{table}'{nearest(table, schema.tables)}")
        if what not in SENDS:
            raise ConfigError(f"plan.send.{table}={what}: unknown{nearest(str(what), SENDS)}")
    if weighted and (pooling == "mean" or sequence_features):
        raise ConfigError("weighted tables are summed: use pooling=sum and no sequence features, or drop the weights")
    dims = {tables[f.table].dim for f in schema.sparse if f.name in sequence_features and f.table is not None}
    if len(dims) > 1:
        raise ConfigError(f"tables of sequence features must have one dim, found {sorted(dims)}; set tables.NAME.dim")
