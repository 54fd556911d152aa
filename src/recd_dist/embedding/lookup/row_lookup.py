"""Looks up the tables of one of fbgemm's kernels on CPU, and updates them in the backward pass, by loops of our own.

The weights, the states of the optimizer and its learning rate stay where they are, in fbgemm's module: checkpoints,
optimizers and TorchRec find them there, and a run may change between the two from one start to the next. A step gives
the same numbers but for rounding; ``tests/embedding/lookup`` compares them.

::

    forward     place_ids -> pool_rows               ids -> positions of rows -> sums
    backward    sort_ids -> update_rows              equal ids side by side -> one update for each row
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.lookup import row_loops, row_updates
from recd_dist.embedding.lookup.huge_pages import use_huge_pages
from recd_dist.embedding.lookup.row_loops import Rows, Tables

logger = logging.getLogger(__name__)

OPTIMIZERS = {
    EmbOptimType.EXACT_SGD: row_updates.SGD,
    EmbOptimType.EXACT_ROWWISE_ADAGRAD: row_updates.ROWWISE_ADAGRAD,
    EmbOptimType.EXACT_ADAGRAD: row_updates.ADAGRAD,
}
"""For each of fbgemm's optimizers that the loops know its number there."""

IDS_OF_THREAD = 8192
"""Fewer ids than these are no work for a further thread, which takes some 50 us to wake up."""

_NO_NUMBERS = np.empty(0, np.float32)


def is_supported(module: Any) -> bool:
    """Whether the loops give what a kernel gives: sums of float32 rows on CPU, and an optimizer that they know.

    Args:
        module: fbgemm's SplitTableBatchedEmbeddingBagsCodegen, or another module.
    """
    numbers = getattr(module, "optimizer_args", None)
    return (
        numbers is not None
        and module.weights_host.numel() > 0
        and module.weights_host.device.type == "cpu"
        and module.weights_precision == SparseType.FP32
        and module.output_dtype == SparseType.FP32.as_int()
        and module.pooling_mode == PoolingMode.SUM
        and module.optimizer in OPTIMIZERS
        and not numbers.gradient_clipping
        and not numbers.weight_decay
        and not numbers.max_norm
        and not module._used_rowwise_adagrad_with_counter
        and not module._used_rowwise_adagrad_with_global_weight_decay
    )


class RowLookup:
    """Looks up the tables of a kernel, as the kernel itself does.

    Args:
        module: fbgemm's module, which ``is_supported``.
        kernel: TorchRec's kernel around it; it takes batches whose weights need gradients, which the loops do not give.
    """

    def __init__(self, module: Any, kernel: Callable[[KeyedJaggedTensor], Tensor] | None = None) -> None:
        self.kernel, self.module = kernel, module
        self.optimizer = OPTIMIZERS[self.module.optimizer]
        tables = self.module.feature_table_map
        ends = self.module.D_offsets.tolist()
        self.width = int(ends[-1])
        self.keys = np.array(list(zip(tables, ends[:-1], strict=True)), np.int64)
        has_state = self.optimizer != row_updates.SGD
        specs, starts = self.module.embedding_specs, self.module.weights_physical_offsets
        states = self.module.momentum1_physical_offsets if has_state else [0] * len(specs)
        self.shards = np.array(
            [
                (tables.index(n), tables.count(n), start, rows, columns, state)
                for n, ((rows, columns, *_), start, state) in enumerate(zip(specs, starts, states, strict=True))
            ],
            np.int64,
        )
        self._tensors = [self.module.weights_host, *([self.module.momentum1_host] if has_state else [])]
        self._anchor = torch.zeros(1, requires_grad=True)  # no parameter: with it the backward pass reaches the tables
        self._warned = False
        for tensor in self._tensors:
            use_huge_pages(tensor)

    def __call__(self, kjt: KeyedJaggedTensor) -> Tensor:
        """Looks up rows of ids.

        Args:
            kjt: for each key as many rows; ids int32 or int64 [N], lengths int32, weights float32 [N] if any.

        Returns:
            The sums, float32 [rows, columns of all keys].
        """
        factors = kjt.weights_or_none()
        if factors is not None and factors.requires_grad:
            if self.kernel is None:
                raise ValueError("RowLookup: weights of ids get no gradients without TorchRec's kernel")
            return self.kernel(kjt)
        if torch.is_grad_enabled():
            look_up: Any = _LookUp.apply
            return look_up(self._anchor, self, kjt.values(), kjt.lengths(), factors)
        return self.look_up(self.find_rows(kjt.values(), kjt.lengths(), factors, is_trained=False))

    def find_rows(self, ids: Tensor, lengths: Tensor, factors: Tensor | None, *, is_trained: bool) -> Rows:
        """Finds the rows that ids look up.

        Args:
            ids: int32 or int64 [N].
            lengths: int32, the number of ids of each row of each key.
            factors: float32 [N], the weight of each id, or None.
            is_trained: False if the rows are not updated.

        Raises:
            ValueError: there are more or fewer ids than the lengths say, or weights than ids.
        """
        size, weighted = len(ids), factors is not None
        rows = Rows(
            stride=len(lengths) // len(self.keys),
            factors=_NO_NUMBERS if factors is None else factors.detach().float().contiguous().numpy(),
            offsets=np.empty(len(lengths) + 1, np.int64),
            positions=np.empty(size, np.int64),
            sources=np.empty(size if weighted and is_trained else 0, np.int64),
            packed=np.empty(size if is_trained else 0, np.uint64),
        )
        num_bad = row_loops.place_ids(self._tables(), rows, ids.numpy(), lengths.numpy())
        if num_bad < 0 or len(rows.factors) not in (0, size):
            raise ValueError(f"RowLookup: {size} ids, {len(rows.factors)} weights, lengths that sum to {lengths.sum()}")
        if num_bad and not self._warned:
            self._warned = True
            logger.warning("%d ids of a batch lie outside their tables, and look up row 0; more are not told", num_bad)
        return rows

    def look_up(self, rows: Rows) -> Tensor:
        """The sums of some rows, float32 [rows, columns of all keys]."""
        out, num_rows, num_parts = torch.empty(rows.stride, self.width), len(rows.offsets) - 1, _num_parts(rows)
        tables, target = self._tables(), out.numpy().reshape(-1)

        def pool(part: int) -> None:
            first, last = num_rows * part // num_parts, num_rows * (part + 1) // num_parts
            row_loops.pool_rows(tables, rows, target, first, last)

        if num_rows:
            _run_parts(pool, num_parts)
        return out

    def update(self, rows: Rows, gradient: Tensor) -> None:
        """Updates the rows that were looked up by the gradient of their sums."""
        tables, slopes, num_parts = self._tables(), gradient.contiguous().numpy().reshape(-1), _num_parts(rows)
        numbers = np.array([self.module.get_learning_rate(), self.module.optimizer_args.eps], np.float32)
        spare = np.empty_like(rows.packed)
        if len(rows.packed):
            _run_parts(lambda part: row_loops.sort_ids(tables, rows, spare, part, num_parts), num_parts)
            _run_parts(
                lambda part: row_updates.update_rows(tables, rows, slopes, self.optimizer, numbers, part, num_parts),
                num_parts,
            )

    def _tables(self) -> Tables:
        arrays = [tensor.detach().numpy() for tensor in self._tensors]
        return Tables(arrays[0], arrays[1] if arrays[1:] else _NO_NUMBERS, self.shards, self.keys, self.width)


class _LookUp(torch.autograd.Function):
    """The lookup as an operation of autograd; its backward pass updates the tables."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, lookup: RowLookup, ids: Tensor, lengths: Tensor, factors: Any) -> Tensor:
        del anchor
        ctx.lookup, ctx.rows = lookup, lookup.find_rows(ids, lengths, factors, is_trained=True)
        return lookup.look_up(ctx.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.lookup.update(ctx.rows, gradient)
        return None, None, None, None, None


def _num_parts(rows: Rows) -> int:
    """In how many parts the work is worth to be divided."""
    return max(1, min(torch.get_num_threads(), len(rows.positions) // IDS_OF_THREAD))


def _run_parts(run: Callable[[int], None], num_parts: int) -> None:
    """Runs the parts of some work, beside each other if there are several: loops leave the interpreter free."""
    if num_parts == 1:
        run(0)
        return
    for each in [_threads(os.getpid()).submit(run, part) for part in range(num_parts)]:
        each.result()


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked one has none of its parent's."""
    del process
    return ThreadPoolExecutor(torch.get_num_threads(), "lookup")
