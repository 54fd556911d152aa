"""bf16 and micro-batches: what changes, and what does not."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.batches import heavy_tailed_inverse, random_batch, schema_of
from torch import Tensor, nn

from recd_dist.job.job import Job
from recd_dist.model.dlrm import DLRM
from recd_dist.model.transformer import Transformer
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import build
from recd_dist.train.dense_computation import DenseComputation
from recd_dist.train.training import shard_model, start_pipeline

SCHEMA = schema_of(user="u1:id:item u2:ids:item ud:dense", page="p1:id pd:dense", sample="c:id:item d:dense x:ids")


@pytest.fixture
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


def gradients(of: type[nn.Module], computation: DenseComputation, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradients of inputs and weights; the loss joins all samples, as a softmax over a request does."""
    generator = torch.Generator().manual_seed(0)
    inverses = {g: heavy_tailed_inverse(61, generator) for g in SCHEMA.dedup_groups}
    torch.manual_seed(0)
    model = of(SCHEMA, 4, bottom=(5, 6), over=(16, 8), dropout=0.0).to(dtype)
    embedded, dense, leaves = random_batch(SCHEMA, inverses, 61, 4, of.sequence_features(SCHEMA))
    cast = {g: type(x)(x.values.to(dtype), x.inverse, x.keys, x.dims) for g, x in embedded.pooled.items()}
    lists = {n: x.with_values(x.values.to(dtype)) for n, x in embedded.sequences.items()}
    plain = {g: type(x)(x.values.to(dtype), x.inverse) for g, x in dense.items()}
    logits = computation.logits(model, type(embedded)(cast, lists), plain)
    loss = -logits.squeeze(1).log_softmax(0)[::3].mean()
    return logits.detach(), list(torch.autograd.grad(loss, [*leaves, *model.parameters()]))


@pytest.mark.parametrize("num_parts", [2, 5, 61, 100])
@pytest.mark.parametrize("of", [DLRM, Transformer])
def test_micro_batches_change_nothing(of: type[nn.Module], num_parts: int) -> None:
    whole, wanted = gradients(of, DenseComputation(), torch.float64)
    logits, grads = gradients(of, DenseComputation(micro_batches=num_parts), torch.float64)
    torch.testing.assert_close(logits, whole, rtol=1e-12, atol=1e-12)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_dropout_is_the_same_when_a_part_is_computed_again() -> None:
    """Otherwise gradients would be those of other units than the ones that made the loss."""
    layer = nn.Sequential(nn.Linear(1, 50), nn.Dropout(0.5))
    layer[0].weight.data.fill_(1.0), layer[0].bias.data.zero_()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, embedded: Any, dense: Any) -> Tensor:
            return self.layer(dense["sample"].values)

    from recd_dist.tensors.grouped import Embedded, Grouped

    rows = {"sample": Grouped(torch.ones(8, 1))}
    logits = DenseComputation(micro_batches=4).logits(Model(), Embedded({}, {}), rows)
    logits.sum().backward()
    torch.testing.assert_close(layer[0].weight.grad.squeeze(1), logits.detach().sum(0))


def test_only_one_part_is_in_memory() -> None:
    """The numbers that autograd keeps between forward and backward: the inputs of the parts, and no activations."""

    def kept(num_parts: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            gradients(Transformer, DenseComputation(micro_batches=num_parts), torch.float32)
        return sum(sizes)

    assert kept(4) < 0.5 * kept(1)


@pytest.mark.parametrize("of", [DLRM, Transformer])
def test_bf16_is_close_and_its_loss_is_float32(of: type[nn.Module]) -> None:
    exact, wanted = gradients(of, DenseComputation(), torch.float32)
    logits, grads = gradients(of, DenseComputation("bf16"), torch.float32)
    assert logits.dtype == torch.float32
    assert 0 < (logits - exact).norm() < 0.05 * exact.norm()
    assert [one.dtype for one in grads] == [other.dtype for other in wanted]
    one, other = (torch.cat([grad.flatten() for grad in of_side]) for of_side in (grads, wanted))
    assert (one - other).norm() < 0.2 * other.norm()


def losses(job: Job, ranks: Ranks, num: int) -> tuple[list[float], dict[str, Any]]:
    model, optimizer, _ = shard_model(job, ranks)
    pipeline, loader = start_pipeline(model, optimizer, ranks.device), build.build_loader(
        job, ranks, job.transforms.fit(job.table)
    )  # fmt: skip
    batches = iter(loader)
    found = [float(pipeline.progress(batches).loss) for _ in range(num)]
    loader.close()
    return found, model.state_dict()


@pytest.mark.parametrize(("model", "dedup"), [("model=sequence", "dedup=on"), ("model=dlrm", "dedup=off")])
def test_a_job_in_micro_batches_comes_to_the_same(
    alone: Ranks, checked: Callable[..., Job], model: str, dedup: str
) -> None:
    common = [model, dedup, "batch_size=96", "optim=sgd"]
    whole, state = losses(checked(*common), alone, 6)
    parts, other = losses(checked(*common, "micro_batches=5"), alone, 6)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    for name, value in state.items():
        one, two = (v.local_shards()[0].tensor if hasattr(v, "local_shards") else v for v in (value, other[name]))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_job_in_bf16_learns_the_same_and_keeps_float32(alone: Ranks, checked: Callable[..., Job]) -> None:
    common = ["model=sequence", "batch_size=96", "optim=sgd"]
    exact, _ = losses(checked(*common), alone, 8)
    found, state = losses(checked(*common, "precision=bf16"), alone, 8)
    np.testing.assert_allclose(found, exact, rtol=0.01)
    assert found != exact
    assert {v.dtype for v in state.values()} == {torch.float32}
