"""Rows and ids of one rank's batch, and how a model uses its tables: what every estimate is made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.names import Codecs
from recd_dist.embedding.tables import Embeddings
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.ikjt import IKJT

FLOAT_BYTES = 4


LENGTH_BYTES = 4


def length_bytes(longest: int) -> int:
    """Bytes of a list length on the wire, as the exchange packs it: 1, 2 or 4.

    Args:
        longest: the longest list of the batch.
    """
    return 1 if longest < 2**8 else 2 if longest < 2**15 else 4


@dataclass(frozen=True)
class TableUse:
    """How a model uses a table.

    Attributes:
        table: its name.
        num_embeddings, dim: its size.
        features: what looks it up.
        is_sequence: its vectors travel un-pooled in a plain TorchRec job.
        send: what travels of it when batches are deduplicated.
        codecs: and how.
        weighted: a feature of it has weights.
    """

    table: str
    num_embeddings: int
    dim: int
    features: tuple[str, ...]
    is_sequence: bool
    send: Send = "rows"
    codecs: Codecs = field(default_factory=Codecs)
    weighted: bool = False

    def weight_bytes(self, dedup: bool) -> int:
        """Bytes that travel beside each of its ids: where it pools, it needs the weights."""
        pools = not self.is_sequence and not (dedup and self.send == "ids")
        return FLOAT_BYTES if self.weighted and pools else 0


@dataclass(frozen=True)
class StepRows:
    """Rows and ids of one rank's batch.

    Attributes:
        batch_size: B.
        rows: U of each feature's group, by feature.
        unique_ids: ids of each feature over unique rows.
        expanded_ids: ids of each feature when every sample has its own copy.
        id_bytes: 4 or 8.
        distinct_ids: of each table the number of distinct ids over its features; a table that is missing is taken to
            have all its ids distinct.
        length_bytes: of a list length when unique rows are sent.
        ids: by table the ids that are sent, for exact counts per shard; without them ids are taken to be spread evenly
            over a table's rows.
    """

    batch_size: int
    rows: Mapping[str, float]
    unique_ids: Mapping[str, float]
    expanded_ids: Mapping[str, float]
    id_bytes: int = 4
    distinct_ids: Mapping[str, float] = field(default_factory=dict)
    length_bytes: int = LENGTH_BYTES
    ids: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def num_rows(self, features: Iterable[str], dedup: bool) -> float:
        """Rows sent for some features."""
        return sum(self.rows[f] if dedup else self.batch_size for f in features)

    def num_ids(self, features: Iterable[str], dedup: bool) -> float:
        """Ids of some features: over unique rows, or when every sample has its own copy."""
        counts = self.unique_ids if dedup else self.expanded_ids
        return sum(counts[f] for f in features)

    def num_distinct(self, use: TableUse) -> float:
        """Distinct ids of a table."""
        return self.distinct_ids.get(use.table, self.num_ids(use.features, dedup=True))

    @staticmethod
    def of_batch(sparse: IKJT, uses: Sequence[TableUse] = (), *, exact: bool = False) -> "StepRows":
        """The counts of one batch (copies lengths to the host, and ids where distinct ones are counted).

        Args:
            sparse: deduplicated batch.
            uses: of tables that send distinct ids, these are counted.
            exact: keeps all ids, for exact counts per shard, and counts the distinct ids of every table.
        """
        ids: dict[str, Tensor] = {}
        distinct: dict[str, float] = {}
        for use in uses:
            if exact or use.send == "ids":
                every = torch.cat([sparse.values_of(f) for f in use.features])
                once, _, counts = distinct_ids(every, use.num_embeddings, 1)
                distinct[use.table] = int(counts[0])
                if exact:
                    ids[use.table] = once[: int(counts[0])] if use.send == "ids" else every
        return StepRows(
            distinct_ids=distinct,
            batch_size=sparse.batch_size,
            rows={k: sparse.num_rows(sparse.group_of(k)) for k in sparse.keys},
            unique_ids={k: sparse.num_values(k) for k in sparse.keys},
            expanded_ids=sparse.count_expanded_values(),
            id_bytes=sparse.values.element_size(),
            length_bytes=length_bytes(int(sparse.lengths.max()) if len(sparse.lengths) else 0),
            ids=ids,
        )

    @staticmethod
    def mean(batches: "Sequence[StepRows]") -> "StepRows":
        """The mean of some batches; at least one. Their ids are left out."""

        def over(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
            return {name: sum(c[name] for c in counts) / len(counts) for name in counts[0]}

        return StepRows(
            batch_size=round(sum(b.batch_size for b in batches) / len(batches)),
            rows=over([b.rows for b in batches]),
            unique_ids=over([b.unique_ids for b in batches]),
            expanded_ids=over([b.expanded_ids for b in batches]),
            id_bytes=batches[0].id_bytes,
            distinct_ids=over([b.distinct_ids for b in batches]),
            length_bytes=max(b.length_bytes for b in batches),
        )

    @staticmethod
    def of_table(manifest: Manifest, schema: Schema, batch_size: int, id_bytes: int = 4) -> "StepRows":
        """What a batch holds on average, by the statistics of a clustered table.

        Args:
            manifest: of the table trained on.
            schema: the features trained on, which may stand in other groups than in the table.
            batch_size: samples of one rank's batch.
            id_bytes: 4 or 8.
        """
        share = batch_size / max(1, manifest.num_samples)
        rows = {g: max(1.0, manifest.group_rows[g] * share) for g in schema.dedup_groups}
        rows[SAMPLE] = float(batch_size)
        stats = {f.name: manifest.features[f.name] for f in schema.sparse}
        expanded = {n: s.num_values_expanded * share for n, s in stats.items()}
        unique = {
            f.name: expanded[f.name] if f.group == SAMPLE else stats[f.name].num_values_unique * share
            for f in schema.sparse
        }
        return StepRows(
            batch_size=batch_size,
            rows={f.name: rows[f.group] for f in schema.sparse},
            unique_ids=unique,
            expanded_ids=expanded,
            id_bytes=id_bytes,
            length_bytes=length_bytes(max((s.max_length for s in stats.values()), default=0)),
        )


def table_uses(embeddings: Embeddings) -> list[TableUse]:
    """How each table is used, in schema order."""
    names = {t: tuple(f.name for f in embeddings.schema.sparse if f.table == t) for t in embeddings.tables}
    weighted, uses = embeddings.schema.weights, []
    for t, size in embeddings.tables.items():
        travels = t in embeddings.sequence_tables, embeddings.send[t], embeddings.codecs
        has_weights = any(f in weighted for f in names[t])
        uses.append(TableUse(t, size.num_embeddings, size.dim, names[t], *travels, has_weights))
    return uses


def ids_and_rows(use: TableUse, step: StepRows, *, dedup: bool) -> tuple[float, float | None]:
    """Ids of a table that one batch looks up, and pooled rows that come back; None where every id's vector does.

    Args:
        use: the table.
        step: rows and ids of the batch.
        dedup: unique rows and ids, or every sample's own copy.
    """
    if dedup and use.send == "ids":
        return step.num_distinct(use), None
    ids = step.num_ids(use.features, dedup)
    return ids, None if use.is_sequence else step.num_rows(use.features, dedup)
