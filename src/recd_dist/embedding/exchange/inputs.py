"""Sends the rows and ids of every table to the ranks that hold the table.

There are two collectives::

    sizes   to each rank  [code of a length's width; rows and ids of its units]      int64, a few numbers
    ids     to each rank  | ids of its segments | weights | lengths of its rows |    words of 4 bytes

Weights are sent for the tables that pool weighted lists; other tables have none.

Nothing here is a list with an entry for each rank: where numbers and segments stand follows from the plan
(``size_index.py``), and segments are put in their order in one call (``pieces.py``).

Ids have the dtype of the batch. Lengths have the smallest of 1, 2 and 4 bytes that holds the longest list of the batch.
The host needs the sizes that come from other ranks. One copy brings these to the host together with the sizes that this
rank sends; on CUDA that is the only time in a step at which the host waits, as in TorchRec.

TrainPipelineSparseDist waits first for ``Sizes``, then for ``Ids`` of the next batch, while this one computes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.types import Awaitable

from recd_dist.embedding.exchange.classes import join_tensors
from recd_dist.embedding.exchange.context import Asked, LookupInput, LookupInputs
from recd_dist.embedding.exchange.layout import Layout
from recd_dist.embedding.exchange.pieces import Integers, permute, reorder, transposed
from recd_dist.embedding.exchange.unit_rows import UnitRows
from recd_dist.tensors.host_side import host_array, host_integers, is_on_host

LENGTH_TYPES = (torch.uint8, torch.int16, torch.int32)
"""For each width code the dtype of a length; int16 holds those of lists of up to 32,767 ids."""

WORD = 4
"""Bytes of a word. What each rank receives is whole words: its lengths are padded to a multiple of so many."""


def width_code(lengths: Tensor) -> int | Tensor:
    """The code of the smallest dtype that holds some lengths, an int on CPU and a tensor on CUDA.

    Args:
        lengths: the lengths, int32.
    """
    if not len(lengths):
        return 0
    longest = lengths.max()
    if not is_on_host(lengths):
        return (longest > 255).long() + (longest > 32767).long()
    return int(longest > 255) + int(longest > 32767)


class Sizes(Awaitable[Awaitable[LookupInputs]]):
    """The exchange of sizes, under way. Waiting for it starts the exchange of ids.

    Args:
        layout: the layout of the plan.
        asked: holds the rows of each unit, and keeps the sizes.
        code: width code of the lengths.
        group: the process group of all ranks.
    """

    def __init__(self, layout: Layout, asked: Asked, code: int | Tensor, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.layout, self.asked, self.group = layout, asked, group
        self.counts = join_tensors([rows.counts for rows in asked.units])
        rows = np.array([rows.num_rows for rows in asked.units], dtype=np.int64)
        message = message_on_host if is_on_host(self.counts) else message_on_device
        self.mine = message(layout, rows, self.counts, code)
        self.theirs = torch.empty_like(self.mine)
        self.handle: Any = dist.all_to_all_single(self.theirs, self.mine, group=group, async_op=True)

    def _wait_impl(self) -> "Ids":
        self.handle.wait()
        if is_on_host(self.mine):
            mine, theirs = self.mine.numpy(), self.theirs.numpy()
        else:
            mine, theirs = host_array(torch.stack([self.mine, self.theirs]))
        ids = self.layout.sizes.sent_ids(mine)
        self.asked.num_sent = ids.copy()
        for n in self.layout.row_units:
            self.asked.num_sent[:, n] = self.asked.units[n].num_rows
        return Ids(self, int(mine[0, 0]), ids, theirs)


def message_on_host(layout: Layout, rows: Integers, counts: Tensor, code: int | Tensor) -> Tensor:
    """The sizes that this rank sends to each rank, computed by numpy, whose calls are short.

    Args:
        layout: the layout of the plan.
        rows: number of rows of each unit.
        counts: number of ids of each segment, int64 [segments].
        code: width code of the lengths.

    Returns:
        A row for each rank as ``size_index.py`` describes it, int64 [W, width].
    """
    sizes = layout.sizes
    message = np.zeros((sizes.world_size, sizes.width), dtype=np.int64)
    message[:, 0] = int(code)
    flat = message.reshape(-1)
    flat[sizes.rows_at] = rows[sizes.rows_unit]
    np.add.at(flat, sizes.sent_at, counts.numpy()[sizes.sent.numbers])
    return torch.from_numpy(message)


def message_on_device(layout: Layout, rows: Integers, counts: Tensor, code: int | Tensor) -> Tensor:
    """The sizes that this rank sends to each rank, computed by operators, so that the host does not wait.

    Args:
        layout: the layout of the plan.
        rows: number of rows of each unit.
        counts: number of ids of each segment, int64 [segments].
        code: width code of the lengths.

    Returns:
        A row for each rank as ``size_index.py`` describes it, int64 [W, width].
    """
    sizes = layout.sizes
    known = np.zeros((sizes.world_size, sizes.width), dtype=np.int64)
    known.reshape(-1)[sizes.rows_at] = rows[sizes.rows_unit]
    message = host_integers(known, counts)
    message[:, 0] = code
    message.view(-1).index_add_(0, sizes.sent_at_order.on(counts.device), counts[sizes.sent.on(counts.device)])
    return message


class Ids(Awaitable[LookupInputs]):
    """The exchange of ids, under way.

    Args:
        sizes: the exchange of sizes that came before.
        code: width code of the lengths that this rank sends.
        ids: number of ids of each unit that this rank sends to each rank, int64 [W, units].
        theirs: the sizes that this rank received from each rank, int64 [W, width].
    """

    def __init__(self, sizes: Sizes, code: int, ids: Integers, theirs: Integers) -> None:
        super().__init__()
        self.layout, self.code = sizes.layout, code
        self.id_type = sizes.asked.units[0].values.dtype
        index = self.layout.sizes
        self.codes, self.rows = theirs[:, 0], theirs[:, index.rows_column]
        self.list_ids, self.segment_ids = theirs[:, index.ids_column], theirs[:, index.segment_column]
        sent = self._send(sizes, ids)
        weighted = [k for k, n in enumerate(index.local_lists) if n < index.num_weighted]
        self.heights = self.rows[:, np.searchsorted(index.local_lists, index.list_unit)]
        num_lengths = self.heights.sum(1)
        self.padding = -num_lengths % WORD
        self.received = np.stack(
            [
                (self.list_ids.sum(1) + self.segment_ids.sum(1)) * self.id_type.itemsize // WORD,
                self.list_ids[:, weighted].sum(1),
                (num_lengths + self.padding) * _LENGTH_BYTES[self.codes] // WORD,
            ]
        )
        self.buffer = sent.words.new_empty(int(self.received.sum()))
        self.handle: Any = dist.all_to_all_single(
            self.buffer,
            sent.words,
            output_split_sizes=self.received.sum(0).tolist(),
            input_split_sizes=sent.sizes,
            group=sizes.group,
            async_op=True,
        )

    def _send(self, sizes: Sizes, ids: Integers) -> "_Sent":
        """What is sent to all ranks: ids, weights and lengths of each, rank after rank."""
        index, units, counts = self.layout.sizes, sizes.asked.units, sizes.counts
        num_ids = ids.sum(1)
        all_ids = join_tensors([u.values for u in units])
        kinds = [permute(all_ids, counts, index.sent, int(num_ids.sum()))]
        words = [num_ids * self.id_type.itemsize // WORD]
        if index.num_weighted:
            num_weights = ids[:, : index.num_weighted].sum(1)
            weights = join_tensors([w for u in units[: index.num_weighted] if (w := u.weights) is not None])
            own = counts[: index.first_segment[index.num_weighted]]
            kinds.append(permute(weights, own, index.sent_weights, int(num_weights.sum())))
            words.append(num_weights)
        if index.num_row_units:
            lengths, num_lengths = self._sent_lengths(units)
            kinds.append(lengths)
            words.append(num_lengths * lengths.element_size() // WORD)
        flat = [kind.view(torch.int32) for kind in kinds]
        return _Sent(reorder(flat, words, transposed(len(words), index.world_size)), sum(words).tolist())

    def _sent_lengths(self, units: list[UnitRows]) -> tuple[Tensor, Integers]:
        """The lengths that each rank is sent, in the dtype in which they travel, and how many there are for each."""
        index = self.layout.sizes
        lists = units[: index.num_row_units]
        rows = np.array([u.num_rows for u in lists], dtype=np.int64)
        heights = np.repeat(rows, np.diff(index.first_segment[: index.num_row_units + 1]))
        num_lengths = np.bincount(index.sent_rank, weights=rows[index.sent_unit], minlength=index.world_size).astype(
            np.int64
        )
        padding = -num_lengths % WORD
        tensors = [length for u in lists if (length := u.lengths) is not None]
        zeros = tensors[0].new_zeros(int(padding.sum()))
        joined = reorder([torch.cat([*tensors, zeros])], [np.concatenate([heights, padding])], index.sent_lengths)
        return joined.to(LENGTH_TYPES[self.code]), num_lengths + padding

    def _wait_impl(self) -> LookupInputs:
        self.handle.wait()
        index, num_sources = self.layout.sizes, self.layout.world_size
        words = reorder([self.buffer], [self.received.T.reshape(-1)], transposed(num_sources, len(self.received)))
        ids, weights, lengths = words.split(self.received.sum(1).tolist())
        values, counts = ids.view(self.id_type), list[Tensor]()
        if index.local_lists:
            lengths = self._widen(lengths)
            sizes = np.concatenate([self.heights, self.padding[:, None]], axis=1).reshape(-1)
            ends = torch.nn.functional.pad(torch.cumsum(lengths, 0, dtype=torch.int64), (1, 0))
            bounds = host_integers(np.concatenate([[0], np.cumsum(sizes)]), lengths)
            counts.append(ends[bounds].diff().view(num_sources, -1)[:, :-1])
            lengths = reorder([lengths], [sizes], index.received_lengths)
        if index.local_ids:
            counts.append(host_integers(self.segment_ids, values))
        if not counts:
            return LookupInputs({})
        each = torch.cat(counts, dim=1)
        values = permute(values, each.reshape(-1), index.received, self._num_values())
        return LookupInputs({**self._list_inputs(values, weights, lengths, each), **self._id_inputs(values)})

    def _num_looked_up(self) -> list[int | None]:
        """For each local unit of lists how many ids its lookup takes; None if the host would have to wait for that."""
        times = [self.layout.times_looked_up[n] for n in self.layout.sizes.local_lists]
        return [None if t is None else t * int(n) for t, n in zip(times, self.list_ids.sum(0), strict=True)]

    def _num_values(self) -> int | None:
        """How many ids all lookups take."""
        return _total([*self._num_looked_up(), *self._id_sizes().values()])

    def _widen(self, words: Tensor) -> Tensor:
        """The lengths from all ranks as int32; this is one copy if all have the same width, as they mostly do."""
        if (self.codes == self.codes[0]).all():
            return words.view(LENGTH_TYPES[self.codes[0]]).to(torch.int32)
        pieces = words.split(self.received[2].tolist())
        return torch.cat([p.view(LENGTH_TYPES[c]).to(torch.int32) for p, c in zip(pieces, self.codes, strict=True)])

    def _list_inputs(self, values: Tensor, weights: Tensor, lengths: Tensor, counts: Tensor) -> dict[int, LookupInput]:
        """Inputs of the lookups of lists: what came rank after rank is put in their order, key after key."""
        index, rank, units = self.layout.sizes, self.layout.rank, self.layout.units
        part_weights: Tensor | None = None
        if index.num_weight_segments:
            own = counts[:, : index.num_weight_segments].reshape(-1)
            weighted = sum(n < index.num_weighted for n in index.local_lists)  # they come first
            total = _total(self._num_looked_up()[:weighted])
            part_weights = permute(weights.view(torch.float32), own, index.received_weights, total)
        inputs, first, row = dict[int, LookupInput](), 0, 0
        for k, (n, known) in enumerate(zip(index.local_lists, self._num_looked_up(), strict=True)):
            sources = self.rows[:, k]
            num_lengths = int(sources.sum()) * len(units[n].parts[rank])
            own_lengths = lengths[row : row + num_lengths]
            num_ids = int(own_lengths.sum()) if known is None else known
            ids = slice(first, first + num_ids)
            # Units with weights come first, so that the weights of their ids stand in the same places as the ids.
            with_weights = part_weights if n < index.num_weighted else None
            inputs[n] = LookupInput(
                sources, values[ids], own_lengths, None if with_weights is None else with_weights[ids]
            )
            first, row = first + num_ids, row + num_lengths
        return inputs

    def _id_inputs(self, values: Tensor) -> dict[int, LookupInput]:
        """Inputs of the lookups of single ids, which stand at the end of the values."""
        index, sizes = self.layout.sizes, self._id_sizes()
        totals = {n: self.segment_ids[:, index.id_unit == n] for n in index.local_ids}
        ones = torch.ones(max(sizes.values(), default=0), dtype=torch.int32, device=values.device)
        inputs, first = dict[int, LookupInput](), len(values) - sum(sizes.values())
        for n, size in sizes.items():
            own = values[first : first + size]
            inputs[n] = LookupInput(totals[n].sum(1), own, ones[:size], counts=totals[n])
            first += size
        return inputs

    def _id_sizes(self) -> dict[int, int]:
        """For each local unit of single ids how many its lookup takes; a table's column shards take the same ones."""
        index, rank, units = self.layout.sizes, self.layout.rank, self.layout.units
        own = {n: self.segment_ids[:, index.id_unit == n] for n in index.local_ids}
        return {n: int(ids.sum()) * (len(units[n].parts[rank]) // ids.shape[1]) for n, ids in own.items()}


def _total(numbers: list[int | None]) -> int | None:
    """The sum of some numbers; None if one of them is not known."""
    known = [n for n in numbers if n is not None]
    return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True, eq=False)
class _Sent:
    """Words that are sent, and how many of them each rank gets."""

    words: Tensor
    sizes: list[int]


_LENGTH_BYTES = np.array([dtype.itemsize for dtype in LENGTH_TYPES])
