"""Each patch of TorchRec is still needed and does what it says; a failure means that upstream changed."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed import comm_ops
from torchrec.distributed.dist_data import PooledEmbeddingsReduceScatter
from torchrec.distributed.train_pipeline.pipeline_context import TrainPipelineContext
from torchrec.distributed.train_pipeline.postproc import PipelinedPostproc
from torchrec.distributed.train_pipeline.types import CallArgs

from recd_dist.embedding import torchrec_patches
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.ranks.process_group import Ranks

WIDTH = 4


def reduce_scatter(ranks: Ranks, rows: list[int], patched: bool) -> dict[str, object]:
    """Each rank's partial sums [sum of rows, WIDTH] -> its rows [rows[rank], WIDTH], and the gradient of the input."""
    torchrec_patches.apply() if patched else torchrec_patches.remove()
    partial = (torch.arange(sum(rows) * WIDTH).view(-1, WIDTH) * (1.0 + ranks.rank)).requires_grad_()
    with TrafficCounter() as counter:
        out = PooledEmbeddingsReduceScatter(dist.GroupMember.WORLD)(partial, rows).wait()
        (out * (1.0 + ranks.rank)).sum().backward()
        sent = counter.take()
    return {"out": out.tolist(), "grad": partial.grad.tolist(), "sent": sent}


def stock_backward(ranks: Ranks, rows: list[int]) -> str:
    """The error of stock TorchRec where ranks have different numbers of rows."""
    torchrec_patches.remove()
    try:
        reduce_scatter(ranks, rows, patched=False)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@pytest.mark.parametrize("rows", [[3, 3], [2, 5], [0, 4], [0, 0]])
def test_the_sum_and_its_gradient(two_ranks, rows: list[int]) -> None:
    results = two_ranks(reduce_scatter, rows, True)
    whole = torch.arange(sum(rows) * WIDTH, dtype=torch.float32).view(-1, WIDTH) * 3.0
    for result, want in zip(results, whole.split(rows), strict=True):
        assert result["out"] == want.tolist()
    division = 2.0 if comm_ops.get_gradient_division() else 1.0
    want = torch.cat([torch.full((rows[0], WIDTH), 1.0), torch.full((rows[1], WIDTH), 2.0)]) / division
    assert [r["grad"] for r in results] == [want.tolist()] * 2


def test_upstream_row_wise_backward_still_fails(two_ranks) -> None:
    """comm_ops.py:2667: gloo's all_gather of unequal sizes. When this test fails, patch 1 can go."""
    errors = two_ranks(stock_backward, [2, 5])
    assert all("no error" not in error for error in errors), errors


def test_row_wise_sends_no_more_than_the_formula(two_ranks) -> None:
    """Each rank receives its rows from the other and sends gradients back: 7 * WIDTH floats over both ranks."""
    sent = [r["sent"] for r in two_ranks(reduce_scatter, [2, 5], True)]
    assert sum(s["output"] for s in sent) == sum(s["backward"] for s in sent) == 7 * WIDTH * 4


def test_nested_modules_are_put_back() -> None:
    """After detach of 1.6.1 the pipelined module is in its place, and its own is at the root, under a dotted name."""
    model, rows = nn.Module(), nn.Linear(1, 1)
    model.embeddings = nn.Module()
    model.embeddings.rows = PipelinedPostproc(
        rows, "embeddings.rows", CallArgs([], {}), TrainPipelineContext(), default_stream=None, dist_stream=None
    )
    setattr(model, "embeddings.rows", rows)
    torchrec_patches.restore_postprocs(model)

    assert model.embeddings.rows is rows
    assert list(dict(model.named_children())) == ["embeddings"]


def test_unknown_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrec_patches.remove()
    monkeypatch.setattr(torchrec_patches.torchrec, "__version__", "2.0.1")
    with pytest.raises(torchrec_patches.ConfigError, match=r"torchrec 2.0.1: .* 1.6 to 1.9"):
        torchrec_patches.apply()
