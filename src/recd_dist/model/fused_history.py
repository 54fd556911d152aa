"""Several histories as one: fused early, each event with a learned vector of the list that it comes from.

::

    views  v0 v1 v2     clicks  c0 c1      one after the other  v0 v1 v2 c0 c1      by time  v0 c0 v1 v2 c1

Rows of the fused history are those of the join of the histories' levels: where views change more often than clicks, one
per row of views. All of it is exact, like the histories by themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recd_dist.model.histories import Times, read_history, read_times
from recd_dist.model.history_choice import History
from recd_dist.model.model_inputs import Inputs
from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.host_side import host_array
from recd_dist.tensors.jagged import value_index
from recd_dist.tensors.levels import Level, join_levels


class FusedHistory(nn.Module):
    """Reads several histories as one.

    Args:
        chosen: the histories.
        dim: the width of the vectors.
        max_length: how many events of the fused history are kept at most; they are the last ones.
    """

    def __init__(self, chosen: Sequence[History], dim: int, max_length: int) -> None:
        super().__init__()
        self.chosen, self.max_length = tuple(chosen), max_length
        self.source = nn.Parameter(torch.empty(len(self.chosen), dim).normal_(std=0.02))

    def forward(self, inputs: Inputs) -> tuple[GroupedJagged, Times | None]:
        """The fused history, and its times where all histories have times.

        Args:
            inputs: the batch.
        """
        lists, times = [], []
        for number, history in enumerate(self.chosen):
            own = read_history(history, inputs, self.max_length)
            lists.append(own.with_values(own.values + self.source[number]))
            times.append(read_times(history, inputs, self.max_length))
        when = [t.events for t in times if t is not None]
        order = _Order.of(lists, when)
        fused = order.fuse(lists)
        if not when:
            return fused.keep_last(self.max_length), None
        own_time = next((t.own for t in times if t is not None and t.own is not None), None)
        return fused.keep_last(self.max_length), Times(order.fuse(when).keep_last(self.max_length), own_time)


class _Order:
    """How lists are laid into each other.

    Args:
        level: the level of the fused rows.
        rows: for each list, the row of it for each fused row, int64.
        place: for each fused vector its number among those of all lists, one list after the other, int64.
        lengths: the lengths of the fused rows, int32.
    """

    def __init__(self, level: Level | None, rows: Sequence[Tensor], place: Tensor, lengths: np.ndarray) -> None:
        self.level, self.rows, self.place, self.lengths = level, rows, place, lengths

    @staticmethod
    def of(lists: Sequence[GroupedJagged], times: Sequence[GroupedJagged]) -> "_Order":
        """The order of some lists: by time where there are times, else one after the other."""
        level = join_levels([x.level for x in lists])
        rows, numbers, lengths = [], [], []
        for own in lists:
            index = None if own.level is level or own.level is None else own.level.index_in(level)
            known = np.arange(own.num_rows) if index is None else index.known.astype(np.int64)
            rows.append(torch.from_numpy(known).to(own.lengths.device))
            lengths.append(host_array(own.lengths, own.known_lengths)[known])
            numbers.append(np.repeat(np.arange(len(known)), lengths[-1]))
        row = np.concatenate(numbers)
        if times:
            when = [_take(x, r).cpu().numpy() for x, r in zip(times, rows, strict=True)]
            order = np.lexsort((np.concatenate(when), row))
        else:
            order = np.argsort(row, kind="stable")
        place = torch.from_numpy(order).to(lists[0].lengths.device)
        return _Order(level, rows, place, np.stack(lengths).sum(0, dtype=np.int32))

    def fuse(self, lists: Sequence[GroupedJagged]) -> GroupedJagged:
        """The lists as one."""
        values = torch.cat([_take(x, r) for x, r in zip(lists, self.rows, strict=True)])
        lengths = torch.from_numpy(self.lengths).to(values.device)
        inverse = None if self.level is None else self.level.inverse
        known = None if self.level is None else self.level.known_inverse
        return GroupedJagged(values[self.place], lengths, inverse, self.lengths, known, self.level)


def _take(lists: GroupedJagged, rows: Tensor) -> Tensor:
    """The values of some rows, one after the other."""
    lengths = lists.lengths[rows]
    known = host_array(lists.lengths, lists.known_lengths)[rows.cpu().numpy()]
    index = value_index(lists.lengths, rows, lengths, int(known.sum()))
    return expand_rows(lists.values, index) if lists.values.is_floating_point() else lists.values[index]
