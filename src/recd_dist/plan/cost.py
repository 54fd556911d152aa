"""What a training step costs by formula: milliseconds of each part, from bytes, ids and the figures of a machine.

A step is synchronous, so that its slowest rank counts. One rank is two things at once: it asks for the rows of its own
batch, and it holds shards of which every rank asks::

    input       ids to the ranks that hold them      the larger of what a rank sends and what it is sent, over the link
    lookup      forward, backward, update            ids and rows of all ranks that fall into its shards
    output      vectors back                         as input
    backward    their gradients                      as output
    arrival     ids found distinct, vectors gathered own batch only
    expansion   unique rows to samples               own batch only; nothing where batches are read expanded
    all-reduce  gradients of replicated weights      around a ring

Parts are added up. In training the input of the next batch travels while this one computes, and the model expands late,
so that real steps are shorter; the dense layers' own computing is not in it. It is for comparing plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from recd_dist.embedding.exchange.layout import SPLIT_IN_HOST
from recd_dist.embedding.placement import Placed, Placement
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_bytes import all_reduce_bytes, holder_bytes
from recd_dist.plan.step_rows import FLOAT_BYTES, StepRows, TableUse, ids_and_rows

Array = NDArray[np.float64]

NORM = 8
"""Of the ranks' loads, where the maximum would be too coarse: two ranks of load 1 come to 1.09, eight to 1.30."""


@dataclass(frozen=True)
class StepTime:
    """Milliseconds of a step, by part."""

    input: float = 0.0
    lookup: float = 0.0
    output: float = 0.0
    backward: float = 0.0
    arrival: float = 0.0
    expansion: float = 0.0
    all_reduce: float = 0.0

    @property
    def total(self) -> float:
        """All parts, one after the other."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Work:
    """What one batch asks of every rank for one table, or for several.

    Attributes:
        input, output: bytes float [W] that a rank exchanges with each holder; the gradients' are the output's.
        summed: bytes float [W] that each holder exchanges inside its host, where partial sums are added up; gradients
            again.
        lookup_ms: float [W], what each rank's shards cost it for the batches of all ranks.
        arrival_ms, expansion_ms: of the rank that asks.
        replicated: numbers that every rank holds a copy of.
    """

    input: Array
    output: Array
    summed: Array
    lookup_ms: Array
    arrival_ms: float = 0.0
    expansion_ms: float = 0.0
    replicated: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def no_work(world_size: int) -> Work:
    """What no table asks."""
    return Work(np.zeros(world_size), np.zeros(world_size), np.zeros(world_size), np.zeros(world_size))


def work_of(use: TableUse, place: Placed, step: StepRows, world_size: int, machine: Machine, *, dedup: bool) -> Work:
    """What a table costs a step.

    Args:
        use: the table and what is sent of it.
        place: where it lies.
        step: rows and ids of one rank's batch; every rank is taken to have as many.
        world_size: W.
        machine: of the machines.
        dedup: through our exchange; False: expanded, through plain TorchRec.
    """
    sent, back, lookup = np.zeros(world_size), np.zeros(world_size), np.zeros(world_size)
    for holder, part in holder_bytes(use, place, step, dedup=dedup).items():
        sent[holder], back[holder] = part.input, part.output
    ids, pooled = ids_and_rows(use, step, dedup=dedup)
    rows = ids if pooled is None else pooled
    local = machine.local_world_size(world_size)
    in_host = place.sharding in SPLIT_IN_HOST and pooled is not None and 1 < local < world_size
    summed = back * (world_size * (local - 1) / local if in_host else 0.0)
    back = back / local if in_host else back  # of a host's ranks one sends the sum
    if place.shards:
        for shard in place.shards:
            share = world_size * shard.num_rows / use.num_embeddings
            out = rows * (share if pooled is None else world_size)
            lookup[shard.rank] += _lookup_ms(ids * share, out, shard.num_columns, machine)
    else:
        lookup += _lookup_ms(ids, rows, use.dim, machine)
    return Work(
        sent,
        back,
        summed,
        lookup,
        _arrival_ms(use, step, machine) if dedup else 0.0,
        _expansion_ms(use, step, machine) if dedup else 0.0,
        0 if place.shards else use.num_embeddings * use.dim,
    )


def _lookup_ms(ids: float, rows: float, columns: int, machine: Machine) -> float:
    """Rows of the table read once forward, read and written once in the update; results written once and read once."""
    touched = (3 * ids + 2 * rows) * columns * FLOAT_BYTES
    per_item = ids * machine.lookup_ns_per_id + rows * machine.lookup_ns_per_row
    return touched / machine.gather_bytes_per_s * 1e3 + per_item * 1e-6


def _arrival_ms(use: TableUse, step: StepRows, machine: Machine) -> float:
    """Finding the distinct ids of a batch, and bringing their vectors back to the places of all ids."""
    if use.send != "ids":
        return 0.0
    ids = step.num_ids(use.features, dedup=True)
    return ids * machine.distinct_ns_per_id * 1e-6 + ids * use.dim * FLOAT_BYTES / machine.expand_bytes_per_s * 1e3


def _expansion_ms(use: TableUse, step: StepRows, machine: Machine) -> float:
    """A vector a feature and sample, for features whose rows are fewer than samples."""
    shared = sum(step.rows[f] < step.batch_size for f in use.features)
    return shared * step.batch_size * use.dim * FLOAT_BYTES / machine.expand_bytes_per_s * 1e3


def step_time(
    uses: Sequence[TableUse],
    placement: Placement,
    works: Mapping[str, Work],
    world_size: int,
    machine: Machine,
    *,
    dedup: bool,
    num_dense: int = 0,
) -> StepTime:
    """Milliseconds of a step on its slowest rank.

    Args:
        uses: the tables.
        placement: where they lie.
        works: of each table, from ``work_of``.
        world_size: W.
        machine: of the machines.
        dedup: as in ``work_of``.
        num_dense: parameters of the dense layers, which every rank holds.
    """
    every = sum(works.values(), no_work(world_size))
    exchanged = [u for u in uses if placement[u.table].shards]
    modules = {(u.is_sequence, u.weight_bytes(dedup) > 0, placement[u.table].sharding) for u in exchanged}
    rounds = min(1, len(exchanged)) if dedup else len(modules)
    latency = rounds * latency_ms(world_size, machine)
    in_host = float(every.summed.max())
    back = exchange_ms(every.output, machine) + latency + in_host / machine.inside_bytes_per_s * 1e3
    back += latency_ms(machine.local_world_size(world_size), machine) if in_host else 0.0
    replicated = num_dense + every.replicated
    reduced = all_reduce_bytes(replicated, world_size) / _slowest_link(world_size, machine) * 1e3
    return StepTime(
        input=exchange_ms(every.input, machine) + 2 * latency,  # sizes, then ids
        lookup=float(every.lookup_ms.max()) + machine.call_ms * num_calls(uses, placement, dedup),
        output=back,
        backward=back,
        arrival=every.arrival_ms,
        expansion=every.expansion_ms,
        all_reduce=reduced + latency_ms(world_size, machine) if replicated and world_size > 1 else 0.0,
    )


def mean_ms(work: Work, machine: Machine) -> float:
    """Milliseconds on the mean rank, latencies and kernel calls apart: what tables can be compared and added up by.

    Args:
        work: of one table or several.
        machine: what a rank's device and links cost.
    """
    world_size = len(work.input)
    inside, between = split_bytes(work, machine)
    link = inside / machine.inside_bytes_per_s + between / machine.between_bytes_per_s
    reduced = all_reduce_bytes(work.replicated, world_size) / _slowest_link(world_size, machine)
    return float((link + reduced) * 1e3 + work.lookup_ms.mean() + work.arrival_ms + work.expansion_ms)


def near_slowest_ms(work: Work, machine: Machine) -> float:
    """Milliseconds of about the slowest rank, latencies and kernel calls apart: what tables are moved by.

    A norm in place of the maximum: where several ranks are equally slow, relieving one of them counts too.

    Args:
        work: of one table or several.
        machine: what a rank's device and links cost.
    """
    exchanged = _exchange_s(work.input, machine) + 2 * _exchange_s(work.output, machine)
    loads = (exchanged + 2 * work.summed / machine.inside_bytes_per_s) * 1e3 + work.lookup_ms
    reduced = all_reduce_bytes(work.replicated, len(loads)) / _slowest_link(len(loads), machine) * 1e3
    return float(np.linalg.norm(loads, ord=NORM)) + work.arrival_ms + work.expansion_ms + reduced


def split_bytes(work: Work, machine: Machine) -> tuple[float, float]:
    """Bytes that the mean rank sends inside its host and to other hosts: ids, vectors and gradients.

    Args:
        work: of one table or several.
        machine: says how many ranks a host has.
    """
    exchanged = work.input + 2 * work.output
    world_size = len(exchanged)
    hosts = np.arange(world_size) // machine.local_world_size(world_size)
    neighbours = np.bincount(hosts)[hosts] - 1  # other ranks of the holder's host
    inside = float((exchanged * neighbours + 2 * work.summed).sum()) / world_size
    between = float((exchanged * (world_size - 1 - neighbours)).sum()) / world_size
    return inside, between


def exchange_ms(exchanged: Array, machine: Machine) -> float:
    """Milliseconds of an all-to-all on its slowest rank, latency apart; links run both ways at once.

    Args:
        exchanged: bytes float [W], what each rank has for each holder.
        machine: of the links.
    """
    return float(_exchange_s(exchanged, machine).max()) * 1e3


def _exchange_s(exchanged: Array, machine: Machine) -> Array:
    """Seconds of each rank."""
    world_size = len(exchanged)
    hosts = np.arange(world_size) // machine.local_world_size(world_size)
    neighbours = np.bincount(hosts)[hosts] - 1
    of_host = np.bincount(hosts, weights=exchanged)[hosts]
    inside = np.maximum(of_host - exchanged, exchanged * neighbours)
    between = np.maximum(exchanged.sum() - of_host, exchanged * (world_size - 1 - neighbours))
    seconds: Array = np.maximum(inside / machine.inside_bytes_per_s, between / machine.between_bytes_per_s)
    return seconds


def latency_ms(world_size: int, machine: Machine) -> float:
    """Milliseconds of a collective that moves hardly a byte."""
    return machine.latency_ms + machine.latency_ms_per_rank * (world_size - 2) if world_size > 1 else 0.0


def _slowest_link(world_size: int, machine: Machine) -> float:
    is_one_host = machine.local_world_size(world_size) == world_size
    return machine.inside_bytes_per_s if is_one_host else machine.between_bytes_per_s


def num_calls(uses: Sequence[TableUse], placement: Placement, dedup: bool) -> int:
    """Lookups of a rank: one for tables that go together, one for each table whose ids are sent.

    Args:
        uses: the tables.
        placement: where they lie.
        dedup: through our exchange.
    """
    alone = [u for u in uses if dedup and (u.send == "ids" or u.is_sequence)]
    rest = [u for u in uses if u not in alone]
    together = {(u.is_sequence, u.weight_bytes(dedup) > 0, placement[u.table].sharding) for u in rest}
    return len(alone) + len(together)
