"""How the dense layers compute: in which precision, and how many samples of a batch at a time.

Tables, vectors between ranks, weights, optimizers and losses stay float32 whatever the precision is.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recd_dist.model.towers import Towers
from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.sample_range import take_samples

T = TypeVar("T")


@dataclass(frozen=True)
class DenseComputation:
    """How the dense layers compute.

    Attributes:
        precision: ``fp32``; or ``bf16``, in which matrices are multiplied by autocast.
        micro_batches: the number of parts in which a batch goes through the layers while training. Only one part's
            activations are in memory at a time: each part is computed again when its gradient is wanted. The batch is
            looked up once, and its loss is that of the whole batch, so that gradients and updates are the same.
    """

    precision: str = "fp32"
    micro_batches: int = 1

    def logits(self, model: nn.Module, embedded: Embedded, dense: Mapping[str, Grouped]) -> Tensor:
        """The logits of a batch, at least float32 [B, T].

        Args:
            model: the dense layers.
            embedded: what the tables give.
            dense: for each group its dense features.
        """
        with self._casts(embedded, dense):
            parts = self._in_parts(lambda *batch: cast(Tensor, model(*batch)), embedded, dense)
        logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def towers(self, model: nn.Module, embedded: Embedded, dense: Mapping[str, Grouped]) -> Towers:
        """The vectors of a batch, in float32 at least; in a batch of several parts every sample has its own.

        Args:
            model: the dense layers, which have towers.
            embedded: what the tables give.
            dense: for each group its dense features.
        """
        compute = cast(Callable[..., Towers], model.towers)
        with self._casts(embedded, dense):
            if self._num_parts(_batch_size(embedded, dense)) == 1:
                return compute(embedded, dense).widen()
            return Towers.join(self._in_parts(lambda *batch: compute(*batch).plain(), embedded, dense)).widen()

    def _casts(self, embedded: Embedded, dense: Mapping[str, Grouped]) -> AbstractContextManager[object]:
        """Where matrices are multiplied in the wanted precision."""
        if self.precision != "bf16":
            return nullcontext()
        rows = _rows_of(embedded, dense)
        return torch.autocast(rows[0].values.device.type if rows else "cpu", dtype=torch.bfloat16)

    def _num_parts(self, size: int) -> int:
        return max(1, min(self.micro_batches, size)) if torch.is_grad_enabled() else 1

    def _in_parts(
        self, function: Callable[[Embedded, Mapping[str, Grouped]], T], embedded: Embedded, dense: Mapping[str, Grouped]
    ) -> list[T]:
        """What a function gives for each part of a batch; the whole is one part unless micro-batches are asked for."""
        size = _batch_size(embedded, dense)
        if (num_parts := self._num_parts(size)) == 1:
            return [function(embedded, dense)]

        def compute(start: int, end: int) -> T:
            return function(*take_samples(embedded, dense, start, end))

        borders = [size * number // num_parts for number in range(num_parts + 1)]
        return [cast(T, checkpoint(compute, *of, use_reentrant=False)) for of in pairwise(borders)]


def _rows_of(embedded: Embedded, dense: Mapping[str, Grouped]) -> list[Grouped | GroupedJagged]:
    return [*embedded.pooled.values(), *embedded.sequences.values(), *dense.values()]


def _batch_size(embedded: Embedded, dense: Mapping[str, Grouped]) -> int:
    rows = _rows_of(embedded, dense)
    return rows[0].batch_size if rows else 0
