"""The way out: unique rows and ids of every table, to the ranks that hold them, in two collectives.

::

    sizes   to each rank  [width of a length, and a unit: rows, ids]                 int64, a few numbers
    ids     to each rank  | ids of its segments | weights | lengths of its rows |    bytes, padded to 8

Weights are there for tables that have some.

Ids have the batch's dtype, lengths the smallest of 1, 2 and 4 bytes that holds the batch's longest list. Sizes are
needed by the host anyway, so that what a rank sends itself is asked for in the same copy to the host: on CUDA this is
the step's one synchronisation, as it is TorchRec's.

TrainPipelineSparseDist calls the two waits for the next batch while this one computes (``Sizes``, then ``Ids``).
"""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.types import Awaitable
from torchrec.streamable import Multistreamable

from recd_dist.embedding.exchange.classes import joined
from recd_dist.embedding.exchange.layout import Layout
from recd_dist.embedding.exchange.unit_rows import UnitRows, constant, host_integers, unit_rows
from recd_dist.tensors.ikjt import IKJT

LENGTH_TYPES = (torch.uint8, torch.int16, torch.int32)
"""By width code; an int16 holds lists up to 32,767 long."""
ALIGNMENT = 8
"""Bytes of which each rank's chunk is a multiple, so that it can be read as ids."""

Line = list[int]
"""Sizes of one rank: the width code, then of each unit its rows and ids."""


@dataclass(eq=False)
class Context(Multistreamable):
    """What one batch leaves behind on its way out, and needs on its way back.

    Attributes:
        sparse: the batch.
        units: its rows, by unit.
        num_sent: for each rank and unit the rows whose vectors come back; set when the sizes are known.
        rows_here: of each unit of which this rank holds something, the rows by source; set by the lookup.
    """

    sparse: IKJT | None = None
    units: list[UnitRows] = field(default_factory=list)
    num_sent: list[list[int]] = field(default_factory=list)
    rows_here: list[tuple[int, ...]] = field(default_factory=list)

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        if self.sparse is not None:
            self.sparse.record_stream(stream)
        for tensor in (t for rows in self.units for t in rows.tensors()):
            if tensor.is_cuda:
                tensor.record_stream(stream)


@dataclass(frozen=True, eq=False)
class LookUp:
    """What one unit's lookup is fed.

    Attributes:
        rows: of each key, by source.
        values: ids, key after key, source after source.
        lengths: int32, as many rows a key as ``rows`` sums to.
        weights: float32 or None.
    """

    rows: tuple[int, ...]
    values: Tensor
    lengths: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Received(Multistreamable):
    """The lookups of a rank for one batch of all ranks, by the number of their unit."""

    lookups: dict[int, LookUp]

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        for each in self.lookups.values():
            for tensor in (each.values, each.lengths, each.weights):
                if tensor is not None and tensor.is_cuda:
                    tensor.record_stream(stream)


class Sizes(Awaitable[Awaitable[Received]]):
    """The exchange of sizes, under way; its wait sends the ids.

    Args:
        layout: of the plan.
        context: takes up the batch's rows.
        sparse: the batch.
        group: all ranks.
    """

    def __init__(self, layout: Layout, context: Context, sparse: IKJT, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.layout, self.context, self.group = layout, context, group
        context.sparse, context.units = sparse, [unit_rows(sparse, unit) for unit in layout.units]
        self.counts = joined([rows.counts for rows in context.units])
        rows = [rows.num_rows for rows in context.units]
        message = message_on_device if self.counts.is_cuda else message_on_host
        self.mine = message(layout, rows, self.counts, sparse.lengths)
        self.theirs = torch.empty_like(self.mine)
        self.work: Any = dist.all_to_all_single(self.theirs, self.mine, group=group, async_op=True)

    def _wait_impl(self) -> "Ids":
        self.work.wait()
        mine, theirs = torch.stack([self.mine, self.theirs]).tolist()
        self.context.num_sent = [
            [line[2 + 2 * n] if u.lengths is None else u.num_rows for n, u in enumerate(self.context.units)]
            for line in mine
        ]
        return Ids(self, mine, theirs)


def message_on_host(layout: Layout, rows: list[int], counts: Tensor, lengths: Tensor) -> Tensor:
    """What each rank is told: its line, int64 [W, 1 + 2 * units].

    A loop over few numbers: on CPU faster than a dozen small operators, 0.1 against 0.3 ms.

    Args:
        layout: of the plan.
        rows: of each unit.
        counts: int64 [segments], ids of each.
        lengths: int32, of all lists of the batch.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    line = [int(longest > 255) + int(longest > 32767), *(n for r in rows for n in (r, 0))]
    flat, ids = line * layout.world_size, counts.tolist()
    for place, segment in zip(layout.size_places, layout.sent_segments, strict=True):
        flat[place] += ids[segment]
    return torch.tensor(flat, dtype=torch.int64).view(layout.world_size, -1)


def message_on_device(layout: Layout, rows: list[int], counts: Tensor, lengths: Tensor) -> Tensor:
    """The same without making the host wait."""
    message = host_integers([0, *(n for r in rows for n in (r, 0))], counts).repeat(layout.world_size, 1)
    if len(lengths):
        longest = lengths.max()
        message[:, 0] = (longest > 255).long() + (longest > 32767).long()
    sent = counts[constant(layout.sent_segments, counts.device)]
    message.view(-1).index_add_(0, constant(layout.size_places, counts.device), sent)
    return message


class Ids(Awaitable[Received]):
    """The exchange of ids, under way.

    Args:
        sizes: what it follows.
        mine, theirs: the sizes sent to each rank, and received from each.
    """

    def __init__(self, sizes: Sizes, mine: list[Line], theirs: list[Line]) -> None:
        super().__init__()
        self.layout, self.theirs = sizes.layout, theirs
        self.id_type = sizes.context.units[0].values.dtype
        chunks = _chunks(sizes, mine)
        self.received = [self._sections(line) for line in theirs]
        self.buffer = chunks[0][0].new_empty(sum(map(sum, self.received)))
        self.work: Any = dist.all_to_all_single(
            self.buffer,
            torch.cat([section for chunk in chunks for section in chunk]),
            output_split_sizes=[sum(sections) for sections in self.received],
            input_split_sizes=[sum(map(len, chunk)) for chunk in chunks],
            group=sizes.group,
            async_op=True,
        )

    def _sections(self, line: Line) -> list[int]:
        """Bytes of ids, weights, lengths and padding from one source."""
        layout = self.layout
        weighted = sum(line[2 + 2 * n] for n in layout.weighted)
        lengths = sum(line[1 + 2 * n] * len(layout.units[n].segments(layout.rank)) for n in layout.by_rows)
        return _padded([sum(line[2::2]) * self.id_type.itemsize, weighted * 4, lengths * _length_type(line).itemsize])

    def _wait_impl(self) -> Received:
        self.work.wait()
        pieces = self.buffer.split([size for sections in self.received for size in sections])
        values = torch.cat(pieces[0::4]).view(self.id_type)
        weights = torch.cat(pieces[1::4]).view(torch.float32) if self.layout.weighted else None
        lengths = self._lengths(list(pieces[2::4]))
        # Ids of the units by rows stand first in each source's section, those of the units by ids behind them.
        kinds = [sum(line[2 + 2 * n] for n in units) for line in self.theirs for units in self._local_kinds()]
        parts = values.split(kinds)
        by_rows = self._by_rows(joined(list(parts[0::2])), weights, lengths)
        return Received({**by_rows, **self._by_ids(joined(list(parts[1::2])))})

    def _lengths(self, pieces: list[Tensor]) -> Tensor:
        """Lengths of every source as int32; one copy where all have the same width, as they mostly do."""
        types = [_length_type(line) for line in self.theirs]
        if len(set(types)) == 1:
            return torch.cat(pieces).view(types[0]).to(torch.int32)
        return torch.cat([p.view(t).to(torch.int32) for p, t in zip(pieces, types, strict=True)])

    def _local_kinds(self) -> tuple[list[int], list[int]]:
        """Numbers of the local units by rows, and of those by ids."""
        layout = self.layout
        return [n for n in layout.local if n in layout.by_rows], [n for n in layout.local if n in layout.by_ids]

    def _by_rows(self, values: Tensor, weights: Tensor | None, lengths: Tensor) -> dict[int, LookUp]:
        """What came source after source, put into the order of the lookups: key after key."""
        layout, (units, _), order = self.layout, self._local_kinds(), self.layout.received_rows
        heights = [
            line[1 + 2 * n] for line in self.theirs for n in units for _ in layout.units[n].segments(layout.rank)
        ]
        ends = torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int64), (1, 0))
        counts = ends[host_integers(list(accumulate(heights, initial=0)), lengths)].diff()
        repeats = len(order) > len(heights)
        values = _permuted(values, counts, order, None if repeats else len(values))
        if weights is not None:
            own = counts[constant(self._weighted_segments(), counts.device)]
            repeats = len(layout.received_weights) > len(own)
            weights = _permuted(weights, own, layout.received_weights, None if repeats else len(weights))
        lengths = _permuted(lengths, host_integers(heights, lengths), order, sum(heights[n] for n in order))
        found, first, row = dict[int, LookUp](), 0, 0
        for n in units:
            unit, sources = layout.units[n], tuple(line[1 + 2 * n] for line in self.theirs)
            num_lengths = sum(sources) * len(unit.parts[layout.rank])
            num_ids = sum(line[2 + 2 * n] for line in self.theirs)
            if len(unit.segments(layout.rank)) != len(unit.parts[layout.rank]):
                # Two column shards of a table on one rank: its ids came once and are looked up once for each.
                num_ids = int(lengths[row : row + num_lengths].sum())
            here = slice(first, first + num_ids)
            # Units with weights come first, so that their weights stand where their ids do.
            part_weights = weights[here] if weights is not None and unit.rows.weighted else None
            found[n] = LookUp(sources, values[here], lengths[row : row + num_lengths], part_weights)
            first, row = first + num_ids, row + num_lengths
        return found

    def _weighted_segments(self) -> tuple[int, ...]:
        """Of the received segments by rows, numbered source by source, those whose ids have weights."""
        layout, (units, _) = self.layout, self._local_kinds()
        sizes = [len(layout.units[n].segments(layout.rank)) for n in units]
        weighted = sum(size for n, size in zip(units, sizes, strict=True) if n in layout.weighted)
        return tuple(q * sum(sizes) + s for q in range(layout.world_size) for s in range(weighted))

    def _by_ids(self, values: Tensor) -> dict[int, LookUp]:
        """The same where every row is one id."""
        layout, (_, units), order = self.layout, self._local_kinds(), self.layout.received_ids
        counts = [line[2 + 2 * n] for line in self.theirs for n in units for _ in layout.units[n].segments(layout.rank)]
        values = _permuted(values, host_integers(counts, values), order, sum(counts[n] for n in order))
        found, first = dict[int, LookUp](), 0
        for n in units:
            sources = tuple(line[2 + 2 * n] for line in self.theirs)
            own = values[first : first + sum(sources) * len(layout.units[n].parts[layout.rank])]
            found[n] = LookUp(sources, own, torch.ones(len(own), dtype=torch.int32, device=own.device))
            first += len(own)
        return found


def _chunks(sizes: Sizes, mine: list[Line]) -> list[list[Tensor]]:
    """For each rank the sections that it is sent, as bytes."""
    layout, units = sizes.layout, sizes.context.units
    num_ids = [sum(line[2::2]) for line in mine]
    every = joined([u.values for u in units])
    values = _permuted(every, sizes.counts, layout.sent_segments, sum(num_ids))
    ids = values.view(torch.uint8).split([n * values.element_size() for n in num_ids])
    weights: list[Tensor] | tuple[Tensor, ...] = [ids[0][:0]] * layout.world_size
    if layout.weighted:
        num_weights = [sum(line[2 + 2 * n] for n in layout.weighted) for line in mine]
        weights = _sent_weights(sizes, sum(num_weights)).view(torch.uint8).split([n * 4 for n in num_weights])
    zeros = ids[0].new_zeros(ALIGNMENT)
    chunks = []
    for own_ids, own_weights, lengths in zip(ids, weights, _sent_lengths(sizes, _length_type(mine[0])), strict=True):
        sections = [own_ids, own_weights, lengths.view(torch.uint8)]
        chunks.append([*sections, zeros[: _padded(list(map(len, sections)))[-1]]])
    return chunks


def _sent_lengths(sizes: Sizes, dtype: torch.dtype) -> list[Tensor]:
    """For each rank the lengths that it is sent."""
    layout, units = sizes.layout, sizes.context.units
    pieces: dict[tuple[int, int], Tensor] = {}
    for n in layout.by_rows:
        lengths = units[n].lengths
        if lengths is not None:
            split = lengths.to(dtype).split([units[n].num_rows] * layout.units[n].num_segments)
            pieces |= {(n, s): piece for s, piece in enumerate(split)}
    wanted = [[(n, s) for n in layout.by_rows for s in layout.units[n].segments(q)] for q in range(layout.world_size)]
    empty = torch.empty(0, dtype=dtype, device=sizes.counts.device)
    flat = torch.cat([empty, *(pieces[key] for keys in wanted for key in keys)])
    return list(flat.split([sum(units[n].num_rows for n, _ in keys) for keys in wanted]))


def _sent_weights(sizes: Sizes, total: int) -> Tensor:
    """Weights in the order in which their ids are sent, float32 [total]."""
    layout, units = sizes.layout, sizes.context.units
    # Units with weights come first, and so do their segments.
    end = sum(layout.units[n].num_segments for n in layout.weighted)
    order = tuple(s for s in layout.sent_segments if s < end)
    given = [w for n in layout.weighted if (w := units[n].weights) is not None]
    return _permuted(joined(given), sizes.counts[:end], order, total)


def _length_type(line: Line) -> torch.dtype:
    return LENGTH_TYPES[line[0]]


def _padded(sections: list[int]) -> list[int]:
    """Sizes of sections, and of the padding behind them."""
    return [*sections, -sum(sections) % ALIGNMENT]


def _permuted(values: Tensor, counts: Tensor, order: tuple[int, ...], total: int | None) -> Tensor:
    """Segments of a tensor in another order, repeated or left out.

    Args:
        values: [sum of counts].
        counts: int64, size of each segment.
        order: numbers of the segments wanted.
        total: size of the result; None asks the device.
    """
    if order == tuple(range(len(counts))):
        return values
    index = constant(order, counts.device).to(torch.int32)
    out: Tensor = torch.ops.fbgemm.permute_1D_sparse_data(index, counts, values, None, total)[1]
    return out
