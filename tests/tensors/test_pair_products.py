"""Products of pairs of vectors, and rows laid side by side: their values and gradients are those of torch."""

import pytest
import torch

from recd_dist.tensors import pair_products
from recd_dist.tensors.expansion import expand_beside
from recd_dist.tensors.pair_products import PairPlaces, multiply_pairs


@pytest.mark.parametrize(("num_own", "num_vectors"), [(4, 4), (2, 5), (1, 3), (3, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_and_gradients_are_those_of_torch(num_own: int, num_vectors: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(7, num_vectors, 8, dtype=dtype, requires_grad=True)
    pairs = [(i, j) for i in range(num_own) for j in range(i + 1, num_vectors)][::-1]
    i, j = (torch.tensor(side) for side in zip(*pairs, strict=True))
    places = PairPlaces.of(pairs, num_own, num_vectors, vectors.device)
    gradient = torch.randn(7, len(pairs), dtype=dtype)

    (found := multiply_pairs(vectors, places)).backward(gradient)
    grad, vectors.grad = vectors.grad, None
    (wanted := (vectors[:, i] * vectors[:, j]).sum(2)).backward(gradient)

    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad, vectors.grad, rtol=tolerance, atol=tolerance)


def test_gradients_are_laid_out_on_a_device_as_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    grad, pair_at = torch.randn(3, 2), torch.tensor([2, 0, 1, 0, 2, 2])
    on_host = pair_products._lay_out(grad, pair_at)
    monkeypatch.setattr(pair_products, "is_on_host", lambda _: False)

    assert torch.equal(pair_products._lay_out(grad, pair_at), on_host)
    assert torch.equal(on_host[0], torch.stack([z := torch.tensor(0.0), grad[0, 0], grad[0, 1], grad[0, 0], z, z]))


@pytest.mark.parametrize("dtypes", [(torch.float64,) * 3, (torch.float32, torch.float64, torch.float32)])
def test_rows_side_by_side(dtypes: tuple[torch.dtype, ...]) -> None:
    torch.manual_seed(0)
    sizes, widths = (3, 6, 2), (4, 2, 5)
    values = [torch.randn(n, w, dtype=d, requires_grad=True) for n, w, d in zip(sizes, widths, dtypes, strict=True)]
    rows = [torch.tensor([2, 0, 0, 2, 1, 1], dtype=torch.int32), None, torch.tensor([0, 0, 1, 1, 1, 0])]

    found = expand_beside(values, rows)
    gradient = torch.randn_like(found)
    found.backward(gradient)
    grads = [v.grad for v in values]
    for v in values:
        v.grad = None
    wanted = torch.cat([v if r is None else v[r.long()] for v, r in zip(values, rows, strict=True)], 1)
    wanted.backward(gradient)

    assert torch.equal(found, wanted)
    for grad, v in zip(grads, values, strict=True):
        torch.testing.assert_close(grad, v.grad)
