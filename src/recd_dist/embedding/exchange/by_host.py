"""The exchange in two steps: inside the host first, then between ranks of the same number on different hosts.

Rank 2 of 4, on two hosts of two, asks for ids that lie on ranks 0 and 1::

    rank 2 --ids of 0 and 2--> itself      --each id once--> rank 0
    rank 2 --ids of 1 and 3--> rank 3      --each id once--> rank 1
    rank 3 --ids of 0 and 2--> rank 2
    rank 3 --ids of 1 and 3--> itself

A *relay* is the rank of a host that asks for all of its host-mates: the one whose number inside the host is that of the
rank which holds the rows. It asks for each distinct id once, whichever of its host-mates want it, adds up the partial
sums that come back, and hands every host-mate its own. Gradients take the way back, and those of an id are summed
before they leave the host. Instead of W ranks, each rank talks to the L of its host and to one of each host.

Both steps are the plain exchange under another layout: ``inner``, of the ranks of a host, and ``outer``, of the ranks
of one number. Inside a host vectors travel as float32, whatever the codec: a sum would be rounded twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recd_dist.embedding.exchange.context import LookupInput
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.exchange.layout import SPLIT_IN_HOST, Layout, Part, Unit
from recd_dist.embedding.exchange.pieces import Integers, Order, permute
from recd_dist.embedding.exchange.return_index import Bundle, Columns
from recd_dist.embedding.exchange.unit_rows import UnitRows
from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.host_side import host_integers


def takes_two_steps(unit: Unit) -> bool:
    """Whether a unit can travel in two steps: all but those whose partial sums are added up where they are made.

    Args:
        unit: the unit.
    """
    return not (unit.sharding in SPLIT_IN_HOST and unit.table_class.pooled)


@dataclass(frozen=True)
class HostLayouts:
    """The layouts of the two steps, seen from one rank.

    Attributes:
        inner: the units among the ranks of this host; a rank stands for all ranks of its number.
        outer: the units of which this rank is a relay, among the ranks of its number, one for each host.
        returned: for each unit in which every row is one id the order in which its segments come back inside the host;
            None where they come back in the order of their numbers.
    """

    inner: Layout
    outer: Layout
    returned: tuple[Order | None, ...]


def split_layout(layout: Layout) -> tuple[Layout, HostLayouts | None]:
    """Divides the units of a layout into those that travel directly and those that travel in two steps.

    Args:
        layout: the layout of all units, on hosts of equal size.

    Returns:
        The layout of the units that travel directly, and those of the others; None if there are no others.
    """
    chosen = [unit for unit in layout.units if takes_two_steps(unit)]
    direct = replace(layout, units=tuple(unit for unit in layout.units if not takes_two_steps(unit)))
    if not chosen:
        return direct, None
    size, num_hosts = layout.host_size, layout.world_size // layout.host_size
    host, local = divmod(layout.rank, size)
    inner = [_inner_unit(unit, size, num_hosts) for unit in chosen]
    pairs = zip(chosen, inner, strict=True)
    outer = [_outer_unit(unit, of_host, local, size, num_hosts) for unit, of_host in pairs if of_host.parts.get(local)]
    return direct, HostLayouts(
        Layout(tuple(inner), (), local, size, size, is_relayed=True),
        Layout(tuple(outer), (), host, num_hosts, num_hosts),
        tuple(_returned_order(unit, size) for unit in inner),
    )


def _inner_unit(unit: Unit, size: int, num_hosts: int) -> Unit:
    """A unit inside a host: each rank takes the segments of all ranks of its number, and sends back their columns."""
    parts, columns = dict[int, tuple[Part, ...]](), dict[int, Columns]()
    for local in range(size):
        ranks = [h * size + local for h in range(num_hosts)]
        keys = {p.segment: p.key for q in ranks for p in unit.parts.get(q, ())}
        if keys:
            parts[local] = tuple(Part(keys[s], s, 0, 0) for s in sorted(keys))
            bundles = dict.fromkeys(unit.columns[q] for q in ranks if unit.parts.get(q))
            columns[local] = tuple(column for bundle in bundles for column in bundle)
    return replace(unit, parts=parts, columns=columns)


def _outer_unit(unit: Unit, inner: Unit, local: int, size: int, num_hosts: int) -> Unit:
    """A unit between relays of one number: their segments are numbered anew, in the same order."""
    numbers = {p.segment: n for n, p in enumerate(inner.parts[local])}
    ranks = {h: h * size + local for h in range(num_hosts) if unit.parts.get(h * size + local)}
    parts = {h: tuple(replace(p, segment=numbers[p.segment]) for p in unit.parts[q]) for h, q in ranks.items()}
    num_segments = len(numbers) + (not unit.table_class.pooled)
    columns = {h: unit.columns[q] for h, q in ranks.items()}
    return replace(unit, parts=parts, columns=columns, num_segments=num_segments)


def _returned_order(unit: Unit, size: int) -> Order | None:
    """The order in which the segments of an id unit come back; behind them stands what fills up distinct ids."""
    if unit.table_class.pooled:
        return None
    by_columns: dict[Columns, list[int]] = {}
    for local in range(size):
        if unit.parts.get(local):
            by_columns.setdefault(unit.columns[local], []).extend(unit.segments(local))
    orders = {tuple(segments) for segments in by_columns.values()}
    if len(orders) != 1:
        raise ValueError(f"layout: the shards of '{unit.module}' hold different rows for different columns")
    (order,) = orders
    filler = range(len(order), unit.num_segments)
    return None if order == tuple(range(len(order))) else Order([*order, *filler])


def reorder_index(rows: UnitRows, order: Order | None) -> UnitRows:
    """The rows of an id unit with the index of what comes back, where segments come back in another order.

    Args:
        rows: the rows, with the index of the order in which segments are numbered.
        order: the order in which they come back; None if it is the same.
    """
    if order is None or rows.index is None:
        return rows
    places = torch.arange(len(rows.values), device=rows.values.device)
    came_from = permute(places, rows.counts, order, len(places))
    place = torch.empty_like(places)
    place[came_from] = places
    return replace(rows, index=place[rows.index])


def relay_rows(unit: Unit, inner: Unit, given: LookupInput, local: int) -> UnitRows:
    """What a relay asks for: the lists of its host-mates one after the other, or their ids, each once.

    Args:
        unit: the unit between relays.
        inner: the same unit inside the host.
        given: what the host-mates asked for.
        local: number of this rank inside the host.
    """
    num_segments = len(inner.parts[local])
    if unit.table_class.pooled:
        num_rows = int(given.num_rows.sum())
        counts = given.lengths.view(num_segments, num_rows).sum(1, dtype=torch.int64)
        return UnitRows(num_rows, given.values, counts, given.lengths, given.weights)
    ids, block_rows = given.values, torch.iinfo(given.values.dtype).max
    if num_segments > 1 and given.counts is not None:
        # The ids of a segment are counted from its first row; each gets a range of its own.
        block_rows = unit.block_rows[0]
        first = np.tile(np.arange(num_segments) * block_rows, len(given.counts))
        starts = host_integers(first, ids).to(ids.dtype)
        counts_on_device = host_integers(given.counts.reshape(-1), ids)
        ids = ids + torch.repeat_interleave(starts, counts_on_device, output_size=len(ids))
    once, index, counts = distinct_ids(ids, block_rows, num_segments)
    return UnitRows(0, once, counts, index=index)


def relay_vectors(rows: UnitRows, parts: Sequence[tuple[Bundle, Tensor]], *, by_rows: bool) -> Tensor:
    """What a relay hands to its host-mates: their rows one after the other, with all columns side by side.

    Args:
        rows: what the relay asked for.
        parts: the bundles that came back.
        by_rows: True if the matrices of a bundle are partial sums, which are added up.
    """
    whole = [v.view(b.num_matrices, -1, v.shape[1]).sum(0) if by_rows and b.num_matrices > 1 else v for b, v in parts]
    joined = whole[0] if len(whole) == 1 else torch.cat(whole, dim=1)
    return joined if rows.index is None else expand_rows(joined, rows.index)


def stack_rows(units: Sequence[LookupInput], num_sources: int) -> Integers:
    """The numbers of rows that came from each source, int64 [units, sources].

    Args:
        units: what the lookup of each unit takes.
        num_sources: number of the sources.
    """
    return np.stack([u.num_rows for u in units]) if units else np.zeros((0, num_sources), dtype=np.int64)
