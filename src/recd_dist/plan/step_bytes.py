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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from recd_dist.embedding.names import Codecs, row_bytes
from recd_dist.embedding.placement import Placed, Placement
from recd_dist.plan.step_rows import FLOAT_BYTES, LENGTH_BYTES, StepRows, TableUse, ids_and_rows
from recd_dist.table.schema import Schema


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
