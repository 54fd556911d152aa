"""Bytes of a training step by formula, deduplicated or expanded.

Bytes are charged to the rank whose batch needs them: the ids that it sends, the vectors that it receives, the gradients
that it sends back. Over all ranks the sum equals what is counted at the collectives; for a single rank it differs where
tables lie unevenly. Let a batch have R rows and N ids of a table, and let another rank hold a shard with n of the
table's rows and c of its columns:

| what travels | input, once per rank and row range | output, and again backward, per shard |
|---|---|---|
| unique rows | the N ids that lie in its n rows, and R lengths of 1, 2 or 4 bytes | R * c * 4 |
| distinct ids | the distinct ids that lie in its n rows | as many * c * 4 |
| unique rows, un-pooled | the N ids that lie in its n rows | as many * c * 4 |
| expanded, through TorchRec | ids and 4-byte lengths of the samples, once per shard | B * c * 4; un-pooled N * c * 4 |

The weight of an id takes 4 bytes more if the table pools where it lies. Vectors of other tables are multiplied by their
weights where they arrive, so that these weights do not travel.

A data-parallel table exchanges none of these; its gradient is part of the all-reduce, rows * D * 4 * 2 (W-1)/W. Both
TorchRec and our exchange also send a few integers a step that tell sizes; these are left out on both sides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from recd_dist.embedding.vocabulary.names import Codecs, row_bytes
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.step_rows import FLOAT_BYTES, LENGTH_BYTES, StepRows, TableUse, ids_and_rows
from recd_dist.table.schema import Schema


@dataclass(frozen=True)
class StepBytes:
    """Bytes that a step sends for one rank's batch, by direction.

    Attributes:
        input: bytes of ids, of their weights and of lengths.
        output: bytes of sums or vectors, forward.
        backward: bytes of their gradients.
    """

    input: float = 0.0
    output: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Bytes of all directions together."""
        return self.input + self.output + self.backward

    def __mul__(self, factor: float) -> "StepBytes":
        return StepBytes(self.input * factor, self.output * factor, self.backward * factor)

    def __add__(self, other: "StepBytes") -> "StepBytes":
        return StepBytes(self.input + other.input, self.output + other.output, self.backward + other.backward)


def step_bytes(
    uses: Sequence[TableUse],
    placement: Placement,
    step: StepRows,
    world_size: int,
    *,
    dedup: bool,
    rank: int | None = None,
) -> StepBytes:
    """Bytes that travel between different ranks because of one batch.

    Args:
        uses: the tables.
        placement: where the tables lie.
        step: rows and ids of the batch.
        world_size: W, the number of ranks.
        dedup: True if unique rows or distinct ids travel through our exchange, False if every sample's own copy travels
            through plain TorchRec.
        rank: the rank whose batch it is; None for the mean over all ranks.
    """
    total = StepBytes()
    for use in uses:
        for holder, exchanged in holder_bytes(use, placement[use.table], step, dedup=dedup).items():
            away = (world_size - 1) / world_size if rank is None else float(holder != rank)
            total = total + exchanged * away
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
    """``step_bytes`` for each group. Distinct ids of a table are charged to its groups in proportion to their ids.

    Args:
        schema: features and groups.
        uses: the tables.
        placement: where the tables lie.
        step: rows and ids of the batch.
        world_size: W, the number of ranks.
        dedup: True if unique rows or distinct ids travel through our exchange, False if every sample's own copy travels
            through plain TorchRec.
        rank: the rank whose batch it is; None for the mean over all ranks.

    Returns:
        Bytes for each group that has id features.
    """
    by_group = {g: StepBytes() for g in schema.groups if schema.sparse_of(g)}
    evenly_spread = replace(step, ids={})
    for use in uses:
        num_ids = max(1.0, step.num_ids(use.features, dedup=True))
        of_table = step_bytes([use], placement, step, world_size, dedup=dedup, rank=rank)
        for name in use.features:
            if dedup and use.send == "ids":
                of_feature = of_table * (step.num_ids([name], dedup=True) / num_ids)
            else:
                alone = [replace(use, features=(name,))]
                of_feature = step_bytes(alone, placement, evenly_spread, world_size, dedup=dedup, rank=rank)
            by_group[schema[name].group] += of_feature
    return by_group


def holder_bytes(use: TableUse, place: TablePlace, step: StepRows, *, dedup: bool) -> dict[int, StepBytes]:
    """What one batch exchanges of a table with each rank that holds a shard, the batch's own rank included.

    Args:
        use: the table.
        place: where the table lies.
        step: rows and ids of the batch.
        dedup: True if unique rows or distinct ids travel, False if every sample's own copy travels.

    Returns:
        Bytes for each rank that holds a shard.
    """
    exchanged = dict.fromkeys(place.ranks, StepBytes())
    ids, rows = ids_and_rows(use, step, dedup=dedup)
    exact = step.ids.get(use.table) if dedup else None
    sent: Iterable[tuple[int, int, int]] = ((s.rank, s.row, s.num_rows) for s in place.shards)
    # Our exchange sends ids once to each rank and range of rows, TorchRec once for each shard.
    for holder, row, num_rows in dict.fromkeys(sent) if dedup else sent:
        inside = _num_inside(use, exact, ids, row, num_rows)
        lengths = 0.0 if rows is None and dedup else step.num_rows(use.features, dedup)
        width = step.length_bytes if dedup else LENGTH_BYTES
        id_bytes = step.id_bytes + use.weight_bytes(dedup)
        exchanged[holder] = exchanged[holder] + StepBytes(inside * id_bytes + lengths * width)
    for shard in place.shards:
        vectors = _num_inside(use, exact, ids, shard.row, shard.num_rows) if rows is None else rows
        codecs = use.codecs if dedup else Codecs()
        out, back = (vectors * row_bytes(c, [shard.num_columns]) for c in (codecs.forward, codecs.backward))
        exchanged[shard.rank] = exchanged[shard.rank] + StepBytes(0.0, out, back)
    return exchanged


def _num_inside(use: TableUse, exact: Tensor | None, ids: float, row: int, num_rows: int) -> float:
    """How many of a table's ids lie in a range of its rows: counted if they are known, else as if spread evenly."""
    if num_rows == use.num_embeddings or exact is None:
        return ids * num_rows / use.num_embeddings
    return float(((exact >= row) & (exact < row + num_rows)).sum())


def all_reduce_bytes(num_parameters: int, world_size: int) -> float:
    """Bytes that a rank sends when DDP sums the gradients of replicated parameters around a ring.

    Args:
        num_parameters: number of float32 parameters, those of data-parallel tables included.
        world_size: W, the number of ranks.
    """
    return 2.0 * (world_size - 1) / world_size * num_parameters * FLOAT_BYTES
