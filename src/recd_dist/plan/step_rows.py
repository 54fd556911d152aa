"""Rows and ids of one rank's batch, and how a model uses its tables.

Every estimate of ``plan/`` is made from these two.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import Codecs, Send
from recd_dist.table.manifest import Manifest
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.ikjt import IKJT

FLOAT_BYTES = 4
"""Bytes of a number of a table, float32."""

LENGTH_BYTES = 4
"""Bytes that TorchRec sends for the length of a list, int32."""


def length_bytes(longest: int) -> int:
    """Bytes that our exchange sends for the length of a list: 1, 2 or 4.

    Args:
        longest: number of ids in the longest list of the batch.
    """
    return 1 if longest < 2**8 else 2 if longest < 2**15 else 4


@dataclass(frozen=True)
class TableUse:
    """How a model uses a table.

    Attributes:
        table: name of the table.
        num_embeddings: rows of the table.
        dim: columns of the table.
        features: names of the features that look up the table.
        is_sequence: True if the table is un-pooled: plain TorchRec sends its vectors without summing them up.
        send: what travels of the table when batches are deduplicated.
        codecs: how its vectors and gradients are written while they travel.
        weighted: True if a feature of the table has weights.
        host_size: L, the number of ranks of a host, where batches travel inside the host first; 0 if directly.
    """

    table: str
    num_embeddings: int
    dim: int
    features: tuple[str, ...]
    is_sequence: bool
    send: Send = "rows"
    codecs: Codecs = field(default_factory=Codecs)
    weighted: bool = False
    host_size: int = 0

    @property
    def shares_ids(self) -> bool:
        """Whether rows that are windows share the ids that travel: where vectors come back, not sums of rows."""
        return self.is_sequence or self.send == "ids"

    def weight_bytes(self, dedup: bool) -> int:
        """Bytes of the weight that travels with each id; 0 if vectors are multiplied where they arrive.

        Args:
            dedup: True if batches are deduplicated.
        """
        pools = not self.is_sequence and not (dedup and self.send == "ids")
        return FLOAT_BYTES if self.weighted and pools else 0


@dataclass(frozen=True)
class StepRows:
    """How many rows and ids one rank's batch has.

    Attributes:
        batch_size: B, the number of samples.
        rows: for each feature the number of unique rows of its group, U.
        unique_ids: for each feature the number of ids in its unique rows.
        expanded_ids: for each feature the number of ids if every sample had its own copy of its row.
        stored_ids: for each feature the number of ids that a batch stores of its unique rows, where these are windows
            which share ids; a feature that is missing here stores its ``unique_ids``.
        id_bytes: bytes of an id, 4 or 8.
        distinct_ids: for each table the number of distinct ids, over all its features. A table that is missing here is
            treated as if all its ids were distinct.
        length_bytes: bytes of the length of a list, as our exchange sends it.
        distinct_of: for each table the number of distinct ids in 1, 2, 4, ... batches together. Of a table that is
            missing here, no two batches count as having an id in common.
        ids: for each table the ids that are sent, so that those of each shard can be counted exactly. Without them, ids
            are treated as if they were spread evenly over the rows of a table.
        host_rows: for each feature the number of unique rows in the batches of all ranks of a host; when absent, each
            rank has as many.
        host_ids: what ``ids`` is, of all ranks of a host together: of tables whose ids are sent each id once.
    """

    batch_size: int
    rows: Mapping[str, float]
    unique_ids: Mapping[str, float]
    expanded_ids: Mapping[str, float]
    id_bytes: int = 4
    distinct_ids: Mapping[str, float] = field(default_factory=dict)
    length_bytes: int = LENGTH_BYTES
    distinct_of: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ids: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    stored_ids: Mapping[str, float] = field(default_factory=dict)
    host_rows: Mapping[str, float] = field(default_factory=dict, compare=False)
    host_ids: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def num_rows(self, features: Iterable[str], dedup: bool) -> float:
        """How many rows are sent for some features.

        Args:
            features: names of the features.
            dedup: True for unique rows, False for a row for every sample.
        """
        return sum(self.rows[f] if dedup else self.batch_size for f in features)

    def num_host_rows(self, features: Iterable[str], host_size: int) -> float:
        """How many unique rows the batches of all ranks of a host have for some features.

        Args:
            features: names of the features.
            host_size: number of ranks of a host.
        """
        return sum(self.host_rows.get(f, host_size * self.rows[f]) for f in features)

    def num_ids(self, features: Iterable[str], dedup: bool) -> float:
        """How many ids some features have.

        Args:
            features: names of the features.
            dedup: True for the ids of unique rows, False for those of a row for every sample.
        """
        counts = self.unique_ids if dedup else self.expanded_ids
        return sum(counts[f] for f in features)

    def num_stored_ids(self, features: Iterable[str]) -> float:
        """How many ids a batch stores of some features' unique rows; windows share theirs."""
        return sum(self.stored_ids.get(f, self.unique_ids[f]) for f in features)

    def num_distinct(self, use: TableUse) -> float:
        """How many distinct ids a table has in the batch."""
        return self.distinct_ids.get(use.table, self.num_ids(use.features, dedup=True))

    def num_distinct_of(self, use: TableUse, num_batches: int) -> float:
        """How many distinct ids a table has in several batches together.

        Between the numbers of batches that were counted, and beyond them, it grows as from the one to the next: by a
        power of the number of batches. Beyond them that is rather too much, since growth slows down.

        Args:
            use: the table.
            num_batches: number of batches.
        """
        one, counted = self.num_distinct(use), self.distinct_of.get(use.table, ())
        most = min(num_batches * one, float(use.num_embeddings))
        if len(counted) < 2 or not counted[0]:
            return most
        doublings = math.log2(num_batches)
        last = min(int(doublings), len(counted) - 2)
        slope = counted[last + 1] / max(counted[last], 1.0)
        return min(most, one * counted[last] / counted[0] * slope ** (doublings - last))

    @staticmethod
    def unknown(uses: "Sequence[TableUse]", batch_size: int = 512) -> "StepRows":
        """A batch of which nothing is known: one id for each feature and sample.

        Args:
            uses: the tables.
            batch_size: B, the number of samples.
        """
        one_each = {f: float(batch_size) for use in uses for f in use.features}
        return StepRows(batch_size, rows=one_each, unique_ids=one_each, expanded_ids=one_each)

    @staticmethod
    def of_batch(sparse: IKJT, uses: Sequence[TableUse] = (), *, exact: bool = False) -> "StepRows":
        """Counts one batch. It copies lengths to the host, and ids where it counts distinct ones.

        Args:
            sparse: the deduplicated batch.
            uses: the tables. Distinct ids are counted for those whose ids are sent.
            exact: True to keep the ids of all tables, so that those of each shard can be counted exactly, and to count
                the distinct ids of every table.
        """
        ids: dict[str, Tensor] = {}
        distinct: dict[str, float] = {}
        for use in uses:
            if exact or use.send == "ids":
                own = [(f, sparse.values_of(f)) for f in use.features]
                all_ids = torch.cat([v if use.shares_ids else sparse.as_lists(f, v) for f, v in own])
                once, _, counts = distinct_ids(all_ids, use.num_embeddings, 1)
                distinct[use.table] = int(counts[0])
                if exact:
                    ids[use.table] = once[: int(counts[0])] if use.send == "ids" else all_ids
        return StepRows(
            distinct_ids=distinct,
            batch_size=sparse.batch_size,
            rows={k: sparse.num_rows(sparse.group_of(k)) for k in sparse.keys},
            unique_ids={k: sparse.num_list_values(k) for k in sparse.keys},
            stored_ids={k: sparse.num_values(k) for k in sparse.windows},
            expanded_ids=sparse.count_expanded_values(),
            id_bytes=sparse.values.element_size(),
            length_bytes=length_bytes(int(sparse.lengths.max()) if len(sparse.lengths) else 0),
            ids=ids,
        )

    @staticmethod
    def mean(batches: "Sequence[StepRows]") -> "StepRows":
        """The mean of some batches, without their ids.

        Args:
            batches: the counts of at least one batch.
        """

        def mean_of(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
            return {name: sum(c[name] for c in counts) / len(counts) for name in counts[0]}

        return StepRows(
            batch_size=round(sum(b.batch_size for b in batches) / len(batches)),
            rows=mean_of([b.rows for b in batches]),
            unique_ids=mean_of([b.unique_ids for b in batches]),
            expanded_ids=mean_of([b.expanded_ids for b in batches]),
            stored_ids=_mean_stored(batches),
            id_bytes=batches[0].id_bytes,
            distinct_ids=mean_of([b.distinct_ids for b in batches]),
            length_bytes=max(b.length_bytes for b in batches),
        )

    @staticmethod
    def of_table(manifest: Manifest, schema: Schema, batch_size: int, id_bytes: int = 4) -> "StepRows":
        """What a batch holds on average, computed from the statistics of a clustered table.

        Args:
            manifest: manifest of the table.
            schema: the features that the model reads; their groups may differ from those of the table.
            batch_size: B, the number of samples of one rank's batch.
            id_bytes: bytes of an id, 4 or 8.
        """
        share = batch_size / max(1, manifest.num_samples)
        rows = {g: max(1.0, manifest.group_rows[g] * share) for g in schema.dedup_groups}
        rows[SAMPLE] = float(batch_size)
        # Of a feature that is made nothing is known but what it is made from.
        stats = {f.name: manifest.features[f.made_from[0] if f.made_from else f.name] for f in schema.sparse}
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


def _mean_stored(batches: Sequence[StepRows]) -> dict[str, float]:
    """The mean of ``stored_ids``; a feature may have windows in some of the batches only."""
    names = {name for b in batches for name in b.stored_ids}
    return {name: sum(b.num_stored_ids([name]) for b in batches) / len(batches) for name in sorted(names)}


def table_uses(embeddings: Embeddings, host_size: int = 0) -> list[TableUse]:
    """How a model uses each of its tables, in the order of the schema.

    Args:
        embeddings: the tables.
        host_size: number of ranks of a host, if batches may travel inside the host first.
    """
    by_host = host_size if embeddings.exchange == "by_host" else 0
    names = {t: tuple(f.name for f in embeddings.schema.sparse if f.table == t) for t in embeddings.tables}
    weighted, uses = embeddings.schema.weights, []
    for t, size in embeddings.tables.items():
        travels = t in embeddings.sequence_tables, embeddings.send[t], embeddings.codecs
        has_weights = any(f in weighted for f in names[t])
        uses.append(TableUse(t, size.num_embeddings, size.dim, names[t], *travels, has_weights, by_host))
    return uses


def ids_and_rows(use: TableUse, step: StepRows, *, dedup: bool) -> tuple[float, float | None]:
    """How many ids of a table one batch looks up, and how many sums come back.

    Args:
        use: the table.
        step: rows and ids of the batch.
        dedup: True if unique rows or distinct ids travel, False if every sample sends its own copy.

    Returns:
        The number of ids, and the number of rows whose sums come back: None if each id's vector comes back instead.
    """
    if dedup and use.send == "ids":
        return step.num_distinct(use), None
    if dedup and use.shares_ids:
        return step.num_stored_ids(use.features), None
    ids = step.num_ids(use.features, dedup)
    return ids, None if use.is_sequence else step.num_rows(use.features, dedup)
