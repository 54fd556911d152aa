"""BatchNorm on unique rows is torch's on the expanded batch: values, gradients and running statistics."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.batches import assert_on_equals_off, heavy_tailed_inverse, random_batch, schema_of
from torch import nn

from recd_dist.model.batch_norm import BatchNorm
from recd_dist.model.dlrm import DLRM
from recd_dist.model.transformer import Transformer
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import Shared, expand

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def both(rows: torch.Tensor, inverse: torch.Tensor, num_steps: int = 2) -> None:
    """Trains both for some steps on the same rows, and compares everything; then both evaluate."""
    ours, torchs = BatchNorm(rows.shape[1]).double(), nn.BatchNorm1d(rows.shape[1]).double()
    for norm in (ours, torchs):
        nn.init.uniform_(norm.weight.data, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(norm.bias.data, generator=torch.Generator().manual_seed(2))
    level = Levels().find(inverse, len(rows))
    one, other = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    for training in [True] * num_steps + [False]:
        ours.train(training), torchs.train(training)
        given = Shared(one, level) if level is not None else one[inverse.long()]
        left, right = expand(ours(given)), torchs(other[inverse.long()])
        torch.testing.assert_close(left, right, **CLOSE)
        upstream = torch.randn(left.shape, generator=torch.Generator().manual_seed(3), dtype=left.dtype)
        grads = torch.autograd.grad(left, [one, *ours.parameters()], upstream)
        for mine, wanted in zip(
            grads, torch.autograd.grad(right, [other, *torchs.parameters()], upstream), strict=True
        ):
            torch.testing.assert_close(mine, wanted, **CLOSE)
        torch.testing.assert_close(ours.running_mean, torchs.running_mean, **CLOSE)
        torch.testing.assert_close(ours.running_var, torchs.running_var, **CLOSE)


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(0, 99), st.sampled_from([1.0, 3.0, 12.0]))
def test_it_is_that_of_the_expanded_batch(size: int, seed: int, mean: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    inverse = heavy_tailed_inverse(size, generator, mean)
    both(torch.randn(int(inverse.max()) + 1, 3, generator=generator, dtype=torch.float64) * 3 + 5, inverse)


def test_numbers_in_literals() -> None:
    """Row 0 is that of three samples: mean 1, variance 3."""
    norm = BatchNorm(1, eps=0.0, momentum=1.0)
    level = Levels().find(torch.tensor([0, 0, 0, 1], dtype=torch.int32), 2)
    out = norm(Shared(torch.tensor([[0.0], [4.0]]), level))
    torch.testing.assert_close(out.values, torch.tensor([[-1 / 3**0.5], [3**0.5]]))
    assert norm.running_mean.tolist() == [1.0]
    assert norm.running_var.tolist() == pytest.approx([4.0])


def test_large_means_lose_no_digits() -> None:
    """Sums of squares in float32 would be off in the first digit here."""
    rows = torch.tensor([[10000.0], [10001.0], [10002.0]])
    out = BatchNorm(1, eps=0.0)(rows)
    torch.testing.assert_close(out, torch.tensor([[-1.2247], [0.0], [1.2247]]), rtol=1e-3, atol=1e-3)


def test_under_autocast_it_computes_in_float32() -> None:
    rows = torch.randn(64, 8).mul(3).add(100)
    norm = BatchNorm(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(rows.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(norm(rows), BatchNorm(8)(rows))


SCHEMA = schema_of(user="u1:id:item u2:ids:item ud:dense", page="p1:id pd:dense", sample="c:id:item d:dense x:ids")


@pytest.mark.parametrize("of", [DLRM, Transformer])
def test_a_model_gives_the_same_with_deduplication_as_without(of: type[nn.Module]) -> None:
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(60, generator) for g in SCHEMA.dedup_groups}
    torch.manual_seed(0)
    model = of(SCHEMA, 4, bottom=(5, 6), over=(16, 8), batch_norm=True).double()
    names = of.sequence_features(SCHEMA)
    assert sum(isinstance(part, BatchNorm) for part in model.modules()) == 2
    assert_on_equals_off(model, SCHEMA, *random_batch(SCHEMA, inverses, 60, 4, names))
