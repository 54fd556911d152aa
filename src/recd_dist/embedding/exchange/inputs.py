"""Sends the rows and ids of every table to the ranks that hold the table.

There are two collectives::

    sizes   to each rank  [code of a length's width; rows and ids of each unit]      int64, a few numbers
    ids     to each rank  | ids of its segments | weights | lengths of its rows |    bytes, padded to 8

Weights are sent for the tables that pool weighted lists; other tables have none.

Ids have the dtype of the batch. Lengths have the smallest of 1, 2 and 4 bytes that holds the longest list of the batch.
The host needs the sizes that come from other ranks. One copy brings these to the host together with the sizes that this
rank sends; on CUDA that is the only time in a step at which the host waits, as in TorchRec.

TrainPipelineSparseDist waits first for ``Sizes``, then for ``Ids`` of the next batch, while this one computes.
"""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.types import Awaitable
from torchrec.streamable import Multistreamable

from recd_dist.embedding.exchange.classes import join_tensors
from recd_dist.embedding.exchange.layout import Layout
from recd_dist.embedding.exchange.unit_rows import UnitRows, constant, host_integers, unit_rows
from recd_dist.tensors.ikjt import IKJT

LENGTH_TYPES = (torch.uint8, torch.int16, torch.int32)
"""For each width code the dtype of a length; int16 holds those of lists of up to 32,767 ids."""

ALIGNMENT = 8
"""The bytes that each rank receives are a multiple of this number, so that they can be read as ids."""

Line = list[int]
"""The sizes of one rank: the width code, then the number of rows and the number of ids of each unit."""


@dataclass(eq=False)
class Context(Multistreamable):
    """What the way out keeps of a batch for the way back.

    Attributes:
        sparse: the batch.
        units: the rows of each unit.
        num_sent: for each rank and unit the number of rows whose vectors come back; set when the sizes are known.
        rows_here: for each unit of which this rank holds shards the number of rows from each rank; set by the lookup.
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
class LookupInput:
    """What the lookup of one unit takes.

    Attributes:
        num_rows: number of rows of each key, from each rank.
        values: ids, key after key, rank after rank.
        lengths: number of ids of each row, int32; every key has as many rows as ``num_rows`` sums to.
        weights: weight of each id, float32, or None.
    """

    num_rows: tuple[int, ...]
    values: Tensor
    lengths: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LookupInputs(Multistreamable):
    """What the lookups of this rank take for one batch of all ranks.

    Attributes:
        units: for the number of each unit what its lookup takes.
    """

    units: dict[int, LookupInput]

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        for each in self.units.values():
            for tensor in (each.values, each.lengths, each.weights):
                if tensor is not None and tensor.is_cuda:
                    tensor.record_stream(stream)


class Sizes(Awaitable[Awaitable[LookupInputs]]):
    """The exchange of sizes, under way. Waiting for it starts the exchange of ids.

    Args:
        layout: the layout of the plan.
        context: the context of the batch, which keeps its rows.
        sparse: the batch.
        group: the process group of all ranks.
    """

    def __init__(self, layout: Layout, context: Context, sparse: IKJT, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.layout, self.context, self.group = layout, context, group
        context.sparse, context.units = sparse, [unit_rows(sparse, unit) for unit in layout.units]
        self.counts = join_tensors([rows.counts for rows in context.units])
        rows = [rows.num_rows for rows in context.units]
        message = message_on_device if self.counts.is_cuda else message_on_host
        self.mine = message(layout, rows, self.counts, sparse.lengths)
        self.theirs = torch.empty_like(self.mine)
        self.handle: Any = dist.all_to_all_single(self.theirs, self.mine, group=group, async_op=True)

    def _wait_impl(self) -> "Ids":
        self.handle.wait()
        mine, theirs = torch.stack([self.mine, self.theirs]).tolist()
        self.context.num_sent = [
            [line[2 + 2 * n] if u.lengths is None else u.num_rows for n, u in enumerate(self.context.units)]
            for line in mine
        ]
        return Ids(self, mine, theirs)


def message_on_host(layout: Layout, rows: list[int], counts: Tensor, lengths: Tensor) -> Tensor:
    """The sizes that this rank sends to each rank, computed by a loop.

    On CPU a loop over few numbers is faster than a dozen small operators: 0.1 ms against 0.3 ms.

    Args:
        layout: the layout of the plan.
        rows: number of rows of each unit.
        counts: number of ids of each segment, int64 [segments].
        lengths: number of ids of each list of the batch, int32.

    Returns:
        A ``Line`` for each rank, int64 [W, 1 + 2 * units].
    """
    longest = int(lengths.max()) if len(lengths) else 0
    line = [int(longest > 255) + int(longest > 32767), *(n for r in rows for n in (r, 0))]
    flat, ids = line * layout.world_size, counts.tolist()
    for index, segment in zip(layout.size_index, layout.sent_segments, strict=True):
        flat[index] += ids[segment]
    return torch.tensor(flat, dtype=torch.int64).view(layout.world_size, -1)


def message_on_device(layout: Layout, rows: list[int], counts: Tensor, lengths: Tensor) -> Tensor:
    """The sizes that this rank sends to each rank, computed by operators, so that the host does not wait.

    Args:
        layout: the layout of the plan.
        rows: number of rows of each unit.
        counts: number of ids of each segment, int64 [segments].
        lengths: number of ids of each list of the batch, int32.

    Returns:
        A ``Line`` for each rank, int64 [W, 1 + 2 * units].
    """
    message = host_integers([0, *(n for r in rows for n in (r, 0))], counts).repeat(layout.world_size, 1)
    if len(lengths):
        longest = lengths.max()
        message[:, 0] = (longest > 255).long() + (longest > 32767).long()
    sent = counts[constant(layout.sent_segments, counts.device)]
    message.view(-1).index_add_(0, constant(layout.size_index, counts.device), sent)
    return message


class Ids(Awaitable[LookupInputs]):
    """The exchange of ids, under way.

    Args:
        sizes: the exchange of sizes that came before.
        mine: the sizes that this rank sent to each rank.
        theirs: the sizes that this rank received from each rank.
    """

    def __init__(self, sizes: Sizes, mine: list[Line], theirs: list[Line]) -> None:
        super().__init__()
        self.layout, self.theirs = sizes.layout, theirs
        self.id_type = sizes.context.units[0].values.dtype
        chunks = _chunks(sizes, mine)
        self.received = [self._sections(line) for line in theirs]
        self.buffer = chunks[0][0].new_empty(sum(map(sum, self.received)))
        self.handle: Any = dist.all_to_all_single(
            self.buffer,
            torch.cat([section for chunk in chunks for section in chunk]),
            output_split_sizes=[sum(sections) for sections in self.received],
            input_split_sizes=[sum(map(len, chunk)) for chunk in chunks],
            group=sizes.group,
            async_op=True,
        )

    def _sections(self, line: Line) -> list[int]:
        """Bytes of ids, of weights, of lengths and of padding that come from one rank."""
        layout = self.layout
        weighted = sum(line[2 + 2 * n] for n in layout.weighted_units)
        lengths = sum(line[1 + 2 * n] * len(layout.units[n].segments(layout.rank)) for n in layout.row_units)
        return _pad([sum(line[2::2]) * self.id_type.itemsize, weighted * 4, lengths * _length_type(line).itemsize])

    def _wait_impl(self) -> LookupInputs:
        self.handle.wait()
        pieces = self.buffer.split([size for sections in self.received for size in sections])
        values = torch.cat(pieces[0::4]).view(self.id_type)
        weights = torch.cat(pieces[1::4]).view(torch.float32) if self.layout.weighted_units else None
        lengths = self._lengths(list(pieces[2::4]))
        # In what comes from each rank, ids of the units with lists stand first, then those of the units of single ids.
        kinds = [sum(line[2 + 2 * n] for n in units) for line in self.theirs for units in self._local_kinds()]
        parts = values.split(kinds)
        lists = self._list_inputs(join_tensors(list(parts[0::2])), weights, lengths)
        return LookupInputs({**lists, **self._id_inputs(join_tensors(list(parts[1::2])))})

    def _lengths(self, pieces: list[Tensor]) -> Tensor:
        """The lengths from all ranks as int32; this is one copy if all have the same width, as they mostly do."""
        types = [_length_type(line) for line in self.theirs]
        if len(set(types)) == 1:
            return torch.cat(pieces).view(types[0]).to(torch.int32)
        return torch.cat([p.view(t).to(torch.int32) for p, t in zip(pieces, types, strict=True)])

    def _local_kinds(self) -> tuple[list[int], list[int]]:
        """Numbers of the local units whose rows are lists, and of those in which every row is one id."""
        layout, local = self.layout, self.layout.local_units
        return [n for n in local if n in layout.row_units], [n for n in local if n in layout.id_units]

    def _list_inputs(self, values: Tensor, weights: Tensor | None, lengths: Tensor) -> dict[int, LookupInput]:
        """Inputs of the lookups of lists: what came rank after rank is put in their order, key after key."""
        layout, (units, _), order = self.layout, self._local_kinds(), self.layout.received_rows
        heights = [
            line[1 + 2 * n] for line in self.theirs for n in units for _ in layout.units[n].segments(layout.rank)
        ]
        ends = torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int64), (1, 0))
        counts = ends[host_integers(list(accumulate(heights, initial=0)), lengths)].diff()
        repeats = len(order) > len(heights)
        values = _permute(values, counts, order, None if repeats else len(values))
        if weights is not None:
            weight_counts = counts[constant(self._weighted_segments(), counts.device)]
            repeats = len(layout.received_weights) > len(weight_counts)
            weights = _permute(weights, weight_counts, layout.received_weights, None if repeats else len(weights))
        lengths = _permute(lengths, host_integers(heights, lengths), order, sum(heights[n] for n in order))
        inputs, first, row = dict[int, LookupInput](), 0, 0
        for n in units:
            unit, sources = layout.units[n], tuple(line[1 + 2 * n] for line in self.theirs)
            num_lengths = sum(sources) * len(unit.parts[layout.rank])
            num_ids = sum(line[2 + 2 * n] for line in self.theirs)
            if len(unit.segments(layout.rank)) != len(unit.parts[layout.rank]):
                # A table has two column shards on this rank: its ids came once and are looked up for each shard.
                num_ids = int(lengths[row : row + num_lengths].sum())
            own = slice(first, first + num_ids)
            # Units with weights come first, so that the weights of their ids stand in the same places as the ids.
            part_weights = weights[own] if weights is not None and unit.table_class.weighted else None
            inputs[n] = LookupInput(sources, values[own], lengths[row : row + num_lengths], part_weights)
            first, row = first + num_ids, row + num_lengths
        return inputs

    def _weighted_segments(self) -> tuple[int, ...]:
        """Which of the received segments of lists have weights, with the segments numbered rank after rank."""
        layout, (units, _) = self.layout, self._local_kinds()
        sizes = [len(layout.units[n].segments(layout.rank)) for n in units]
        weighted = sum(size for n, size in zip(units, sizes, strict=True) if n in layout.weighted_units)
        return tuple(q * sum(sizes) + s for q in range(layout.world_size) for s in range(weighted))

    def _id_inputs(self, values: Tensor) -> dict[int, LookupInput]:
        """Inputs of the lookups of single ids, put in their order, key after key."""
        layout, (_, units), order = self.layout, self._local_kinds(), self.layout.received_ids
        counts = [line[2 + 2 * n] for line in self.theirs for n in units for _ in layout.units[n].segments(layout.rank)]
        values = _permute(values, host_integers(counts, values), order, sum(counts[n] for n in order))
        inputs, first = dict[int, LookupInput](), 0
        for n in units:
            sources = tuple(line[2 + 2 * n] for line in self.theirs)
            own = values[first : first + sum(sources) * len(layout.units[n].parts[layout.rank])]
            inputs[n] = LookupInput(sources, own, torch.ones(len(own), dtype=torch.int32, device=own.device))
            first += len(own)
        return inputs


def _chunks(sizes: Sizes, mine: list[Line]) -> list[list[Tensor]]:
    """For each rank what it is sent, as bytes: ids, weights, lengths, padding."""
    layout, units = sizes.layout, sizes.context.units
    num_ids = [sum(line[2::2]) for line in mine]
    all_ids = join_tensors([u.values for u in units])
    values = _permute(all_ids, sizes.counts, layout.sent_segments, sum(num_ids))
    ids = values.view(torch.uint8).split([n * values.element_size() for n in num_ids])
    weights: list[Tensor] | tuple[Tensor, ...] = [ids[0][:0]] * layout.world_size
    if layout.weighted_units:
        num_weights = [sum(line[2 + 2 * n] for n in layout.weighted_units) for line in mine]
        weights = _sent_weights(sizes, sum(num_weights)).view(torch.uint8).split([n * 4 for n in num_weights])
    zeros = ids[0].new_zeros(ALIGNMENT)
    chunks = []
    for own_ids, own_weights, lengths in zip(ids, weights, _sent_lengths(sizes, _length_type(mine[0])), strict=True):
        sections = [own_ids, own_weights, lengths.view(torch.uint8)]
        chunks.append([*sections, zeros[: _pad(list(map(len, sections)))[-1]]])
    return chunks


def _sent_lengths(sizes: Sizes, dtype: torch.dtype) -> list[Tensor]:
    """For each rank the lengths that it is sent, with the dtype in which they travel."""
    layout, units = sizes.layout, sizes.context.units
    pieces: dict[tuple[int, int], Tensor] = {}
    for n in layout.row_units:
        lengths = units[n].lengths
        if lengths is not None:
            split = lengths.to(dtype).split([units[n].num_rows] * layout.units[n].num_segments)
            pieces |= {(n, s): piece for s, piece in enumerate(split)}
    sent = [[(n, s) for n in layout.row_units for s in layout.units[n].segments(q)] for q in range(layout.world_size)]
    empty = torch.empty(0, dtype=dtype, device=sizes.counts.device)
    flat = torch.cat([empty, *(pieces[key] for keys in sent for key in keys)])
    return list(flat.split([sum(units[n].num_rows for n, _ in keys) for keys in sent]))


def _sent_weights(sizes: Sizes, total: int) -> Tensor:
    """The weights in the order in which their ids are sent, float32 [total]."""
    layout, units = sizes.layout, sizes.context.units
    # Units with weights come first, and so do their segments.
    end = sum(layout.units[n].num_segments for n in layout.weighted_units)
    order = tuple(s for s in layout.sent_segments if s < end)
    weights = [w for n in layout.weighted_units if (w := units[n].weights) is not None]
    return _permute(join_tensors(weights), sizes.counts[:end], order, total)


def _length_type(line: Line) -> torch.dtype:
    return LENGTH_TYPES[line[0]]


def _pad(sections: list[int]) -> list[int]:
    """The sizes of sections, with that of the padding behind them added to the list."""
    return [*sections, -sum(sections) % ALIGNMENT]


def _permute(values: Tensor, counts: Tensor, order: tuple[int, ...], total: int | None) -> Tensor:
    """Puts the segments of a tensor in another order; segments may be repeated or left out.

    Args:
        values: the tensor, [sum of counts].
        counts: size of each segment, int64.
        order: numbers of the segments in the new order.
        total: size of the result; with None the host waits for the device to tell it.
    """
    if order == tuple(range(len(counts))):
        return values
    index = constant(order, counts.device).to(torch.int32)
    out: Tensor = torch.ops.fbgemm.permute_1D_sparse_data(index, counts, values, None, total)[1]
    return out
