"""Histories as models compute with them: vectors of events, and the candidates that attend to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recd_dist.errors import DataError
from recd_dist.model.history_choice import History
from recd_dist.model.model_inputs import Inputs
from recd_dist.table.module_names import module_key
from recd_dist.table.schema import SAMPLE, Schema
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.host_side import host_array
from recd_dist.tensors.shared import Rows


def read_history(history: History, inputs: Inputs, max_length: int) -> GroupedJagged:
    """The last vectors of a history, each the sum of those of its lists.

    Args:
        history: the history.
        inputs: the batch.
        max_length: how many vectors of a row are kept at most; they are the last ones.

    Raises:
        DataError: a list beside the history is longer or shorter than it.
    """
    first = inputs.histories[history.name]
    for name in history.beside:
        other = inputs.histories[name]
        _check_lengths("beside", history.name, name, first, other)
        first = first.with_values(first.values + other.values)
    return first.keep_last(max_length)


def _check_lengths(option: str, history: str, name: str, first: GroupedJagged, other: GroupedJagged) -> None:
    if first.most is not None:
        return  # whoever calls the program has looked
    lengths, own = (host_array(x.lengths, x.known_lengths) for x in (other, first))
    if not np.array_equal(lengths, own):
        row = int(np.flatnonzero(lengths != own)[0])
        raise DataError(
            f"model.{option}.{history}: a row has {own[row]} ids of '{history}' and {lengths[row]} of '{name}'; there "
            f"must be one for each event: mend the lists in the SQL, or leave '{name}' out of model.{option}"
        )


def read_candidate(history: History, inputs: Inputs) -> Rows | None:
    """The vectors that attend to a history, [B, dim]; None where it has no candidate."""
    total: Rows | None = None
    for name in history.candidates:
        total = inputs.pooled[name] if total is None else total + inputs.pooled[name]  # type: ignore[operator]
    return total


@dataclass(frozen=True, eq=False)
class Times:
    """When the events of a history happened, and when its candidates were asked for.

    Attributes:
        events: the events' times, int64 [N], in the lists of the history.
        own: the candidates' times, int64 [B]; None for the time of the last event.
    """

    events: GroupedJagged
    own: Tensor | None


def read_times(history: History, inputs: Inputs, max_length: int) -> Times | None:
    """The times of a history; None where it has none.

    Args:
        history: the history.
        inputs: the batch.
        max_length: that of the vectors.

    Raises:
        DataError: there are more or fewer times than events.
    """
    if not history.times:
        return None
    given = inputs.ids[history.times[0]]
    _check_lengths("times", history.name, history.times[0], inputs.histories[history.name], given)
    events = given.with_values(given.values.long()).keep_last(max_length)
    if len(history.times) == 1:
        return Times(events, None)
    own = inputs.ids[history.times[1]]
    # A sample without a time gets 0, so that every event counts as one of this moment.
    filled = torch.zeros(own.num_rows, dtype=torch.int64, device=own.values.device)
    there = own.padded_index(1)
    return Times(events, filled.index_copy(0, there, own.values.long()))


def split_vectors(schema: Schema, histories: Sequence[History]) -> tuple[list[str], list[str]]:
    """The names of the vectors that interact: those of deduplicated groups, and those of samples.

    A history has one vector, whatever lists are beside it: of the samples where it has a candidate.
    """
    lists = {name for h in histories for name in (*h.lists, *h.times)}
    shared = [name for group in schema.dedup_groups for name in schema.sparse_of(group) if name not in lists]
    shared += [h.name for h in histories if not h.candidates and schema[h.name].group != SAMPLE]
    sample = [name for name in schema.sparse_of(SAMPLE) if name not in lists]
    sample += [h.name for h in histories if h.name not in shared]
    return shared, sample


def module_per_history(histories: Sequence[History], modules: Sequence[nn.Module]) -> nn.ModuleDict:
    """Modules by the names of the histories, as torch's containers take them."""
    return nn.ModuleDict({module_key(h.name): m for h, m in zip(histories, modules, strict=True)})
