"""Batch: what flows from the reader to the loss."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.grouped import Grouped
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of one rank.

    Attributes:
        sparse: the id features, deduplicated per group.
        dense: for each group that has dense features float32 [U, n], columns in schema order; U = B for ``sample``.
        labels: float32 [B, number of labels], those of the tasks first; nan where one is missing.
        sample_ids: int64 [B], the samples' numbers in their table; they stay on the host.
        request_ids: int64 [B]; samples that were ranked together share one; they stay on the host.
        session_ids: int64 [B], on the host; None in a batch that no reader made.
    """

    sparse: IKJT
    dense: Mapping[str, Tensor]
    labels: Tensor
    sample_ids: Tensor
    request_ids: Tensor
    session_ids: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of samples."""
        return self.sparse.batch_size

    def dense_of(self, group: str) -> Grouped:
        """A group's dense features with the group's inverse."""
        return Grouped(
            self.dense[group], self.sparse.inverse_of(group), known_inverse=self.sparse.known_inverse_of(group)
        )

    def expand(self, groups: Collection[str] | None = None) -> "Batch":
        """The same samples with groups moved into ``sample``; with all groups moved, it is what ``dedup=off`` trains.

        Args:
            groups: the deduplicated groups to move; all of them when absent.
        """
        kept = [g for g in self.dense if groups is not None and g not in (SAMPLE, *groups)]
        dense = {g: self.dense[g] for g in kept}
        if moved := [self.dense_of(g).expand() for g in self.dense if g not in kept]:
            dense[SAMPLE] = torch.cat(moved, 1)
        return replace(self, sparse=self.sparse.expand(groups), dense=dense)

    def _map(self, sparse: IKJT, move: Callable[[Tensor], Tensor]) -> "Batch":
        dense = {g: move(t) for g, t in self.dense.items()}
        return replace(self, sparse=sparse, dense=dense, labels=move(self.labels))

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device, but for ids of samples, requests and sessions, which the host reads."""
        sparse = self.sparse.to(device=device, non_blocking=non_blocking)
        return self._map(sparse, lambda t: t.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return self._map(self.sparse.pin_memory(), lambda t: t.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells CUDA's allocator that a stream uses this batch."""
        self.sparse.record_stream(stream)
        for tensor in (*self.dense.values(), self.labels):
            if tensor.is_cuda:
                tensor.record_stream(stream)
