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

Where batches travel inside the host first (``TableUse.host_size``), a rank sends to its host-mates what stands in the
table, with float32 whatever the codec, and each host sends together to a holder: L times the rows, or each distinct id
of its L batches once.

The weight of an id takes 4 bytes more if the table pools where it lies. Vectors of other tables are multiplied by their
weights where they arrive, so that these weights do not travel.

A data-parallel table exchanges none of these; its gradient is part of the all-reduce, rows * D * 4 * 2 (W-1)/W. Both
TorchRec and our exchange also send a few integers a step that tell sizes; these are left out on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recd_dist.embedding.exchange.layout import SPLIT_IN_HOST
from recd_dist.embedding.vocabulary.names import Codecs, row_bytes
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.step_rows import FLOAT_BYTES, LENGTH_BYTES, StepRows, TableUse, ids_and_rows
from recd_dist.table.schema import Schema

Array = NDArray[np.float64]


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
    total, away = StepBytes(), np.full(world_size, (world_size - 1) / world_size)
    if rank is not None:
        away = (np.arange(world_size) != rank).astype(np.float64)
    for use in uses:
        place = placement[use.table]
        if not (dedup and takes_two_steps(use, place, world_size)):
            total += holder_bytes(use, place, step, world_size, dedup=dedup).weighted_sum(away)
            continue
        inner, outer = relay_bytes(use, place, step, world_size)
        for exchanged, share in zip((inner, outer), _relayed_shares(use.host_size, world_size, rank), strict=True):
            total += exchanged.weighted_sum(share)
    return total


def _relayed_shares(host_size: int, world_size: int, rank: int | None) -> tuple[Array, Array]:
    """What a rank sends of ``relay_bytes``, as a share of the bytes of each rank: in its host, and to other hosts."""
    hosts, locals_ = np.divmod(np.arange(world_size), host_size)
    if rank is None:
        inner = np.full(world_size, (host_size - 1) / world_size)
        return inner, np.full(world_size, (world_size / host_size - 1) / world_size)
    host, local = divmod(rank, host_size)
    inner = (hosts == host) & (locals_ != local)
    return inner.astype(np.float64), ((hosts != host) & (locals_ == local)).astype(np.float64)


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
    evenly_spread = replace(step, ids={}, host_ids={})
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


@dataclass(frozen=True)
class HolderBytes:
    """What one batch exchanges with each rank that holds shards, the batch's own rank included.

    Attributes:
        input: bytes of ids, weights and lengths that go to each rank, float64 [W].
        output: bytes of sums or vectors that come from each rank, float64 [W].
        backward: bytes of gradients that go to each rank, float64 [W].
    """

    input: Array
    output: Array
    backward: Array

    def weighted_sum(self, shares: Array) -> StepBytes:
        """Bytes of all ranks together.

        Args:
            shares: by what the bytes of each rank are multiplied, float64 [W].
        """
        return StepBytes(*(float(each @ shares) for each in (self.input, self.output, self.backward)))


def holder_bytes(use: TableUse, place: TablePlace, step: StepRows, world_size: int, *, dedup: bool) -> HolderBytes:
    """What one batch exchanges of a table with each rank that holds a shard.

    Args:
        use: the table.
        place: where the table lies.
        step: rows and ids of the batch.
        world_size: W, the number of ranks.
        dedup: True if unique rows or distinct ids travel, False if every sample's own copy travels.
    """
    ids, rows = ids_and_rows(use, step, dedup=dedup)
    exact = step.ids.get(use.table) if dedup else None
    shards = place.rectangles
    # Our exchange sends ids once to each rank and range of rows, TorchRec once for each shard.
    sent = place.row_ranges if dedup else shards[:, :3]
    inside = _num_inside(use, exact, ids, sent)
    lengths = 0.0 if rows is None and dedup else step.num_rows(use.features, dedup)
    width = step.length_bytes if dedup else LENGTH_BYTES
    id_bytes = step.id_bytes + use.weight_bytes(dedup)
    asked = sum_by_rank(sent[:, 0], inside * id_bytes + lengths * width, world_size)
    vectors = _num_inside(use, exact, ids, shards[:, :3]) if rows is None else np.full(len(shards), rows)
    back = _vector_bytes(shards, vectors, use.codecs if dedup else Codecs(), world_size)
    return HolderBytes(asked, *back)


def _vector_bytes(shards: NDArray[np.int64], vectors: Array, codecs: Codecs, world_size: int) -> list[Array]:
    """Bytes of vectors, and of their gradients, by rank; ``shards`` are as in ``TablePlace.rectangles``."""
    back = []
    for codec in (codecs.forward, codecs.backward):
        sizes = {c: row_bytes(codec, [c]) for c in set(shards[:, 4].tolist())}
        each = vectors * np.array([sizes[c] for c in shards[:, 4].tolist()], dtype=np.float64)
        back.append(sum_by_rank(shards[:, 0], each, world_size))
    return back


def takes_two_steps(use: TableUse, place: TablePlace, world_size: int) -> bool:
    """Whether a table's rows or ids travel inside the host first.

    Args:
        use: the table.
        place: where it lies.
        world_size: W, the number of ranks.
    """
    is_pooled = not use.is_sequence and use.send == "rows"
    return 1 < use.host_size < world_size and bool(place.shards) and not (place.sharding in SPLIT_IN_HOST and is_pooled)


def relay_bytes(use: TableUse, place: TablePlace, step: StepRows, world_size: int) -> tuple[HolderBytes, HolderBytes]:
    """What is exchanged of a table that travels in two steps, inside the host first.

    Args:
        use: the table.
        place: where the table lies.
        step: rows and ids of one batch; every rank of its host has as many.
        world_size: W, the number of ranks.

    Returns:
        What one batch exchanges with each rank of its host, which stands in the places of that rank and of all ranks of
        its number; and what one host exchanges with each rank that holds shards.
    """
    size, (ids, rows) = use.host_size, ids_and_rows(use, step, dedup=True)
    shards = place.rectangles.copy()
    id_bytes = step.id_bytes + use.weight_bytes(dedup=True)
    lengths = 0.0 if rows is None else rows * step.length_bytes
    host_rows = 0.0 if rows is None else step.num_host_rows(use.features, size)
    of_host = size * ids if rows is not None else step.num_distinct_of(use, size)
    exact, exact_of_host = step.ids.get(use.table), step.host_ids.get(use.table)
    if exact_of_host is not None:
        of_host = float(len(exact_of_host))
    sent = place.row_ranges
    inside = _num_inside(use, exact_of_host, of_host, sent)
    asked = sum_by_rank(sent[:, 0], inside * id_bytes + host_rows * step.length_bytes, world_size)
    vectors = np.full(len(shards), host_rows)
    if rows is None:
        vectors = _num_inside(use, exact_of_host, of_host, shards[:, :3])
    outer = HolderBytes(asked, *_vector_bytes(shards, vectors, use.codecs, world_size))

    shards[:, 0] %= size
    sent = np.unique(shards[:, :3], axis=0)
    inside = _num_inside(use, exact, ids, sent)
    asked = sum_by_rank(sent[:, 0], inside * id_bytes + lengths, size)
    if rows is None:
        handed = np.unique(shards, axis=0)
        vectors = _num_inside(use, exact, ids, handed[:, :3])
    else:
        handed = shards.copy()
        handed[:, 1:3] = 0  # a relay adds up what it got for different rows
        handed = np.unique(handed, axis=0)
        vectors = np.full(len(handed), rows)
    back = _vector_bytes(handed, vectors, Codecs(), size)
    inner = HolderBytes(*(np.tile(each, world_size // size) for each in (asked, *back)))
    return inner, outer


def sum_by_rank(ranks: NDArray[np.int64], numbers: Array, world_size: int) -> Array:
    """Adds up numbers of shards by rank.

    Args:
        ranks: the rank of each shard, int64 [shards].
        numbers: a number for each shard, float64 [shards].
        world_size: W, the number of ranks.

    Returns:
        The sum of each rank, float64 [W].
    """
    return np.bincount(ranks, weights=numbers, minlength=world_size).astype(np.float64)


def _num_inside(use: TableUse, exact: Tensor | None, ids: float, ranges: NDArray[np.int64]) -> Array:
    """How many of a table's ids lie in ranges of its rows: counted if they are known, else as if spread evenly.

    Args:
        use: the table.
        exact: the ids, if they are known.
        ids: their number.
        ranges: rank, first row and number of rows of each range, int64 [ranges, 3].
    """
    if exact is None:
        return ids * ranges[:, 2] / use.num_embeddings
    ordered = np.sort(exact.numpy())
    first, last = (np.searchsorted(ordered, bound) for bound in (ranges[:, 1], ranges[:, 1] + ranges[:, 2]))
    return (last - first).astype(np.float64)


def all_reduce_bytes(num_parameters: int, world_size: int) -> float:
    """Bytes that a rank sends when DDP sums the gradients of replicated parameters around a ring.

    Args:
        num_parameters: number of float32 parameters, those of data-parallel tables included.
        world_size: W, the number of ranks.
    """
    return 2.0 * (world_size - 1) / world_size * num_parameters * FLOAT_BYTES
