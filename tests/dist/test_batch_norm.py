"""BatchNorm over ranks is that of all their samples together, and its buffers are the same on all of them."""

import numpy as np
import torch
from torch import nn

from recd_dist.model.batch_norm import BatchNorm
from recd_dist.ranks.process_group import Ranks
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Shared, expand

INVERSES = [torch.tensor([0, 0, 0, 1, 1, 2], dtype=torch.int32), torch.tensor([0, 1, 2, 3, 4, 4], dtype=torch.int32)]
"""Rank 0 shares rows; on rank 1 too few are shared, so that it computes per sample."""


def rows_of(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(int(INVERSES[rank].max()) + 1, 3, generator=generator, dtype=torch.float64) * (rank + 2) + rank


def loss_of(normal: torch.Tensor, rank: int) -> torch.Tensor:
    weights = torch.arange(normal.numel(), dtype=normal.dtype).view(normal.shape) * (rank + 1)
    return (normal.sin() * weights).mean()


def _normalise(ranks: Ranks) -> list[np.ndarray]:
    rows, inverse = rows_of(ranks.rank).requires_grad_(), INVERSES[ranks.rank]
    norm, level = BatchNorm(3).double(), Levels().find(inverse, len(rows))
    assert (level is None) == (ranks.rank == 1)
    normal = expand(norm(rows[inverse.long()] if level is None else Shared(rows, level)))
    loss_of(normal, ranks.rank).backward()
    return [t.detach().numpy() for t in (normal, rows.grad, norm.weight.grad, norm.running_mean, norm.running_var)]


def test_two_ranks_are_one_batch(two_ranks) -> None:
    of_ranks = [[torch.from_numpy(array) for array in arrays] for arrays in two_ranks(_normalise)]
    leaves, norm = [rows_of(rank).requires_grad_() for rank in range(2)], nn.BatchNorm1d(3).double()
    expanded = [leaf[inverse.long()] for leaf, inverse in zip(leaves, INVERSES, strict=True)]
    wanted = norm(torch.cat(expanded)).split([6, 6])
    sum(loss_of(part, rank) for rank, part in enumerate(wanted)).backward()
    for rank, (normal, grad, _, mean, var) in enumerate(of_ranks):
        torch.testing.assert_close(normal, wanted[rank])
        torch.testing.assert_close(grad, leaves[rank].grad)
        torch.testing.assert_close(mean, norm.running_mean)
        torch.testing.assert_close(var, norm.running_var)
    torch.testing.assert_close(of_ranks[0][2] + of_ranks[1][2], norm.weight.grad)
    for one, other in zip(of_ranks[0][3:], of_ranks[1][3:], strict=True):
        assert torch.equal(one, other)
