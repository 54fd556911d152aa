"""The way out: unique rows and ids of every table, to the ranks that hold them, in two collectives.

::

    sizes   to each rank  [width of a length, and a unit: rows, ids]                 int64, a few numbers
    ids     to each rank  | ids of its segments | weights | lengths of its rows |    bytes, padded to 8

Ids have the batch's dtype, lengths the smallest of 1, 2 and 4 bytes that holds the batch's longest list. Sizes are
needed by the host anyway, so that what a rank sends itself is asked for in the same copy to the host: on CUDA this is
the step's one synchronisation, as it is TorchRec's.

TrainPipelineSparseDist calls the two waits for the next batch while this one computes (``Sizes``, then ``Ids``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.types import Awaitable
from torchrec.streamable import Multistreamable

from recd_dist.embedding.buckets import bucketize, bucketize_ids
from recd_dist.embedding.classes import ClassRows, class_rows, joined
from recd_dist.embedding.layout import Layout, Unit
from recd_dist.ikjt import IKJT

LENGTH_TYPES = (torch.uint8, torch.int16, torch.int32)
"""By width code; an int16 holds lists up to 32,767 long."""
ALIGNMENT = 8
"""Bytes of which each rank's chunk is a multiple, so that it can be read as ids."""


@dataclass(frozen=True, eq=False)
class UnitRows:
    """A unit's rows of one batch, sorted by bucket.

    Attributes:
        num_rows: rows of each key; 0 where every row is one id, whose number differs from rank to rank.
        values: ids, segment after segment, counted from the first row of their block.
        counts: int64 [segments], ids of each.
        lengths: int32 [segments * num_rows], or None where every row is one id.
        weights: float32, as ``values``, or None.
        index: int64, for each id of the batch its place among ``values``; None where they are the same.
    """

    num_rows: int
    values: Tensor
    counts: Tensor
    lengths: Tensor | None
    weights: Tensor | None
    index: Tensor | None


def unit_rows(sparse: IKJT, unit: Unit) -> UnitRows:
    """A unit's rows of a batch."""
    rows = class_rows(sparse, unit.rows)
    if rows.lengths is None:
        return _unit_ids(rows, unit)
    if unit.num_buckets > 1:
        values, lengths, weights = bucketize(rows.values, rows.lengths, rows.weights, unit.block_rows, unit.num_buckets)
        counts = lengths.view(unit.num_buckets * len(unit.keys), rows.num_rows).sum(1, dtype=torch.int64)
        return UnitRows(rows.num_rows, values, counts, lengths, weights, None)
    sizes = [sum(sparse.num_values(f) for f in stack) for stack in unit.rows.stacks.values()]
    return UnitRows(rows.num_rows, rows.values, _on(rows.values, sizes), rows.lengths, rows.weights, None)


def _unit_ids(rows: ClassRows, unit: Unit) -> UnitRows:
    if unit.num_buckets == 1:
        return UnitRows(0, rows.values, _on(rows.values, [len(rows.values)]), None, None, rows.index)
    values, place, counts = bucketize_ids(rows.values, unit.block_rows[0], unit.num_buckets)
    return UnitRows(0, values, counts, None, None, place if rows.index is None else place[rows.index])


def _on(like: Tensor, numbers: Sequence[int]) -> Tensor:
    """Host integers as int64 on a tensor's device."""
    made = torch.tensor(numbers, dtype=torch.int64)
    return made if not like.is_cuda else made.pin_memory().to(like.device, non_blocking=True)


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
        for rows in self.units:
            for tensor in (rows.values, rows.counts, rows.lengths, rows.weights, rows.index):
                if tensor is not None and tensor.is_cuda:
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
    weights: Tensor | None


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
        weighted: ids carry weights.
        group: all ranks.
    """

    def __init__(
        self, layout: Layout, context: Context, sparse: IKJT, weighted: bool, group: dist.ProcessGroup
    ) -> None:
        super().__init__()
        self.layout, self.context, self.weighted, self.group = layout, context, weighted, group
        context.sparse, context.units = sparse, [unit_rows(sparse, unit) for unit in layout.units]
        self.counts = joined([rows.counts for rows in context.units])
        self.mine = self._message(sparse)
        self.theirs = torch.empty_like(self.mine)
        self.work: Any = dist.all_to_all_single(self.theirs, self.mine, group=group, async_op=True)

    def _message(self, sparse: IKJT) -> Tensor:
        """For each rank: the width code, then a unit's rows and ids, int64 [W, 1 + 2 * units]."""
        layout, num_units = self.layout, len(self.layout.units)
        rows = torch.tensor([[0, *(n for u in self.context.units for n in (u.num_rows, 0))]], dtype=torch.int64)
        message = rows.to(self.counts.device, non_blocking=True).repeat(layout.world_size, 1)
        if len(sparse.lengths):
            longest = sparse.lengths.max()
            message[:, 0] = (longest > 255).long() + (longest > 32767).long()
        places = [
            q * (1 + 2 * num_units) + 2 + 2 * n
            for q in range(layout.world_size)
            for n, unit in enumerate(layout.units)
            for _ in unit.segments(q)
        ]
        segments = [s for sent in layout.sent_segments for s in sent]
        message.view(-1).index_add_(0, _on(self.counts, places), self.counts[_on(self.counts, segments)])
        return message

    def _wait_impl(self) -> "Ids":
        self.work.wait()
        mine, theirs = torch.stack([self.mine, self.theirs]).tolist()
        self.context.num_sent = [
            [line[2 + 2 * n] if u.lengths is None else u.num_rows for n, u in enumerate(self.context.units)]
            for line in mine
        ]
        return Ids(self, mine, theirs)


class Ids(Awaitable[Received]):
    """The exchange of ids, under way.

    Args:
        sizes: what it follows.
        mine, theirs: the sizes sent to each rank, and received from each.
    """

    def __init__(self, sizes: Sizes, mine: list[list[int]], theirs: list[list[int]]) -> None:
        super().__init__()
        self.layout, self.weighted, self.theirs = sizes.layout, sizes.weighted, theirs
        self.by_rows = [n for n, u in enumerate(self.layout.units) if u.rows.pooled]
        self.by_ids = [n for n, u in enumerate(self.layout.units) if not u.rows.pooled]
        values, sent = _sections(sizes, mine)
        splits = [sum(map(len, parts)) for parts in sent]
        self.received = [self._section_bytes(line, values.element_size()) for line in theirs]
        self.buffer = torch.empty(sum(map(sum, self.received)), dtype=torch.uint8, device=values.device)
        self.id_type = values.dtype
        self.work: Any = dist.all_to_all_single(
            self.buffer,
            torch.cat([part for parts in sent for part in parts]),
            output_split_sizes=[sum(sections) for sections in self.received],
            input_split_sizes=splits,
            group=sizes.group,
            async_op=True,
        )

    def _section_bytes(self, line: list[int], id_bytes: int) -> list[int]:
        """Bytes of ids, weights, lengths and padding from one source."""
        units, rank = self.layout.units, self.layout.rank
        ids = sum(line[2 + 2 * n] for n in range(len(units)))
        weighted = sum(line[2 + 2 * n] for n in self.by_rows) if self.weighted else 0
        lengths = sum(line[1 + 2 * n] * len(units[n].segments(rank)) for n in self.by_rows)
        return _padded([ids * id_bytes, weighted * 4, lengths * LENGTH_TYPES[line[0]].itemsize])

    def _wait_impl(self) -> Received:
        self.work.wait()
        pieces = self.buffer.split([size for sections in self.received for size in sections])
        values = torch.cat(pieces[0::4]).view(self.id_type)
        weights = torch.cat(pieces[1::4]).view(torch.float32) if self.weighted else None
        lengths = torch.cat(
            [p.view(LENGTH_TYPES[line[0]]).to(torch.int32) for p, line in zip(pieces[2::4], self.theirs, strict=True)]
        )
        return Received(self._lookups(values, weights, lengths))

    def _lookups(self, values: Tensor, weights: Tensor | None, lengths: Tensor) -> dict[int, LookUp]:
        """What came, source after source, put into the order of the lookups: key after key."""
        layout, found = self.layout, dict[int, LookUp]()
        rows = [n for n in layout.local if layout.units[n].rows.pooled]
        ids = [n for n in layout.local if not layout.units[n].rows.pooled]
        # Ids of the units by rows stand first in each source's section, those of the units by ids behind them.
        num_by_rows = [sum(line[2 + 2 * n] for n in rows) for line in self.theirs]
        num_by_ids = [sum(line[2 + 2 * n] for n in ids) for line in self.theirs]
        parts = values.split([n for pair in zip(num_by_rows, num_by_ids, strict=True) for n in pair])
        if rows:
            found |= self._row_lookups(rows, joined(list(parts[0::2])), weights, lengths)
        if ids:
            counts = [[line[2 + 2 * n]] for line in self.theirs for n in ids]
            order = layout.received_order(ids)
            sorted_values = _permuted(joined(list(parts[1::2])), _on(values, [c[0] for c in counts]), order, None)[0]
            sizes = [counts[number][0] for number in order]
            per_unit = [len(layout.units[n].parts[layout.rank]) * layout.world_size for n in ids]
            ends = [sum(sizes[a:b]) for a, b in pairwise(accumulate(per_unit, initial=0))]
            for n, piece in zip(ids, sorted_values.split(ends), strict=True):
                sources = tuple(line[2 + 2 * n] for line in self.theirs)
                ones = torch.ones(len(piece), dtype=torch.int32, device=piece.device)
                found[n] = LookUp(sources, piece, ones, None)
        return found

    def _row_lookups(
        self, units: list[int], values: Tensor, weights: Tensor | None, lengths: Tensor
    ) -> dict[int, LookUp]:
        """The lookups of units whose rows are lists."""
        layout = self.layout
        order = layout.received_order(units)
        heights = [
            line[1 + 2 * n] for line in self.theirs for n in units for _ in layout.units[n].segments(layout.rank)
        ]
        ends = torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int64), (1, 0))
        bounds = ends[_on(lengths, list(accumulate(heights, initial=0)))]
        values, weights = _permuted(values, bounds.diff(), order, weights)
        lengths = _permuted(lengths, _on(lengths, heights), order, None)[0]
        found, first, row = dict[int, LookUp](), 0, 0
        for n in units:
            parts = layout.units[n].parts[layout.rank]
            sources = tuple(line[1 + 2 * n] for line in self.theirs)
            num_lengths = sum(sources) * len(parts)
            num_ids = sum(line[2 + 2 * n] for line in self.theirs)
            if len(layout.units[n].segments(layout.rank)) != len(parts):
                # Two column shards of a table on one rank: its ids came once and are looked up once for each.
                num_ids = int(lengths[row : row + num_lengths].sum())
            own = slice(first, first + num_ids)
            found[n] = LookUp(
                sources, values[own], lengths[row : row + num_lengths], None if weights is None else weights[own]
            )
            first, row = first + num_ids, row + num_lengths
        return found


def _sections(sizes: Sizes, mine: list[list[int]]) -> tuple[Tensor, list[list[Tensor]]]:
    """All ids, and for each rank the sections that it is sent, as bytes."""
    layout, units = sizes.layout, sizes.context.units
    segments = [s for sent in layout.sent_segments for s in sent]
    num_ids = [sum(line[2::2]) for line in mine]
    every = joined([u.values for u in units])
    values = _permuted(every, sizes.counts, segments, None, sum(num_ids))[0]
    parts = [list(values.view(torch.uint8).split([n * values.element_size() for n in num_ids]))]
    by_rows = [n for n, u in enumerate(layout.units) if u.rows.pooled]
    if sizes.weighted:
        weights, weighted = _sent_weights(sizes, by_rows)
        parts.append(list(weights.view(torch.uint8).split([n * 4 for n in weighted])))
    else:
        parts.append([values.new_empty(0, dtype=torch.uint8)] * layout.world_size)
    parts.append(_sent_lengths(sizes, by_rows, LENGTH_TYPES[mine[0][0]]))
    zeros = torch.zeros(ALIGNMENT, dtype=torch.uint8, device=values.device)
    chunks = [list(chunk) for chunk in zip(*parts, strict=True)]
    for chunk in chunks:
        chunk.append(zeros[: _padded([len(c) for c in chunk])[-1]])
    return values, chunks


def _sent_lengths(sizes: Sizes, by_rows: list[int], dtype: torch.dtype) -> list[Tensor]:
    """For each rank the lengths that it is sent, as bytes."""
    layout, units = sizes.layout, sizes.context.units
    pieces: dict[tuple[int, int], Tensor] = {}
    for n in by_rows:
        lengths = units[n].lengths
        if lengths is not None:
            num_segments = layout.units[n].num_buckets * len(layout.units[n].keys)
            for s, piece in enumerate(lengths.to(dtype).split([units[n].num_rows] * num_segments)):
                pieces[n, s] = piece
    empty = torch.empty(0, dtype=dtype, device=sizes.counts.device)
    return [
        torch.cat([empty, *(pieces[n, s] for n in by_rows for s in layout.units[n].segments(q))]).view(torch.uint8)
        for q in range(layout.world_size)
    ]


def _sent_weights(sizes: Sizes, by_rows: list[int]) -> tuple[Tensor, list[int]]:
    """Weights of the rows' ids in the order in which they are sent, and for each rank their number."""
    layout, units = sizes.layout, sizes.context.units
    starts = list(accumulate((layout.units[n].num_buckets * len(layout.units[n].keys) for n in by_rows), initial=0))
    sent = [
        [start + s for n, start in zip(by_rows, starts, strict=False) for s in layout.units[n].segments(q)]
        for q in range(layout.world_size)
    ]
    given = [w for n in by_rows if (w := units[n].weights) is not None]
    counts = joined([units[n].counts for n in by_rows]).tolist()  # weights are rare: a synchronisation is not
    weights, _ = _permuted(joined(given), _on(given[0], counts), [s for each in sent for s in each], None)
    return weights, [sum(counts[s] for s in each) for each in sent]


def _padded(sections: list[int]) -> list[int]:
    """Sizes of sections, and of the padding behind them."""
    return [*sections, -sum(sections) % ALIGNMENT]


def _permuted(
    values: Tensor, counts: Tensor, order: list[int], weights: Tensor | None, total: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Segments of a tensor in another order, repeated or left out.

    Args:
        values: [sum of counts].
        counts: int64, size of each segment.
        order: numbers of the segments wanted.
        weights: as values, or None.
        total: size of the result; None asks the device.
    """
    if order == list(range(len(counts))):
        return values, weights
    index = _on(counts, order).to(torch.int32)
    _, out, out_weights = torch.ops.fbgemm.permute_1D_sparse_data(index, counts, values, weights, total)
    return out, out_weights
