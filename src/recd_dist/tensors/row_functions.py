"""Which functions of torch treat rows one by one, and how they are computed on shared rows.

Each handler gets ``(function, args, kwargs)`` as torch's ``__torch_function__`` has them, and returns NotImplemented
for arguments with which the function does not keep rows apart; the caller then expands.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recd_dist.tensors.column_products import linear_of_columns
from recd_dist.tensors.levels import Level, join_levels
from recd_dist.tensors.row_tensors import (
    FUNCTIONS,
    Columns,
    RowTensor,
    Shared,
    level_of,
    rows_at,
)

Handler = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]

ELEMENTWISE = """
abs add addcdiv addcmul atan2 bfloat16 bitwise_and bitwise_or bitwise_xor celu clamp clip clone contiguous cos detach
div divide double elu eq erf exp expm1 float floor fmod ge gelu gt half hardsigmoid hardswish hardtanh isfinite isinf
isnan le leaky_relu lerp log log10 log1p log2 logical_and logical_not logical_or logsigmoid lt masked_fill maximum
minimum mish
mul multiply nan_to_num ne neg negative positive pow prelu reciprocal relu relu_ relu6 remainder round rsqrt rsub selu
sigmoid sign silu sin softplus softsign sqrt square sub subtract tanh tanhshrink threshold to true_divide truediv where
xlogy and or
"""
"""Functions that treat every number by itself."""

REDUCTIONS = """
all amax amin any argmax argmin argsort cumsum diff flip log_softmax logsumexp max mean min norm prod softmax softmin
sort std sum topk var
"""
"""Functions along dimensions that are named by an argument ``dim``: the second one, but for norm."""


def handles(names: str) -> Callable[[Handler], Handler]:
    """Registers a handler for functions by name, wherever torch has them: function, method and operator."""

    def register(handler: Handler) -> Handler:
        for name in names.split():
            for place in (torch, Tensor, F, torch.special, operator):
                forms = (name, f"__{name}__", f"__r{name}__") if place in (Tensor, operator) else (name,)
                for form in forms:
                    if callable(function := getattr(place, form, None)):
                        FUNCTIONS[function] = handler
        return handler

    return register


def _first(args: Sequence[Any]) -> Shared | None:
    """The first argument as a shared tensor; None where it is something else, or where another argument is shared."""
    if any(isinstance(a, RowTensor) for a in args[1:]) or not args:
        return None
    first = args[0].join() if isinstance(args[0], Columns) else args[0]
    return first if isinstance(first, Shared) else None


def _wrap(result: Any, level: Level | None) -> Any:
    """Makes shared tensors of the tensors of a result."""
    if isinstance(result, Tensor):
        return Shared.of(result, level)
    if isinstance(result, tuple | list):
        parts = [_wrap(r, level) for r in result]
        return parts if isinstance(result, list) else tuple(parts)
    return result


def _on_values(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Calls a function on the rows of its first argument, which alone is shared."""
    first = _first(args)
    if first is None or any(isinstance(v, RowTensor) for v in kwargs.values()):
        return NotImplemented
    return _wrap(func(first.values, *args[1:], **kwargs), first.level)


def _is_row(argument: Any, ndim: int, batch_size: int) -> bool:
    """Whether a tensor has a row per sample; one with fewer dimensions is broadcast, as in ordinary torch."""
    if isinstance(argument, RowTensor):
        return True
    return isinstance(argument, Tensor) and argument.dim() == ndim and argument.shape[0] == batch_size > 1


def _at_join(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], ndim: int | None = None) -> Any:
    """Calls a function that treats rows one by one at the join of its arguments' levels.

    Args:
        func: the function.
        args: its arguments; those that are tensors of as many dimensions, with a row per sample, count as rows.
        kwargs: named arguments, too.
        ndim: the number of dimensions of rows; by default the greatest of the arguments.
    """
    given = [*args, *kwargs.values()]
    shared = [a for a in given if isinstance(a, RowTensor)]
    most = max(a.dim() for a in given if isinstance(a, Tensor | RowTensor)) if ndim is None else ndim
    if any(a.dim() != most for a in shared):
        return NotImplemented
    batch_size = shared[0].shape[0]
    rows = [a for a in given if _is_row(a, most, batch_size)]
    level = join_levels(level_of(r) for r in rows)

    def place(argument: Any) -> Any:
        return rows_at(level, argument) if isinstance(argument, RowTensor) else argument

    return _wrap(func(*map(place, args), **{k: place(v) for k, v in kwargs.items()}), level)


@handles(ELEMENTWISE)
def _elementwise(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if isinstance(args[0], Columns) and not any(
        isinstance(a, Tensor | RowTensor) for a in (*args[1:], *kwargs.values())
    ):
        return args[0].map(lambda part: func(part, *args[1:], **kwargs))
    return _at_join(func, args, kwargs)


@handles("linear")
def _linear(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    rows, weight, bias = given["input"], given["weight"], given.get("bias")
    if isinstance(rows, Columns):
        return linear_of_columns(rows, weight, bias)
    if not isinstance(rows, Shared) or isinstance(weight, RowTensor):
        return NotImplemented
    return Shared(func(rows.values, weight, bias), rows.level)


@handles("cat concat concatenate")
def _cat(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    parts, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
    ndim = parts[0].dim()
    if dim % ndim == 0 or any(p.dim() != ndim for p in parts):
        return NotImplemented
    if ndim == 2:
        columns = Columns(parts)
        return columns.join() if len(columns.by_level()) == 1 else columns
    level = join_levels(level_of(p) for p in parts)
    return Shared.of(func([rows_at(level, p) for p in parts], dim), level)


@handles("stack")
def _stack(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    parts, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if dim % (parts[0].dim() + 1) == 0:
        return NotImplemented
    level = join_levels(level_of(p) for p in parts)
    return Shared.of(func([rows_at(level, p) for p in parts], dim), level)


@handles(REDUCTIONS)
def _along_dims(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    first = _first(args)
    is_norm = getattr(func, "__name__", "") == "norm"
    dims = kwargs.get("dim", kwargs.get("dims"))
    if dims is None and not is_norm and len(args) > (1 if "topk" not in str(func) else 2):
        dims = args[1]
    if first is None or not _are_inner(dims, first.dim()):
        return NotImplemented
    return _wrap(func(first.values, *args[1:], **kwargs), first.level)


def _are_inner(dims: Any, ndim: int) -> bool:
    """Whether dimensions are given, and the rows are not among them."""
    numbers = [dims] if isinstance(dims, int) and not isinstance(dims, bool) else dims
    if not isinstance(numbers, Iterable) or isinstance(numbers, Tensor | RowTensor):
        return False
    listed = list(numbers)
    return bool(listed) and all(isinstance(d, int) and d % ndim for d in listed)


@handles("normalize")
def _normalize(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 1)
    return _on_values(func, args, kwargs) if _are_inner(dim, args[0].dim()) else NotImplemented


@handles("layer_norm rms_norm")
def _norm_of_vectors(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    return _on_values(func, args, kwargs) if len(shape) < args[0].dim() else NotImplemented


@handles("group_norm embedding one_hot glu")
def _of_rows(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return _on_values(func, args, kwargs)


@handles("dropout feature_dropout alpha_dropout")
def _dropout(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Each sample draws numbers of its own, as without deduplication."""
    del func
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
    return args[0] if not training or p == 0 else NotImplemented


@handles("flatten unflatten unsqueeze squeeze narrow select index_select split chunk unbind")
def _inner_shape(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Functions whose dimension, the second argument but for split and chunk, must not be that of the rows."""
    name = getattr(func, "__name__", "")
    place = 2 if name in ("split", "chunk") else 1
    dim = kwargs.get("dim", kwargs.get("start_dim", args[place] if len(args) > place else 0))
    ndim = args[0].dim() + (1 if name == "unsqueeze" else 0)
    return _on_values(func, args, kwargs) if _are_inner(dim, ndim) else NotImplemented


@handles("transpose swapaxes permute movedim")
def _reorder(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    first = _first(args)
    if first is None or kwargs:
        return NotImplemented
    dims = args[1] if isinstance(args[1], tuple | list) else args[1:]
    permutes = getattr(func, "__name__", "") == "permute"
    keeps = dims[0] % len(dims) == 0 if permutes else _are_inner(dims, first.dim())
    return Shared(func(first.values, *args[1:]), first.level) if keeps else NotImplemented


def _mt(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return _on_values(func, args, kwargs) if args[0].dim() > 2 else NotImplemented


FUNCTIONS[Tensor.mT.__get__] = _mt  # type: ignore[attr-defined]


@handles("reshape view")
def _reshape(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A shape that begins with the number of samples, or with -1 where the other numbers hold exactly one row."""
    first = _first(args)
    if first is None or kwargs or isinstance(args[1], torch.dtype):
        return NotImplemented
    shape = list(args[1]) if isinstance(args[1], tuple | list) else list(args[1:])
    size = first.values[:1].numel() if first.values.shape[0] else 0
    rest = torch.Size(shape[1:]).numel() if all(n >= 0 for n in shape[1:]) else None
    if not first.values.shape[0] or (shape[0] != first.shape[0] and not (shape[0] == -1 and rest == size)):
        return NotImplemented
    return Shared(func(first.values, (first.values.shape[0], *shape[1:])), first.level)


@handles("getitem")
def _getitem(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An index that takes all rows: ``x[:, ...]``, or ``x[..., i]`` of more than one dimension."""
    index = args[1]
    if not isinstance(index, tuple) or not index or any(isinstance(i, RowTensor) for i in index):
        return NotImplemented
    takes_all = isinstance(index[0], slice) and index[0] == slice(None)
    used = sum(i is not None and i is not Ellipsis for i in index)
    if not takes_all and not (index[0] is Ellipsis and used < args[0].dim()):
        return NotImplemented
    return _on_values(func, args, kwargs)


@handles("bmm baddbmm scaled_dot_product_attention")
def _batched(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    p = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
    return _at_join(func, args, kwargs) if not isinstance(p, int | float) or p == 0 else NotImplemented


@handles("matmul")
def _matmul(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    left, right = args[:2]
    if isinstance(left, Columns) and isinstance(right, Tensor) and right.dim() == 2:
        return linear_of_columns(left, right.T)
    if isinstance(right, RowTensor):
        return _at_join(func, args, kwargs) if right.dim() > 2 and left.dim() in (2, right.dim()) else NotImplemented
    return _on_values(func, args, kwargs) if right.dim() <= 2 else _at_join(func, args, kwargs)


@handles("einsum")
def _einsum(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Where all shared operands begin with one letter, as the result does, and the letter stands nowhere else."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return NotImplemented
    inputs, output = equation.replace(" ", "").split("->")
    terms = inputs.split(",")
    letter = output[:1]
    rows = [(t, o) for t, o in zip(terms, operands, strict=True) if t[:1] == letter]
    others = [(t, o) for t, o in zip(terms, operands, strict=True) if t[:1] != letter]
    repeated = output.count(letter) != 1 or any(t.count(letter) != 1 for t, _ in rows)
    if not letter or repeated or any(letter in t or isinstance(o, RowTensor) for t, o in others):
        return NotImplemented
    level = join_levels(level_of(o) for _, o in rows)
    placed = [rows_at(level, o) if t[:1] == letter else o for t, o in zip(terms, operands, strict=True)]
    return Shared.of(func(equation, *placed, **kwargs), level)


@handles("batch_norm")
def _batch_norm(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The statistics of the expanded batch: each row counts as often as samples have it."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    rows = given.pop("input")
    rows = rows.join() if isinstance(rows, Columns) else rows
    if not isinstance(rows, Shared) or rows.dim() != 2:
        return NotImplemented
    if not given.pop("training", False):
        return Shared(func(rows.values, training=False, **given), rows.level)
    shares = (rows.level.num_samples / rows.level.batch_size).to(rows.dtype)
    mean = shares @ rows.values
    var = shares @ (rows.values - mean).square()
    if (running := given.get("running_mean")) is not None:
        momentum, size = given.get("momentum", 0.1), rows.level.batch_size
        with torch.no_grad():
            running.lerp_(mean.detach().to(running.dtype), momentum)
            unbiased = var.detach() * (size / (size - 1)) if size > 1 else var.detach()
            given["running_var"].lerp_(unbiased.to(running.dtype), momentum)
    normal = (rows.values - mean) * torch.rsqrt(var + given.get("eps", 1e-5))
    if (weight := given.get("weight")) is not None:
        normal = torch.addcmul(given["bias"], normal, weight)
    return Shared(normal, rows.level)
