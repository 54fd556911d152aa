"""Bytes of a training step by formula: what must cross the network, and what the expanded batch would have cost.

Bytes are charged to the rank whose batch needs them: the ids it sends, the vectors it is sent, the gradients it sends
back. Over all ranks the sum equals what is counted at the collectives; a single rank differs where tables lie unevenly.
R rows and N ids of a table in a batch, a shard of n of its rows and c of its columns on another rank:

| what travels | input, once per rank and row range | output, and again backward, per shard |
|---|---|---|
| unique rows | the N ids that lie in its n rows, and R lengths of 1, 2 or 4 bytes | R * c * 4 |
| unique ids | the distinct ids that lie in its n rows | as many * c * 4 |
| unique rows, un-pooled | the N ids that lie in its n rows | as many * c * 4 |
| expanded, through TorchRec | ids and 4-byte lengths of the samples, once per shard | B * c * 4; un-pooled N * c * 4 |

Weights add 4 bytes to each id of a table that pools where it lies; others are multiplied where vectors arrive.

A data-parallel table exchanges nothing here; its gradient joins the all-reduce, rows * D * 4 * 2 (W-1)/W. What TorchRec
needs beside this, and we do, is left out on both sides: a few integers a step that tell sizes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.exchange.codecs import Codecs, row_bytes
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.shards import Placed, Placement
from recd_dist.embedding.tables import Embeddings
from recd_dist.ikjt import IKJT
from recd_dist.manifest import Manifest
from recd_dist.schema import SAMPLE, Schema

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
            expanded_ids=sparse.expanded_num_values(),
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


@dataclass(frozen=True)
class StepBytes:
    """Bytes a step sends for one rank's batch, by direction.

    Attributes:
        input: ids, their weights, and lengths.
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

    def scaled(self, factor: float) -> "StepBytes":
        """Every direction times a factor."""
        return StepBytes(self.input * factor, self.output * factor, self.backward * factor)

    def __add__(self, other: "StepBytes") -> "StepBytes":
        return StepBytes(self.input + other.input, self.output + other.output, self.backward + other.backward)


def table_uses(embeddings: Embeddings) -> list[TableUse]:
    """How each table is used, in schema order."""
    names = {t: tuple(f.name for f in embeddings.schema.sparse if f.table == t) for t in embeddings.tables}
    weighted, uses = embeddings.schema.weights, []
    for t, size in embeddings.tables.items():
        travels = t in embeddings.sequence_tables, embeddings.send[t], embeddings.codecs
        has_weights = any(f in weighted for f in names[t])
        uses.append(TableUse(t, size.num_embeddings, size.dim, names[t], *travels, has_weights))
    return uses


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
        dedup: unique rows and ids; False: every sample's own copy, through plain TorchRec.
        rank: whose batch it is; None: averaged over the ranks.
    """
    total = StepBytes()
    for use in uses:
        for holder, part in holder_bytes(use, placement[use.table], step, dedup=dedup).items():
            away = (world_size - 1) / world_size if rank is None else float(holder != rank)
            total = total + part.scaled(away)
    return total


def group_bytes(
    schema: Schema,
    uses: Sequence[TableUse],
    placement: Placement,
    step: StepRows,
    world_size: int,
    *,
    dedup: bool,
    rank: int | None = None,
) -> dict[str, StepBytes]:
    """The same by group. Ids that groups share in a table are charged by each group's share of the table's ids.

    Args:
        schema: groups of the features.
        uses: as for ``step_bytes``.
        placement: the same.
        step: the same.
        world_size: the same.
        dedup: the same.
        rank: the same.
    """
    found = {g: StepBytes() for g in schema.groups if schema.sparse_of(g)}
    even = replace(step, ids={})
    for use in uses:
        total = max(1.0, step.num_ids(use.features, dedup=True))
        whole = step_bytes([use], placement, step, world_size, dedup=dedup, rank=rank)
        for name in use.features:
            if dedup and use.send == "ids":
                part = whole.scaled(step.num_ids([name], dedup=True) / total)
            else:
                alone = [replace(use, features=(name,))]
                part = step_bytes(alone, placement, even, world_size, dedup=dedup, rank=rank)
            found[schema[name].group] += part
    return found


def holder_bytes(use: TableUse, place: Placed, step: StepRows, *, dedup: bool) -> dict[int, StepBytes]:
    """What one batch exchanges of a table with each rank that holds some of it, itself included.

    Args:
        use: the table.
        place: where it lies.
        step: rows and ids of the batch.
        dedup: unique rows and ids, or every sample's own copy.
    """
    parts = dict.fromkeys(place.ranks, StepBytes())
    ids, rows = ids_and_rows(use, step, dedup=dedup)
    exact = step.ids.get(use.table) if dedup else None
    sent: Iterable[tuple[int, int, int]] = ((s.rank, s.row, s.num_rows) for s in place.shards)
    for holder, row, num_rows in dict.fromkeys(sent) if dedup else sent:  # ours sends ids once a range of rows
        inside = _inside(use, exact, ids, row, num_rows)
        lengths = 0.0 if rows is None and dedup else step.num_rows(use.features, dedup)
        width = step.length_bytes if dedup else LENGTH_BYTES
        parts[holder] = parts[holder] + StepBytes(inside * (step.id_bytes + use.weight_bytes(dedup)) + lengths * width)
    for shard in place.shards:
        vectors = _inside(use, exact, ids, shard.row, shard.num_rows) if rows is None else rows
        codecs = use.codecs if dedup else Codecs()
        out, back = (vectors * row_bytes(c, [shard.num_columns]) for c in (codecs.forward, codecs.backward))
        parts[shard.rank] = parts[shard.rank] + StepBytes(0.0, out, back)
    return parts


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


def _inside(use: TableUse, exact: Tensor | None, ids: float, row: int, num_rows: int) -> float:
    """Of the ids of a table those that lie in a range of its rows: counted where they are known, else spread evenly."""
    if num_rows == use.num_embeddings or exact is None:
        return ids * num_rows / use.num_embeddings
    return float(((exact >= row) & (exact < row + num_rows)).sum())


def all_reduce_bytes(num_parameters: int, world_size: int) -> float:
    """Bytes that a rank sends when gradients of replicated parameters are summed around a ring (DDP).

    Args:
        num_parameters: float32 parameters, those of data-parallel tables included.
        world_size: W.
    """
    return 2.0 * (world_size - 1) / world_size * num_parameters * FLOAT_BYTES
