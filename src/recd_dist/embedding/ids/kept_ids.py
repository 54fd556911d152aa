"""The ids of a mapped table's rows as of the last step that was trained: what checkpoints hold, and evaluation reads.

Batches are mapped ahead of training, so that the mapping itself is some steps ahead. Each of these batches has a
``Change``, which is applied here when the batch is trained. There are five tensors for each table, dealt to ranks by
zones, which any number of ranks can load::

    ids.item.row_ids, row_seen                       int64 [rows]: id, and the step at which it was last seen (or -1)
    ids.item.waiting_ids, waiting_seen, waiting_counts      the same of ids that wait for a row, with their lookups
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor, ShardedTensorMetadata, TensorProperties

from recd_dist.checkpoint.staging import parts_of
from recd_dist.embedding.ids.id_loops import find_rows, index_rows
from recd_dist.embedding.ids.zones import UNKNOWN, Zones
from recd_dist.table.column import Array
from recd_dist.table.schema import IdRules

NEVER = -1
"""The step at which a row without an id was seen."""


def empty_index(num_ids: int) -> Array:
    """An empty index for so many ids, int32 [a power of two]: at most half of it is used."""
    return np.full(1 << max(4, (2 * num_ids).bit_length()), -1, np.int32)


@dataclass(frozen=True)
class Change:
    """What a batch changes in a mapping.

    Attributes:
        step: the number of the step that trains the batch.
        rows, row_ids: int64 [n], rows that were seen, as numbers among those of the rank, and their ids.
        waiting: int64 [w], places of waiting ids that have changed.
        waiting_ids, waiting_seen, waiting_counts: int64 [w], what stands there now.
    """

    step: int
    rows: Array
    row_ids: Array
    waiting: Array
    waiting_ids: Array
    waiting_seen: Array
    waiting_counts: Array


class KeptIds:
    """The ids of one table's rows in this rank's zones.

    Args:
        zones: the zones of the table.
        rules: how ids come and go.

    Attributes:
        row_ids, row_seen: int64 [R], id and last step of each row of this rank.
        waiting_ids, waiting_seen, waiting_counts: int64 [R], or [0] where each id is admitted at once.
    """

    def __init__(self, zones: Zones, rules: IdRules) -> None:
        self.zones, self.rules = zones, rules
        self.rows = zones.rows_of(zones.rank)
        size = len(self.rows)
        waiting = size if rules.admit_after > 1 else 0
        self.row_ids, self.row_seen = np.zeros(size, np.int64), np.full(size, NEVER, np.int64)
        self.waiting_ids, self.waiting_seen = np.zeros(waiting, np.int64), np.full(waiting, NEVER, np.int64)
        self.waiting_counts = np.zeros(waiting, np.int64)

    def apply(self, change: Change) -> None:
        """Takes over what a batch has changed, once it is trained."""
        self.row_ids[change.rows], self.row_seen[change.rows] = change.row_ids, change.step
        self.waiting_ids[change.waiting] = change.waiting_ids
        self.waiting_seen[change.waiting] = change.waiting_seen
        self.waiting_counts[change.waiting] = change.waiting_counts

    def is_live(self, step: int) -> Array:
        """Bool [R]: rows that have an id which is not forgotten after a step."""
        oldest = 0 if self.rules.max_age is None else max(0, step - self.rules.max_age)
        return self.row_seen >= oldest

    def finder(self, step: int) -> "RowFinder":
        """Finds the rows of ids as of now, when a step is done."""
        return RowFinder(self, step)

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint by name, this rank's part of each; those of rows share the arrays' memory.

        Waiting ids stand there by step and id, so that the tensors do not depend on where a run was resumed.
        """
        rows = [self.zones.rows_of(rank) for rank in range(self.zones.world_size)]
        size = self.zones.num_embeddings
        return {name: _sharded(torch.from_numpy(values), rows, size) for name, values in self.arrays().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over the content of tensors like those of ``to_tensors``."""
        for name, tensor in tensors.items():
            for _, part in parts_of(tensor):
                getattr(self, name)[:] = part.numpy()

    def arrays(self) -> dict[str, Array]:
        """The content of the tensors by name."""
        arrays = {"row_ids": self.row_ids, "row_seen": self.row_seen}
        if self.rules.admit_after > 1:
            firsts, used = self.zones.firsts - self.rows.start, np.flatnonzero(self.waiting_seen != NEVER)
            zone = np.searchsorted(firsts, used, "right") - 1
            used = used[np.lexsort((self.waiting_ids[used], self.waiting_seen[used], zone))]
            zone = np.sort(zone)
            places = firsts[zone] + np.arange(len(used)) - np.searchsorted(zone, zone)
            for name in ("waiting_ids", "waiting_seen", "waiting_counts"):
                arrays[name] = np.full(len(self.waiting_ids), NEVER if name == "waiting_seen" else 0)
                arrays[name][places] = getattr(self, name)[used]
        return arrays


class RowFinder:
    """Finds the rows of ids that had one when a step was done.

    Args:
        kept: the ids of one table in this rank's zones; they must not change meanwhile.
        step: the step.
    """

    def __init__(self, kept: KeptIds, step: int) -> None:
        live = np.flatnonzero(kept.is_live(step))
        self._ids, self._first, self._index = kept.row_ids, kept.rows.start, empty_index(len(live))
        index_rows(self._ids, live, self._index)

    def find(self, ids: Array) -> Array:
        """The rows of some ids of this rank's zones, int64 [n]; the unknown row for ids that have none."""
        rows = np.empty(len(ids), np.int64)
        find_rows(self._ids, self._index, ids, rows)
        return np.where(rows < 0, UNKNOWN, rows + self._first)


def _sharded(local: Tensor, rows: list[range], size: int) -> ShardedTensor:
    """A tensor [size] of which each rank holds the rows of its zones."""
    rank = dist.get_rank()
    placed = list(_shards(rows))
    properties = TensorProperties(dtype=local.dtype)
    metadata = ShardedTensorMetadata([part for _, part in placed], torch.Size([size]), properties)
    mine = [Shard(local, part) for owner, part in placed if owner == rank]
    return ShardedTensor._init_from_local_shards_and_global_metadata(mine, metadata)


def _shards(rows: list[range]) -> Iterator[tuple[int, ShardMetadata]]:
    for rank, part in enumerate(rows):
        if len(part):
            yield rank, ShardMetadata([part.start], [len(part)], f"rank:{rank}/cpu")
