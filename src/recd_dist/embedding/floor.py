"""Bytes of a training step by formula: what must cross the network, and what the expanded batch would have cost.

Bytes are charged to the rank whose batch needs them: the ids it sends, the vectors it is sent, the gradients it sends
back. Over all ranks the sum equals what is counted at the collectives; a single rank differs where tables lie unevenly.
R rows, N ids, width D, W ranks; a share of (W-1)/W stands for "not on my own rank" where the ids decide:

| sharding | input | output, and again backward |
|---|---|---|
| TW, CW (each shard on another rank) | N ids + R lengths | R * D * 4 (un-pooled: N * D * 4) |
| RW | N ids * (W-1)/W + R lengths * (W-1) | R * D * 4 * (W-1) (un-pooled: N * D * 4 * (W-1)/W) |
| DP | 0 | 0; its gradient joins the all-reduce, rows * D * 4 * 2 (W-1)/W |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from recd_dist.embedding.tables import Embeddings
from recd_dist.ikjt import IKJT
from recd_dist.manifest import Manifest
from recd_dist.schema import SAMPLE, Schema

FLOAT_BYTES = 4
LENGTH_BYTES = 4

Placement = Mapping[str, tuple[str, tuple[int, ...]]]
"""For each table its sharding (TW, RW, CW, DP) and the ranks of its shards."""


@dataclass(frozen=True)
class TableUse:
    """How a model uses a table.

    Attributes:
        table: its name.
        num_embeddings, dim: its size.
        features: what looks it up.
        is_sequence: its vectors travel un-pooled.
    """

    table: str
    num_embeddings: int
    dim: int
    features: tuple[str, ...]
    is_sequence: bool


@dataclass(frozen=True)
class StepRows:
    """Rows and ids of one rank's batch.

    Attributes:
        batch_size: B.
        rows: U of each feature's group, by feature.
        unique_ids: ids of each feature over unique rows.
        expanded_ids: ids of each feature when every sample has its own copy.
        id_bytes: 4 or 8.
        distinct_ids: of un-pooled tables of which each distinct id is sent once, their number by table.
    """

    batch_size: int
    rows: Mapping[str, float]
    unique_ids: Mapping[str, float]
    expanded_ids: Mapping[str, float]
    id_bytes: int = 4
    distinct_ids: Mapping[str, float] = field(default_factory=dict)

    def num_rows(self, features: Iterable[str], dedup: bool) -> float:
        """Rows sent for some features."""
        return sum(self.rows[f] if dedup else self.batch_size for f in features)

    def num_ids(self, features: Iterable[str], dedup: bool) -> float:
        """Ids sent for some features."""
        counts = self.unique_ids if dedup else self.expanded_ids
        return sum(counts[f] for f in features)

    def by_group(self, schema: Schema) -> dict[str, float]:
        """Rows of each group that has id features: what ``Embeddings(group_rows=...)`` takes."""
        return {f.group: self.rows[f.name] for f in schema.sparse}

    @staticmethod
    def of_batch(sparse: IKJT, embeddings: Embeddings | None = None) -> "StepRows":
        """The counts of one batch (copies lengths to the host).

        Args:
            sparse: deduplicated batch.
            embeddings: counts distinct ids too, where these tables send each once.
        """
        distinct: dict[str, float] = {}
        if embeddings is not None and embeddings.unique_ids:
            for table, features in embeddings.sequence_tables.items():
                distinct[table] = len(torch.unique(torch.cat([sparse.values_of(f) for f in features])))
        return StepRows(
            distinct_ids=distinct,
            batch_size=sparse.batch_size,
            rows={k: sparse.num_rows(sparse.group_of(k)) for k in sparse.keys},
            unique_ids={k: sparse.num_values(k) for k in sparse.keys},
            expanded_ids=sparse.expanded_num_values(),
            id_bytes=sparse.values.element_size(),
        )

    @staticmethod
    def of_table(manifest: Manifest, batch_size: int, id_bytes: int = 4) -> "StepRows":
        """What a batch holds on average, by the statistics of a clustered table.

        Args:
            manifest: of the table trained on.
            batch_size: samples of one rank's batch.
            id_bytes: 4 or 8.
        """
        share = batch_size / max(1, manifest.num_samples)
        rows = {g: max(1.0, manifest.group_rows[g] * share) for g in manifest.schema.dedup_groups}
        rows[SAMPLE] = float(batch_size)
        sparse = manifest.schema.sparse
        return StepRows(
            batch_size=batch_size,
            rows={f.name: rows[f.group] for f in sparse},
            unique_ids={f.name: manifest.features[f.name].num_values_unique * share for f in sparse},
            expanded_ids={f.name: manifest.features[f.name].num_values_expanded * share for f in sparse},
            id_bytes=id_bytes,
        )


@dataclass(frozen=True)
class StepBytes:
    """Bytes a step sends for one rank's batch, by direction.

    Attributes:
        input: ids and lengths.
        output: embedded rows or vectors, forward.
        backward: their gradients.
    """

    input: float = 0.0
    output: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """All directions."""
        return self.input + self.output + self.backward

    def __add__(self, other: "StepBytes") -> "StepBytes":
        return StepBytes(self.input + other.input, self.output + other.output, self.backward + other.backward)


def table_uses(embeddings: Embeddings) -> list[TableUse]:
    """How each table is used, in schema order."""
    names = {t: tuple(f.name for f in embeddings.schema.sparse if f.table == t) for t in embeddings.tables}
    return [
        TableUse(t, size.num_embeddings, size.dim, names[t], t in embeddings.sequence_tables)
        for t, size in embeddings.tables.items()
    ]


def step_bytes(
    uses: Sequence[TableUse],
    placement: Placement,
    step: StepRows,
    world_size: int,
    *,
    dedup: bool,
    rank: int | None = None,
) -> StepBytes:
    """Bytes that leave a rank's host memory for another rank because of one batch.

    Args:
        uses: the tables.
        placement: where they lie.
        step: rows and ids of the batch.
        world_size: W.
        dedup: unique rows; False: every sample's own copy.
        rank: whose batch it is; None: averaged over the ranks.
    """
    total = StepBytes()
    for use in uses:
        total = total + _table_bytes(use, *placement[use.table], step, world_size, dedup, rank)
    return total


def _table_bytes(
    use: TableUse,
    sharding: str,
    ranks: tuple[int, ...],
    step: StepRows,
    world_size: int,
    dedup: bool,
    rank: int | None,
) -> StepBytes:
    """One table's share of a step."""
    away = (world_size - 1) / world_size
    rows, ids = step.num_rows(use.features, dedup), step.num_ids(use.features, dedup)
    lengths = rows * LENGTH_BYTES
    if use.is_sequence:
        # Deduplicated, a table is one list of ids: a single length; plain TorchRec sends a length per sample.
        if dedup:
            lengths, ids = LENGTH_BYTES, step.distinct_ids.get(use.table, ids)
        rows = ids
    vectors = rows * use.dim * FLOAT_BYTES
    if sharding == "DP":
        return StepBytes(backward=0.0)
    if sharding == "RW":
        output = vectors * (away if use.is_sequence else world_size - 1)
        return StepBytes(ids * step.id_bytes * away + lengths * (world_size - 1), output, output)
    remote = len(ranks) * away if rank is None else sum(r != rank for r in ranks)
    output = vectors * remote / len(ranks)
    return StepBytes((ids * step.id_bytes + lengths) * remote, output, output)


def all_reduce_bytes(num_parameters: int, world_size: int) -> float:
    """Bytes that a rank sends when gradients of replicated parameters are summed around a ring (DDP).

    Args:
        num_parameters: float32 parameters, those of data-parallel tables included.
        world_size: W.
    """
    return 2.0 * (world_size - 1) / world_size * num_parameters * FLOAT_BYTES
