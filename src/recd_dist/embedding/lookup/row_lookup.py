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
from recd_dist.table.column import Array

logger = logging.getLogger(__name__)

OPTIMIZERS = {
    EmbOptimType.EXACT_SGD: row_updates.SGD,
    EmbOptimType.EXACT_ROWWISE_ADAGRAD: row_updates.ROWWISE_ADAGRAD,
    EmbOptimType.EXACT_ADAGRAD: row_updates.ADAGRAD,
}
"""For each of fbgemm's optimizers that the loops know its number there."""

IDS_OF_THREAD = 8192
"""Fewer ids than these are no work for a further thread, which takes some 50 us to wake up."""

_NO_NUMBERS, _NO_PLACES = np.empty(0, np.float32), np.empty(0, np.int64)


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
        kernel: TorchRec's kernel, a BatchedFusedEmbeddingBag whose module ``is_supported``.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.module = kernel, kernel.emb_module
        self.optimizer = OPTIMIZERS[self.module.optimizer]
        tables = self.module.feature_table_map
        ends = self.module.D_offsets.tolist()
        self.width, self.num_keys = int(ends[-1]), len(tables)
        self.keys = np.array(list(zip(tables, ends[:-1], strict=True)), np.int64)
        has_state = self.optimizer != row_updates.SGD
        self.state = self.module.momentum1_host.detach().numpy() if has_state else _NO_NUMBERS
        specs, starts = self.module.embedding_specs, self.module.weights_physical_offsets
        states = self.module.momentum1_physical_offsets if has_state else [0] * len(specs)
        self.shards = np.array(
            [
                (tables.index(n), tables.count(n), start, rows, columns, state)
                for n, ((rows, columns, *_), start, state) in enumerate(zip(specs, starts, states, strict=True))
            ],
            np.int64,
        )
        self._anchor = torch.zeros(1, requires_grad=True)  # no parameter: with it the backward pass reaches the tables
        self._warned = False
        use_huge_pages(self.module.weights_host)
        use_huge_pages(torch.from_numpy(self.state))

    def __call__(self, kjt: KeyedJaggedTensor) -> Tensor:
        """Looks up rows of ids.

        Args:
            kjt: for each key as many rows; ids int32 or int64 [N], lengths int32, weights float32 [N] if any.

        Returns:
            The sums, float32 [rows, columns of all keys].
        """
        factors = kjt.weights_or_none()
        if factors is not None and factors.requires_grad:
            return self.kernel(kjt)
        if torch.is_grad_enabled():
            return _LookUp.apply(self._anchor, self, kjt.values(), kjt.lengths(), factors)
        return self.look_up(_Rows(self, kjt.values(), kjt.lengths(), factors, is_trained=False))

    def look_up(self, rows: "_Rows") -> Tensor:
        """The sums of some rows of ids."""
        out = torch.empty(rows.stride, self.width)
        weights, target = self._weights(), out.numpy().reshape(-1)
        num_rows = self.num_keys * rows.stride
        num_parts = rows.num_parts()

        def pool(part: int) -> None:
            first, last = num_rows * part // num_parts, num_rows * (part + 1) // num_parts
            row_loops.pool_rows(
                weights, self.keys, self.shards, rows.stride, self.width,
                rows.offsets, rows.positions, rows.factors, target, first, last,
            )  # fmt: skip

        if num_rows:
            _run_parts(pool, num_parts)
        if rows.num_bad and not self._warned:
            self._warned = True
            logger.warning("%d ids of a batch lie outside their tables, and look up row 0; more are not told", rows.num_bad)
        return out

    def update(self, rows: "_Rows", gradient: Tensor) -> None:
        """Updates what was looked up by the gradient of the sums, float32 [rows, columns of all keys]."""
        weights, slopes = self._weights(), gradient.contiguous().numpy().reshape(-1)
        spare, num_parts = np.empty_like(rows.packed), rows.num_parts()
        numbers = np.array([self.module.get_learning_rate(), self.module.optimizer_args.eps], np.float32)

        def sort(part: int) -> None:
            row_loops.sort_ids(rows.packed, spare, rows.offsets, self.shards, rows.stride, part, num_parts)

        def update(part: int) -> None:
            row_updates.update_rows(
                weights, self.state, self.shards, rows.stride, rows.offsets,
                rows.packed, rows.sources, rows.factors, slopes, self.optimizer, numbers, part, num_parts,
            )  # fmt: skip

        if len(rows.packed):
            _run_parts(sort, num_parts)
            _run_parts(update, num_parts)

    def _weights(self) -> Array:
        return self.module.weights_host.detach().numpy()


class _Rows:
    """Where the rows lie that a batch looks up; ``row_loops.place_ids`` says what the arrays hold."""

    def __init__(
        self, lookup: RowLookup, ids: Tensor, lengths: Tensor, factors: Tensor | None, *, is_trained: bool
    ) -> None:
        self.stride, size = len(lengths) // lookup.num_keys, len(ids)
        weighted = factors is not None
        self.factors = _NO_NUMBERS if factors is None else factors.detach().numpy()
        self.offsets, self.positions = np.empty(len(lengths) + 1, np.int64), np.empty(size, np.int64)
        self.sources = np.empty(size, np.int64) if weighted and is_trained else _NO_PLACES
        self.packed = np.empty(size if is_trained else 0, np.uint64)
        self.num_bad = row_loops.place_ids(
            ids.numpy(), lengths.numpy(), lookup.keys, lookup.shards, self.stride, lookup.width, weighted,
            self.offsets, self.positions, self.sources, self.packed,
        )  # fmt: skip

    def num_parts(self) -> int:
        """In how many parts the work is worth to be divided."""
        return max(1, min(torch.get_num_threads(), len(self.positions) // IDS_OF_THREAD))


class _LookUp(torch.autograd.Function):
    """The lookup as an operation of autograd; its backward pass updates the tables."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, lookup: RowLookup, ids: Tensor, lengths: Tensor, factors: Any) -> Tensor:  # type: ignore[override]
        del anchor
        ctx.lookup, ctx.rows = lookup, _Rows(lookup, ids, lengths, factors, is_trained=True)
        return lookup.look_up(ctx.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        ctx.lookup.update(ctx.rows, gradient)
        return None, None, None, None, None


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
