"""Every change that is made to TorchRec at run time, and why.

For each patch this list names the place in TorchRec, the releases, the reason, and the test that fails when upstream
mends it. ``distribute.shard`` calls ``apply()``, which may be called again and again. A patch acts only on process
groups whose backend is gloo; NCCL runs stock TorchRec.

1. ``ReduceScatterV_Wait.backward`` (torchrec/distributed/comm_ops.py:2667; 1.6 to 1.9): row-wise sharding sends
   gradients with a list ``all_gather`` whose entries differ in size when ranks hold different numbers of rows. gloo
   accepts equal sizes only ("invalid tensor size"). The patch uses one ``all_to_all_single`` instead.
   Guard: tests/dist/test_torchrec_patches.py::test_upstream_row_wise_backward_still_fails.
2. ``ReduceScatterV_Req.forward`` and ``PooledEmbeddingsReduceScatter.forward`` (comm_ops.py:2558, dist_data.py:1790;
   1.6 to 1.9): gloo's reduce-scatter put 30.8 MB on the wire where 22.3 MB were due. The patch uses one
   ``all_to_all_single`` and a local sum, for equal sizes too. It adds in rank order, so that the sum is deterministic.
   Guard: tests/dist/test_torchrec_patches.py::test_row_wise_sends_no_more_than_the_formula.
3. ``restore_postprocs``: ``_pipeline_detach_model`` (train_pipeline/utils.py:321 of 1.6.1; mended in 1.8) puts a
   nested module back under its dotted name at the root, where nothing looks for it. The pipelined module stays in its
   place and hands the ids of the last trained batch to every later one, so that an evaluation after training would be
   of that batch only. The function is called after ``detach``; from 1.8 on it finds nothing to do.
   Guard: tests/dist/test_torchrec_patches.py::test_nested_modules_are_put_back.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
import torchrec
from torch import Tensor, nn
from torchrec.distributed import comm_ops, dist_data
from torchrec.distributed.train_pipeline.postproc import PipelinedPostproc

from recd_dist.errors import ConfigError

logger = logging.getLogger(__name__)

VERSIONS = ((1, 6), (1, 9))
"""The first and the last release line of TorchRec for which the patches were written."""

_STOCK: dict[str, Callable[..., Any]] = {}


def apply() -> None:
    """Patches TorchRec for gloo, once.

    Raises:
        ConfigError: the patches were not written for this release of TorchRec.
    """
    if _STOCK:
        return
    version = tuple(int(part) for part in torchrec.__version__.split(".")[:2])
    if not VERSIONS[0] <= version <= VERSIONS[1]:
        raise ConfigError(
            f"torchrec {torchrec.__version__}: the gloo repairs in embedding/torchrec_patches.py are written for "
            f"{VERSIONS[0][0]}.{VERSIONS[0][1]} to {VERSIONS[1][0]}.{VERSIONS[1][1]}; install one of these"
        )
    _STOCK["req"] = comm_ops.ReduceScatterV_Req.forward
    _STOCK["wait"] = comm_ops.ReduceScatterV_Wait.forward
    _STOCK["wait_backward"] = comm_ops.ReduceScatterV_Wait.backward
    _STOCK["pooled"] = dist_data.PooledEmbeddingsReduceScatter.forward
    comm_ops.ReduceScatterV_Req.forward = staticmethod(_start_scatter)
    comm_ops.ReduceScatterV_Wait.forward = staticmethod(_add_up)
    comm_ops.ReduceScatterV_Wait.backward = staticmethod(_gather_gradients)
    dist_data.PooledEmbeddingsReduceScatter.forward = _reduce_scatter
    logger.debug("torchrec %s: row-wise exchange on gloo runs through all_to_all_single", torchrec.__version__)


def remove() -> None:
    """Puts stock TorchRec back."""
    if not _STOCK:
        return
    comm_ops.ReduceScatterV_Req.forward = staticmethod(_STOCK["req"])
    comm_ops.ReduceScatterV_Wait.forward = staticmethod(_STOCK["wait"])
    comm_ops.ReduceScatterV_Wait.backward = staticmethod(_STOCK["wait_backward"])
    dist_data.PooledEmbeddingsReduceScatter.forward = _STOCK["pooled"]
    _STOCK.clear()


def restore_postprocs(model: nn.Module) -> None:
    """Puts back in their places the modules that a detached pipeline left pipelined.

    Args:
        model: the module inside DistributedModelParallel, after ``pipeline.detach()``.
    """
    for path, module in list(model.named_modules()):
        if isinstance(module, PipelinedPostproc):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, module.postproc_module)
            if parent:
                model._modules.pop(path, None)


def _is_on_gloo(group: dist.ProcessGroup, codecs: Any) -> bool:
    return codecs is None and dist.get_backend(group) == "gloo"


def _reduce_scatter(self: Any, local_embs: Tensor, input_splits: list[int] | None = None) -> Any:
    """``PooledEmbeddingsReduceScatter.forward``: on gloo it is the one for variable sizes, whatever the sizes are."""
    if not _is_on_gloo(self._pg, self._codecs):
        return _STOCK["pooled"](self, local_embs, input_splits)
    world_size = self._pg.size()
    splits = input_splits or [local_embs.shape[0] // world_size] * world_size
    return dist_data.PooledEmbeddingsAwaitable(
        tensor_awaitable=comm_ops.reduce_scatter_v_pooled(local_embs, splits, self._pg, codecs=None)
    )


def _start_scatter(ctx: Any, pg: dist.ProcessGroup, myreq: Any, rsi: Any, input: Tensor) -> Tensor:
    """``ReduceScatterV_Req.forward``: starts to send each rank its rows of partial sums."""
    if not _is_on_gloo(pg, rsi.codecs):
        return _STOCK["req"](ctx, pg, myreq, rsi, input)
    size = rsi.input_splits[dist.get_rank(pg)]
    output = input.new_empty(size * pg.size(), *input.shape[1:])
    myreq.req = dist.all_to_all_single(
        output,
        input.contiguous(),
        output_split_sizes=[size] * pg.size(),
        input_split_sizes=rsi.input_splits,
        group=pg,
        async_op=True,
    )
    myreq.tensor = output
    myreq.wait_function = comm_ops.ReduceScatterV_Wait
    myreq.rsi = rsi
    ctx.myreq = myreq
    ctx.pg = pg
    return myreq.dummy_tensor


def _add_up(ctx: Any, pg: dist.ProcessGroup, myreq: Any, *dummy_tensor: Tensor) -> Tensor:
    """``ReduceScatterV_Wait.forward``: waits for the partial sums of all ranks and adds them up."""
    if not _is_on_gloo(pg, myreq.rsi.codecs):
        return _STOCK["wait"](ctx, pg, myreq, *dummy_tensor)
    myreq.req.wait()
    partial = myreq.tensor
    myreq.req = myreq.tensor = None
    ctx.myreq = myreq
    ctx.pg = pg
    return partial.view(pg.size(), -1, *partial.shape[1:]).sum(0) if partial.numel() else partial[:0]


def _gather_gradients(ctx: Any, grad_output: Tensor) -> tuple[None, None, Tensor]:
    """``ReduceScatterV_Wait.backward``: starts to send the gradients of this rank's rows to every rank."""
    rsi, myreq = ctx.myreq.rsi, ctx.myreq
    if not _is_on_gloo(ctx.pg, rsi.codecs):
        return _STOCK["wait_backward"](ctx, grad_output)
    world_size = ctx.pg.size()
    grad_input = grad_output.new_empty(rsi.total_input_size)
    myreq.req = dist.all_to_all_single(
        grad_input,
        grad_output.repeat(world_size, *[1] * (grad_output.dim() - 1)),
        output_split_sizes=rsi.input_splits,
        input_split_sizes=[grad_output.shape[0]] * world_size,
        group=ctx.pg,
        async_op=True,
    )
    myreq.tensor = grad_input
    return None, None, myreq.dummy_tensor
