"""Functions of torch on shared tensors: the numbers of the expanded tensors, computed on as few rows as can be."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recd_dist.tensors.levels import Level, Levels
from recd_dist.tensors.shared import Columns, Rows, RowTensor, Shared, expand, level_of

SESSION = (0, 0, 0, 0, 1, 1, 1, 1)
REQUEST = (0, 0, 1, 1, 2, 2, 3, 3)
PAGE = (0, 0, 0, 1, 1, 1, 1, 1)


def levels() -> tuple[Level, Level, Level]:
    found = Levels()
    a, b, c = (found.find(torch.tensor(i, dtype=torch.int32), max(i) + 1) for i in (SESSION, REQUEST, PAGE))
    assert a is not None
    assert b is not None
    assert c is not None
    return a, b, c


def rows_of(level: Level, *shape: int) -> Shared:
    generator = torch.Generator().manual_seed(level.num_rows)
    values = torch.rand(level.num_rows, *shape, generator=generator, dtype=torch.float64) + 0.5
    return Shared(values.requires_grad_(), level)


ON_UNIQUE_ROWS = {
    "relu": torch.relu,
    "relu in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "arithmetic": lambda x: (2 * x - 1) / (x + 3) ** 2 - (1 - x) + 2**x + -x,
    "comparison": lambda x: torch.where(x > 0.9, x, x.square()),
    "a constant row": lambda x: x * torch.arange(6.0) + torch.ones(1, 6),
    "linear": nn.Linear(6, 3, dtype=torch.float64),
    "matmul": lambda x: x @ torch.ones(6, 2, dtype=torch.float64),
    "matmul from the left": lambda x: torch.ones(4, 2, dtype=torch.float64) @ x.unflatten(1, (2, 3)),
    "layer norm": nn.LayerNorm(6, dtype=torch.float64),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "softmax": lambda x: x.softmax(-1),
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean(dim=1, keepdim=True),
    "norm": lambda x: x.norm(dim=1),
    "max": lambda x: x.max(1).values if isinstance(x, Tensor) else x.max(1)[0],
    "view": lambda x: x.view(8, 2, 3),
    "reshape of all": lambda x: x.reshape(-1, 3, 2),
    "flatten": lambda x: x.unflatten(1, (2, 3)).flatten(1),
    "transpose": lambda x: x.view(8, 2, 3).transpose(1, 2),
    "mT": lambda x: x.view(8, 2, 3).mT,
    "permute": lambda x: x.view(8, 2, 3).permute(0, 2, 1),
    "columns": lambda x: x[:, 1:4],
    "last": lambda x: x[..., 2],
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([2, 4], dim=1)[0],
    "stack": lambda x: torch.stack([x, x + 1], 1),
    "cat": lambda x: torch.cat([x, x + 1], 1),
    "cat of three dimensions": lambda x: torch.cat([x.view(8, 2, 3), x.view(8, 2, 3)], 2),
    "pairs": lambda x: torch.bmm(x.view(8, 3, 2), x.view(8, 3, 2).mT),
    "einsum": lambda x: torch.einsum("bi,bi->b", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.view(8, 1, 3, 2)] * 3),
    "no dropout": lambda x: F.dropout(x, 0.5, training=False),
    "batch norm": nn.BatchNorm1d(6, dtype=torch.float64),
    "batch norm in use": nn.BatchNorm1d(6, dtype=torch.float64).eval(),
    "float": lambda x: x.float(),
    "rows against all samples": lambda x: x @ x.T,
}

EXPANDED = {
    "mean over samples": lambda x: x.mean(0),
    "sum of all": lambda x: x.sum(),
    "loss": lambda x: F.binary_cross_entropy_with_logits(x.sum(1), torch.ones(8, dtype=torch.float64)),
    "flatten all": lambda x: x.flatten(),
    "one sample": lambda x: x[3],
    "a mask": lambda x: x[torch.arange(8) > 5],
    "cat of samples": lambda x: torch.cat([x, x]),
    "cumsum of samples": lambda x: x.cumsum(0),
    "roll": lambda x: x.roll(1, 0),
}


@pytest.mark.parametrize("function", ON_UNIQUE_ROWS.values(), ids=ON_UNIQUE_ROWS.keys())
def test_on_unique_rows(function: object) -> None:
    x = rows_of(levels()[0], 6)
    compare(function, x, is_shared=True)


@pytest.mark.parametrize("function", EXPANDED.values(), ids=EXPANDED.keys())
def test_what_mixes_samples_gets_all_of_them(function: object) -> None:
    compare(function, rows_of(levels()[0], 6), is_shared=False)


def compare(function: object, x: Shared, is_shared: bool) -> None:
    torch.manual_seed(0)
    shared = function(x)  # type: ignore[operator]
    torch.manual_seed(0)
    wanted = function(x.expand())  # type: ignore[operator]
    assert isinstance(shared, RowTensor) == is_shared
    assert shared.shape == wanted.shape
    assert shared.dtype == wanted.dtype
    torch.testing.assert_close(expand(shared), wanted)
    if wanted.dtype == torch.float64:
        upstream = torch.rand(wanted.shape, dtype=torch.float64)
        (one,) = torch.autograd.grad(expand(shared), x.values, upstream, retain_graph=True)
        (other,) = torch.autograd.grad(wanted, x.values, upstream)
        torch.testing.assert_close(one, other)


def test_several_levels_meet_at_the_coarsest_join() -> None:
    session, request, page = levels()
    x, y, z = rows_of(session, 3), rows_of(request, 3), rows_of(page, 3)
    own = torch.rand(8, 3, dtype=torch.float64)
    assert level_of(x * y + x) is request
    assert level_of(x.view(8, 1, 3) @ y.view(8, 3, 1)) is request
    meet = x + z
    assert isinstance(meet, Shared)
    assert meet.level.num_rows == 3
    assert isinstance(x * own, Tensor)
    torch.testing.assert_close(own - x, own - x.expand())
    torch.testing.assert_close(expand(x * y + z), x.expand() * y.expand() + z.expand())


def test_a_linear_layer_takes_columns_where_they_are_unique() -> None:
    session, request, _ = levels()
    own = torch.rand(8, 2, dtype=torch.float64, requires_grad=True)
    parts: list[Rows] = [rows_of(request, 3), own, rows_of(session, 2), rows_of(session, 1) * 2]
    columns = torch.cat(parts, 1)  # type: ignore[arg-type]
    assert isinstance(columns, Columns)
    layer = nn.Linear(8, 5, dtype=torch.float64)
    wanted = layer(torch.cat([expand(p) for p in parts], 1))
    torch.testing.assert_close(layer(columns), wanted)
    torch.testing.assert_close(columns @ layer.weight.T + layer.bias, wanted)
    torch.testing.assert_close(expand(layer(torch.relu(columns))), wanted)
    torch.testing.assert_close(expand(columns), torch.cat([expand(p) for p in parts], 1))
    assert columns.shape == (8, 8)
    assert level_of(layer(torch.cat([parts[0], parts[2], rows_of(session, 3)], 1))) is request  # type: ignore[arg-type, list-item]


def test_batch_norm_counts_each_row_as_often_as_samples_have_it() -> None:
    level = Levels().find(torch.tensor([0, 0, 0, 0, 0, 1, 2, 2], dtype=torch.int32), 3)
    assert level is not None
    x = rows_of(level, 4)
    one, other = nn.BatchNorm1d(4, dtype=torch.float64), nn.BatchNorm1d(4, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(expand(one(x)), other(x.expand()))
    torch.testing.assert_close(one.state_dict(), other.state_dict())
    assert not torch.allclose(one.running_mean, torch.zeros(4, dtype=torch.float64))


def test_dropout_draws_for_each_sample() -> None:
    x = rows_of(levels()[0], 50)
    torch.manual_seed(0)
    dropped = F.dropout(x, 0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(dropped, F.dropout(x.expand(), 0.5))


def test_writing_is_refused() -> None:
    x = rows_of(levels()[0], 3)
    with pytest.raises(TypeError, match=r"add_ would write into rows that samples share; use 'add'"):
        x.add_(1)
    with pytest.raises(TypeError, match=r"cannot be written to"):
        x[:, 0] = 1
    with pytest.raises(AttributeError, match="no attribute 'wrold'"):
        _ = x.wrold
    with pytest.raises(ValueError, match="2 rows are given for a level of 4"):
        Shared(x.values, levels()[1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12), st.data())
def test_any_expression_of_any_levels(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    pairs = [p for p in pairs for _ in range(3)]
    found = Levels()
    tensors: list[Rows] = [torch.rand(len(pairs), 4, dtype=torch.float64)]
    for numbers in zip(*pairs, strict=True):
        level = found.find(torch.tensor(numbers, dtype=torch.int32), 4)
        if level is not None:
            tensors.append(rows_of(level, 4))
    layer = nn.Linear(8, 4, dtype=torch.float64)
    operations = {
        "add": torch.add,
        "mul": torch.mul,
        "cat": lambda a, b: layer(torch.cat([a, b], 1)),
        "dot": lambda a, b: a * torch.einsum("bi,bi->b", a, b).unsqueeze(1),
        "norm": lambda a, b: F.layer_norm(a, (4,)) - torch.tanh(b),
    }
    one = other = data.draw(st.sampled_from(tensors))
    for _ in range(data.draw(st.integers(1, 4))):
        operation, right = (
            operations[data.draw(st.sampled_from(sorted(operations)))],
            data.draw(st.sampled_from(tensors)),
        )
        one, other = operation(one, right), operation(expand(other), expand(right))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(expand(one), expand(other))
