"""How the dense layers compute: in which precision, and how many samples of a batch at a time.

Tables, vectors between ranks, weights, optimizers and losses stay float32 whatever the precision is.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recd_dist.tensors.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.tensors.sample_range import take_samples


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
        rows: list[Grouped | GroupedJagged] = [*embedded.pooled.values(), *embedded.sequences.values(), *dense.values()]
        device = rows[0].values.device.type if rows else "cpu"
        with torch.autocast(device, dtype=torch.bfloat16) if self.precision == "bf16" else nullcontext():
            logits = self._in_parts(model, embedded, dense, rows[0].batch_size if rows else 0)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _in_parts(self, model: nn.Module, embedded: Embedded, dense: Mapping[str, Grouped], size: int) -> Tensor:
        num_parts = min(self.micro_batches, size) if torch.is_grad_enabled() else 1
        if num_parts <= 1:
            return cast(Tensor, model(embedded, dense))

        def compute(start: int, end: int) -> Tensor:
            return cast(Tensor, model(*take_samples(embedded, dense, start, end)))

        borders = [size * number // num_parts for number in range(num_parts + 1)]
        parts = [checkpoint(compute, start, end, use_reentrant=False) for start, end in pairwise(borders)]
        return torch.cat(cast(list[Tensor], parts))
