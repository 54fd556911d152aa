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

The parts are added up, but for input: in training the ids of the next batch travel while this one computes, so that
input counts only where it is longer than all the rest. Real steps are shorter, since models expand late. The time that
the dense layers compute is left out. The formula is for comparing plans.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from recd_dist.embedding.exchange.layout import REPLICATED, SPLIT_IN_HOST
from recd_dist.embedding.vocabulary.placement import Placement, TablePlace
from recd_dist.plan.link_time import (
    all_reduce_ms,
    exchange_ms,
    exchange_seconds,
    hosts_and_neighbours,
    latency_ms,
    relay_ms,
    relay_seconds,
    two_step_latency_ms,
)
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_bytes import (
    Array,
    holder_bytes,
    relay_bytes,
    sum_by_rank,
    takes_two_steps,
)
from recd_dist.plan.step_rows import FLOAT_BYTES, StepRows, TableUse, ids_and_rows

NORM = 8
"""Order of the norm that stands for the maximum of the ranks' loads. Two ranks of load 1 have the norm 1.09, eight
1.30."""

COPY_PASSES = 12
"""How often a step reads or writes all of a copied table, whose gradient is dense: it is set to zero, summed up, copied
for the all-reduce and back, and an optimizer outside the backward pass goes over gradient, state and weight."""


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
        """Milliseconds of all parts, one after the other; input counts where it is longer than all others together."""
        rest = float(sum(getattr(self, f.name) for f in fields(self))) - self.input
        return max(rest, self.input)


@dataclass(frozen=True)
class StepWork:
    """The work of a step on every rank, for one table or for several.

    Attributes:
        input: bytes of ids, weights and lengths that one batch sends to each rank that holds shards, float64 [W].
        output: bytes of vectors that one batch receives from each of these ranks, float64 [W]; as many bytes of
            gradients go back.
        summed: bytes that each rank exchanges inside its host, where partial sums are added up, float64 [W]; as many
            bytes again in the backward pass.
        inner_input, inner_output: the same for batches that travel inside the host first: bytes between one batch and
            each rank of its host, which stand in the places of all ranks of that number, float64 [W].
        outer_input, outer_output: bytes between one host and each rank that holds shards, float64 [W].
        lookup_ms: milliseconds that each rank's shards cost it for the batches of all ranks, float64 [W].
        arrival_ms: milliseconds that a rank needs to find distinct ids and to gather their vectors.
        expansion_ms: milliseconds that a rank needs to bring unique rows to samples.
        replicated: how many numbers every rank holds a copy of.
    """

    input: Array
    output: Array
    summed: Array
    inner_input: Array
    inner_output: Array
    outer_input: Array
    outer_output: Array
    lookup_ms: Array
    arrival_ms: float = 0.0
    expansion_ms: float = 0.0
    replicated: int = 0

    def __add__(self, other: "StepWork") -> "StepWork":
        return StepWork(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "StepWork") -> "StepWork":
        return StepWork(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def no_work(world_size: int) -> StepWork:
    """The work of no table at all, to which the work of tables is added."""
    none = np.zeros(world_size)
    return StepWork(none, none, none, none, none, none, none, none)


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
    ids, pooled = ids_and_rows(use, step, dedup=dedup)
    rows = ids if pooled is None else pooled
    local = machine.local_world_size(world_size)
    none, summed = np.zeros(world_size), np.zeros(world_size)
    arrival = _arrival_ms(use, step, machine) if dedup else 0.0
    if dedup and takes_two_steps(use, place, world_size):
        inner, outer = relay_bytes(use, place, step, world_size)
        travels = none, none, none, inner.input, inner.output, outer.input, outer.output
        if pooled is None:
            arrival += _relay_ms(use, ids, machine)
            ids = rows = step.num_distinct_of(use, local) / local
    else:
        exchanged = holder_bytes(use, place, step, world_size, dedup=dedup)
        back = exchanged.output
        if place.sharding in SPLIT_IN_HOST and pooled is not None and 1 < local < world_size:
            summed, back = back * (world_size * (local - 1) / local), back / local  # one rank of the host sends the sum
        travels = exchanged.input, back, summed, none, none, none, none
    if place.shards:
        shards = place.rectangles
        share = world_size * shards[:, 2] / use.num_embeddings
        out = rows * (share if pooled is None else world_size)
        each = _lookup_ms(ids * share, out, shards[:, 4], machine)
        lookup = sum_by_rank(shards[:, 0], each, world_size)
    else:
        whole = COPY_PASSES * use.num_embeddings * use.dim * FLOAT_BYTES / machine.gather_bytes_per_s * 1e3
        lookup = np.full(world_size, _lookup_ms(ids, rows, use.dim, machine) + whole)
    return StepWork(
        *travels,
        lookup,
        arrival,
        _expansion_ms(use, step, machine) if dedup else 0.0,
        0 if place.shards else use.num_embeddings * use.dim,
    )


def _relay_ms(use: TableUse, ids: float, machine: Machine) -> float:
    """Milliseconds in which a relay finds the distinct ids of its host-mates, and copies their vectors to them."""
    return ids * (machine.distinct_ns_per_id * 1e-6 + use.dim * FLOAT_BYTES / machine.expand_bytes_per_s * 1e3)


def _lookup_ms(ids: Any, rows: Any, columns: Any, machine: Machine) -> Any:
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
    calls = {call_of(u, placement[u.table], dedup, world_size) for u in uses}
    latency = round_ms(calls, world_size, machine, dedup=dedup)
    in_host = float(total.summed.max())
    back = exchange_ms(total.output, machine) + relay_ms(total.inner_output, total.outer_output, machine)
    back += latency + in_host / machine.inside_bytes_per_s * 1e3
    back += latency_ms(machine.local_world_size(world_size), machine) if in_host else 0.0
    replicated = num_dense + total.replicated
    reduced = all_reduce_ms(replicated, world_size, machine)
    return StepTime(
        input=exchange_ms(total.input, machine)
        + relay_ms(total.inner_input, total.outer_input, machine)
        + 2 * latency,  # sizes, then ids
        lookup=float(total.lookup_ms.max()) + machine.call_ms * len(calls),
        output=back,
        backward=back,
        arrival=total.arrival_ms,
        expansion=total.expansion_ms,
        all_reduce=reduced + two_step_latency_ms(world_size, machine) if replicated and world_size > 1 else 0.0,
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
    reduced = all_reduce_ms(work.replicated, world_size, machine)
    return float(link * 1e3 + reduced + work.lookup_ms.mean() + work.arrival_ms + work.expansion_ms)


def near_slowest_ms(work: StepWork, machine: Machine) -> float:
    """Milliseconds of about the slowest rank, without latencies and kernel calls.

    This is a norm instead of the maximum: where several ranks are equally slow, a gain on one of them counts too.

    Args:
        work: the work of one table or several.
        machine: what a rank's device and links cost.
    """
    loads = rank_ms(work, machine)
    reduced = all_reduce_ms(work.replicated, len(loads), machine)
    return float(np.linalg.norm(loads, ord=NORM)) + work.arrival_ms + work.expansion_ms + reduced


def rank_ms(work: StepWork, machine: Machine) -> Array:
    """Milliseconds of each rank, without what is the same on all of them, float64 [W].

    Args:
        work: the work of one table or several.
        machine: what a rank's device and links cost.
    """
    exchanged = exchange_seconds(work.input, machine) + 2 * exchange_seconds(work.output, machine)
    exchanged += relay_seconds(work.inner_input, work.outer_input, machine)
    exchanged += 2 * relay_seconds(work.inner_output, work.outer_output, machine)
    loads: Array = (exchanged + 2 * work.summed / machine.inside_bytes_per_s) * 1e3 + work.lookup_ms
    return loads


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
    hosts, neighbours = hosts_and_neighbours(world_size, machine.local_world_size(world_size))  # of the holder
    inside = float((exchanged * neighbours + 2 * work.summed).sum()) / world_size
    between = float((exchanged * (world_size - 1 - neighbours)).sum()) / world_size
    inside += float(((work.inner_input + 2 * work.inner_output) * neighbours).sum()) / world_size
    between += float((work.outer_input + 2 * work.outer_output).sum()) * hosts[-1] / world_size
    return inside, between


def dense_flops(num_dense: int, batch_size: int) -> float:
    """Multiplications and additions that dense layers need for a batch, forward and backward: 6 a parameter and sample.

    Args:
        num_dense: number of parameters of the dense layers.
        batch_size: number of samples of the batch.
    """
    return 6.0 * num_dense * batch_size


Call = tuple[str, bool, bool, str, bool]
"""Tables that are looked up in one call: a table's name, or "" for tables that go together, then whether they are
un-pooled, whether they have weights, their sharding type, and whether they travel inside the host first."""


def call_of(use: TableUse, place: TablePlace, dedup: bool, world_size: int) -> Call:
    """The call that looks up a table: one for tables that go together, one for each table whose ids travel.

    Args:
        use: the table, with what travels of it.
        place: where it lies.
        dedup: True if batches travel through our exchange.
        world_size: W, the number of ranks.
    """
    name = use.table if dedup and (use.send == "ids" or use.is_sequence) else ""
    by_host = dedup and takes_two_steps(use, place, world_size)
    return name, use.is_sequence, use.weight_bytes(dedup) > 0, place.sharding, by_host


def round_ms(calls: Collection[Call], world_size: int, machine: Machine, *, dedup: bool) -> float:
    """Milliseconds in which all collectives of one direction begin.

    Our exchange has one for tables that travel directly, and one inside the host and one between hosts for those that
    travel in two steps. TorchRec's has one for each module and sharding type.

    Args:
        calls: the calls of all tables.
        world_size: W, the number of ranks.
        machine: what the links cost.
        dedup: True if batches travel through our exchange.
    """
    exchanged = [by_host for *_, sharding, by_host in calls if sharding != REPLICATED]
    if not dedup:
        return len(exchanged) * latency_ms(world_size, machine)
    two_steps = two_step_latency_ms(world_size, machine)
    return (False in exchanged) * latency_ms(world_size, machine) + (True in exchanged) * two_steps
