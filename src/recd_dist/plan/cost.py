"""Milliseconds of a training step by formula: bytes, ids and the figures of a machine.

The ranks wait for each other in a step, so that the slowest one counts. Each rank does two things: it asks for the rows
of its own batch, and it answers all ranks that ask for its shards::

    part        what happens                             what counts on a rank
    input       ids go to the ranks that hold them       the larger of the bytes it sends and those it receives
    lookup      forward, backward and update             ids and rows of all ranks that fall into its shards
    output      vectors come back                        as for input
    backward    their gradients go out again             as for output
    arrival     distinct ids found, vectors gathered     its own batch
    expansion   unique rows become samples               its own batch; nothing if batches are read expanded
    all-reduce  gradients of replicated weights          one turn around a ring

The parts are added up. Real steps are shorter: in training the input of the next batch travels while this one computes,
and the model expands late. The time that the dense layers compute is left out. The formula is for comparing plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from recd_dist.embedding.exchange.layout import SPLIT_IN_HOST
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_bytes import all_reduce_bytes, holder_bytes
from recd_dist.plan.step_rows import FLOAT_BYTES, StepRows, TableUse, ids_and_rows

Array = NDArray[np.float64]

NORM = 8
"""Order of the norm that stands for the maximum of the ranks' loads. Two ranks of load 1 have the norm 1.09, eight
1.30."""


@dataclass(frozen=True)
class StepTime:
    """Milliseconds of a step, by part; the module's docstring explains the parts."""

    input: float = 0.0
    lookup: float = 0.0
    output: float = 0.0
    backward: float = 0.0
    arrival: float = 0.0
    expansion: float = 0.0
    all_reduce: float = 0.0

    @property
    def total(self) -> float:
        """Milliseconds of all parts, one after the other."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class StepWork:
    """The work of a step on every rank, for one table or for several.

    Attributes:
        input: bytes of ids, weights and lengths that one batch sends to each rank that holds shards, float64 [W].
        output: bytes of vectors that one batch receives from each of these ranks, float64 [W]; as many bytes of
            gradients go back.
        summed: bytes that each rank exchanges inside its host, where partial sums are added up, float64 [W]; as many
            bytes again in the backward pass.
        lookup_ms: milliseconds that each rank's shards cost it for the batches of all ranks, float64 [W].
        arrival_ms: milliseconds that a rank needs to find distinct ids and to gather their vectors.
        expansion_ms: milliseconds that a rank needs to bring unique rows to samples.
        replicated: how many numbers every rank holds a copy of.
    """

    input: Array
    output: Array
    summed: Array
    lookup_ms: Array
    arrival_ms: float = 0.0
    expansion_ms: float = 0.0
    replicated: int = 0

    def __add__(self, other: "StepWork") -> "StepWork":
        return StepWork(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def no_work(world_size: int) -> StepWork:
    """The work of no table at all, to which the work of tables is added."""
    return StepWork(np.zeros(world_size), np.zeros(world_size), np.zeros(world_size), np.zeros(world_size))


def table_work(
    use: TableUse, place: TablePlace, step: StepRows, world_size: int, machine: Machine, *, dedup: bool
) -> StepWork:
    """The work of a step for one table.

    Args:
        use: the table, with what travels of it.
        place: where the table lies.
        step: rows and ids of one rank's batch; every rank counts as having as many.
        world_size: W, the number of ranks.
        machine: what a rank's device and links cost.
        dedup: True if batches travel through our exchange, False if they are expanded and travel through plain
            TorchRec.
    """
    sent, back, lookup = np.zeros(world_size), np.zeros(world_size), np.zeros(world_size)
    for holder, exchanged in holder_bytes(use, place, step, dedup=dedup).items():
        sent[holder], back[holder] = exchanged.input, exchanged.output
    ids, pooled = ids_and_rows(use, step, dedup=dedup)
    rows = ids if pooled is None else pooled
    local = machine.local_world_size(world_size)
    in_host = place.sharding in SPLIT_IN_HOST and pooled is not None and 1 < local < world_size
    summed = back * (world_size * (local - 1) / local if in_host else 0.0)
    back = back / local if in_host else back  # one of a host's ranks sends the sum
    if place.shards:
        for shard in place.shards:
            share = world_size * shard.num_rows / use.num_embeddings
            out = rows * (share if pooled is None else world_size)
            lookup[shard.rank] += _lookup_ms(ids * share, out, shard.num_columns, machine)
    else:
        lookup += _lookup_ms(ids, rows, use.dim, machine)
    return StepWork(
        sent,
        back,
        summed,
        lookup,
        _arrival_ms(use, step, machine) if dedup else 0.0,
        _expansion_ms(use, step, machine) if dedup else 0.0,
        0 if place.shards else use.num_embeddings * use.dim,
    )


def _lookup_ms(ids: float, rows: float, columns: int, machine: Machine) -> float:
    """Milliseconds of a lookup.

    Forward reads a row of the table for each id; the update reads and writes it. A result is written and read once.
    """
    touched = (3 * ids + 2 * rows) * columns * FLOAT_BYTES
    per_item = ids * machine.lookup_ns_per_id + rows * machine.lookup_ns_per_row
    return touched / machine.gather_bytes_per_s * 1e3 + per_item * 1e-6


def _arrival_ms(use: TableUse, step: StepRows, machine: Machine) -> float:
    """Milliseconds to find the distinct ids of a batch, and to copy their vectors to all ids."""
    if use.send != "ids":
        return 0.0
    ids = step.num_ids(use.features, dedup=True)
    return ids * machine.distinct_ns_per_id * 1e-6 + ids * use.dim * FLOAT_BYTES / machine.expand_bytes_per_s * 1e3


def _expansion_ms(use: TableUse, step: StepRows, machine: Machine) -> float:
    """Milliseconds to copy a vector to every sample, for each feature that has fewer rows than samples."""
    shared = sum(step.rows[f] < step.batch_size for f in use.features)
    return shared * step.batch_size * use.dim * FLOAT_BYTES / machine.expand_bytes_per_s * 1e3


def step_time(
    uses: Sequence[TableUse],
    placement: Placement,
    works: Mapping[str, StepWork],
    world_size: int,
    machine: Machine,
    *,
    dedup: bool,
    num_dense: int = 0,
) -> StepTime:
    """Milliseconds of a step on its slowest rank.

    Args:
        uses: the tables, with what travels of each.
        placement: where the tables lie.
        works: the work of each table, from ``table_work``.
        world_size: W, the number of ranks.
        machine: what a rank's device and links cost.
        dedup: as in ``table_work``.
        num_dense: number of parameters of the dense layers, of which every rank holds a copy.
    """
    total = sum(works.values(), no_work(world_size))
    exchanged = [u for u in uses if placement[u.table].shards]
    modules = {(u.is_sequence, u.weight_bytes(dedup) > 0, placement[u.table].sharding) for u in exchanged}
    rounds = min(1, len(exchanged)) if dedup else len(modules)
    latency = rounds * latency_ms(world_size, machine)
    in_host = float(total.summed.max())
    back = exchange_ms(total.output, machine) + latency + in_host / machine.inside_bytes_per_s * 1e3
    back += latency_ms(machine.local_world_size(world_size), machine) if in_host else 0.0
    replicated = num_dense + total.replicated
    reduced = all_reduce_bytes(replicated, world_size) / _slowest_link(world_size, machine) * 1e3
    return StepTime(
        input=exchange_ms(total.input, machine) + 2 * latency,  # sizes, then ids
        lookup=float(total.lookup_ms.max()) + machine.call_ms * num_calls(uses, placement, dedup),
        output=back,
        backward=back,
        arrival=total.arrival_ms,
        expansion=total.expansion_ms,
        all_reduce=reduced + latency_ms(world_size, machine) if replicated and world_size > 1 else 0.0,
    )


def mean_ms(work: StepWork, machine: Machine) -> float:
    """Milliseconds on the mean rank, without latencies and kernel calls; those of several tables can be added up.

    Args:
        work: the work of one table or several.
        machine: what a rank's device and links cost.
    """
    world_size = len(work.input)
    inside, between = split_bytes(work, machine)
    link = inside / machine.inside_bytes_per_s + between / machine.between_bytes_per_s
    reduced = all_reduce_bytes(work.replicated, world_size) / _slowest_link(world_size, machine)
    return float((link + reduced) * 1e3 + work.lookup_ms.mean() + work.arrival_ms + work.expansion_ms)


def near_slowest_ms(work: StepWork, machine: Machine) -> float:
    """Milliseconds of about the slowest rank, without latencies and kernel calls.

    This is a norm instead of the maximum: where several ranks are equally slow, a gain on one of them counts too.

    Args:
        work: the work of one table or several.
        machine: what a rank's device and links cost.
    """
    exchanged = _exchange_seconds(work.input, machine) + 2 * _exchange_seconds(work.output, machine)
    loads = (exchanged + 2 * work.summed / machine.inside_bytes_per_s) * 1e3 + work.lookup_ms
    reduced = all_reduce_bytes(work.replicated, len(loads)) / _slowest_link(len(loads), machine) * 1e3
    return float(np.linalg.norm(loads, ord=NORM)) + work.arrival_ms + work.expansion_ms + reduced


def split_bytes(work: StepWork, machine: Machine) -> tuple[float, float]:
    """Bytes of ids, vectors and gradients that the mean rank sends.

    Args:
        work: the work of one table or several.
        machine: the machines; they say how many ranks a host has.

    Returns:
        Bytes sent inside the rank's host, and bytes sent to other hosts.
    """
    exchanged = work.input + 2 * work.output
    world_size = len(exchanged)
    hosts = np.arange(world_size) // machine.local_world_size(world_size)
    neighbours = np.bincount(hosts)[hosts] - 1  # other ranks of the holder's host
    inside = float((exchanged * neighbours + 2 * work.summed).sum()) / world_size
    between = float((exchanged * (world_size - 1 - neighbours)).sum()) / world_size
    return inside, between


def exchange_ms(exchanged: Array, machine: Machine) -> float:
    """Milliseconds of an all-to-all on its slowest rank, without latency; links run both ways at once.

    Args:
        exchanged: bytes that each rank sends to each of the ranks, float64 [W].
        machine: what the links cost.
    """
    return float(_exchange_seconds(exchanged, machine).max()) * 1e3


def _exchange_seconds(exchanged: Array, machine: Machine) -> Array:
    """Seconds of an all-to-all on each rank, float64 [W]."""
    world_size = len(exchanged)
    hosts = np.arange(world_size) // machine.local_world_size(world_size)
    neighbours = np.bincount(hosts)[hosts] - 1
    of_host = np.bincount(hosts, weights=exchanged)[hosts]
    inside = np.maximum(of_host - exchanged, exchanged * neighbours)
    between = np.maximum(exchanged.sum() - of_host, exchanged * (world_size - 1 - neighbours))
    seconds: Array = np.maximum(inside / machine.inside_bytes_per_s, between / machine.between_bytes_per_s)
    return seconds


def dense_flops(num_dense: int, batch_size: int) -> float:
    """Multiplications and additions that dense layers need for a batch, forward and backward: 6 a parameter and sample.

    Args:
        num_dense: number of parameters of the dense layers.
        batch_size: number of samples of the batch.
    """
    return 6.0 * num_dense * batch_size


def latency_ms(world_size: int, machine: Machine) -> float:
    """Milliseconds of a collective that moves hardly a byte.

    Args:
        world_size: number of ranks that take part.
        machine: what the links cost.
    """
    return machine.latency_ms + machine.latency_ms_per_rank * (world_size - 2) if world_size > 1 else 0.0


def _slowest_link(world_size: int, machine: Machine) -> float:
    is_one_host = machine.local_world_size(world_size) == world_size
    return machine.inside_bytes_per_s if is_one_host else machine.between_bytes_per_s


def num_calls(uses: Sequence[TableUse], placement: Placement, dedup: bool) -> int:
    """How many lookups a rank makes: one for tables that go together, one for each table whose ids travel.

    Args:
        uses: the tables, with what travels of each.
        placement: where the tables lie.
        dedup: True if batches travel through our exchange.
    """
    alone = [u for u in uses if dedup and (u.send == "ids" or u.is_sequence)]
    rest = [u for u in uses if u not in alone]
    together = {(u.is_sequence, u.weight_bytes(dedup) > 0, placement[u.table].sharding) for u in rest}
    return len(alone) + len(together)
