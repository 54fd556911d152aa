"""What stands for a tensor with a row per sample: shared tensors, and columns of several levels."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from recd_dist.tensors.expansion import expand_beside
from recd_dist.tensors.levels import Level, join_levels
from recd_dist.tensors.tracing import expected_size

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""For each function of torch how shared rows are given to it, ``(function, args, kwargs)``.

tensors/row_functions.py fills it; whoever imports tensors/shared.py has it filled.
"""


class RowTensor:
    """What shared tensors and columns have in common: functions of torch take them, and they are used like a tensor."""

    @property
    def level(self) -> Level | None:
        """The level of the rows; None for a row per sample."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor for which this one stands, [B, ...]."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """The dtype."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """The device."""
        raise NotImplementedError

    def expand_to(self, level: Level | None) -> Tensor:
        """The rows of a finer level, [rows, ...]; those of the samples where it is None."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one of its numbers."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0]

    def expand(self, *sizes: int) -> Tensor:
        """Gives every sample its row, [B, ...]; with sizes as ``Tensor.expand``."""
        rows = self.expand_to(None)
        return rows.expand(*sizes) if sizes else rows

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch calls this for a function that gets a shared tensor."""
        del cls, types
        return call(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"a shared tensor has no attribute '{name}', nor has a tensor")
        function = getattr(Tensor, name)
        if not callable(function):  # a property, such as mT
            return call(function.__get__, (self,), {})
        return lambda *args, **kwargs: call(function, (self, *args), kwargs)

    def __getitem__(self, index: Any) -> Any:
        return call(Tensor.__getitem__, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a shared tensor cannot be written to, because samples share its rows; use torch.where, or .expand() before"
        )

    def __neg__(self) -> Any:
        return call(operator.neg, (self,), {})


def _operator(function: Callable[..., Any], reflected: bool) -> Callable[[Any, Any], Any]:
    if reflected:
        return lambda self, other: call(function, (other, self), {})
    return lambda self, other: call(function, (self, other), {})


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne", "and", "or"):
    _function = getattr(operator, f"__{_name}__")
    setattr(RowTensor, f"__{_name}__", _operator(_function, reflected=False))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(RowTensor, f"__r{_name}__", _operator(_function, reflected=True))
RowTensor.__hash__ = object.__hash__  # type: ignore[method-assign]


Rows: TypeAlias = Tensor | RowTensor
"""What a model computes with: a tensor with a row per sample, plain or shared."""


class Shared(RowTensor):
    """A tensor whose rows are shared by samples.

    Args:
        values: [U, ...], the unique rows.
        level: which of them each sample has.
    """

    def __init__(self, values: Tensor, level: Level) -> None:
        if values.shape[0] != level.num_rows:
            raise ValueError(f"shared tensor: {values.shape[0]} rows are given for a level of {level.num_rows}")
        self.values, self._level = values, level

    @property
    def level(self) -> Level:
        """The level of the rows."""
        return self._level

    @staticmethod
    def of(values: Tensor, level: Level | None) -> Rows:
        """A shared tensor, or the values themselves where the level is that of the samples."""
        return values if level is None else Shared(values, level)

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor for which this one stands, [B, ...]."""
        return torch.Size((self.level.batch_size, *self.values.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.values.device

    def expand_to(self, level: Level | None) -> Tensor:
        """The rows of a finer level, [rows, ...]; those of the samples where it is None."""
        return self.level.expand_to(level, self.values)

    def __repr__(self) -> str:
        return f"Shared(rows={len(self.values)}, stands for {tuple(self.shape)}, {self.dtype})"


class Columns(RowTensor):
    """Matrices side by side whose rows are of several levels: what ``torch.cat(..., dim=1)`` of them gives.

    A linear layer is a sum over its input columns, so that it takes them as they are. A function that treats every
    number by itself takes them part by part. Any other gets one matrix, at the join of the levels.

    Args:
        parts: matrices [B, width], at least one of them shared.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        flat: list[Rows] = []
        for part in parts:
            flat += part.parts if isinstance(part, Columns) else [part]
        self.parts: tuple[Rows, ...] = tuple(flat)

    @property
    def level(self) -> Level | None:
        """The join of the parts' levels."""
        return join_levels(level_of(part) for part in self.parts)

    @property
    def shape(self) -> torch.Size:
        """The shape of the matrix for which this stands, [B, sum of the widths]."""
        return torch.Size((self.parts[0].shape[0], sum(p.shape[1] for p in self.parts)))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype."""
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.parts[0].device

    def map(self, function: Callable[[Rows], Any]) -> Self:
        """Puts the result of a function in the place of each part."""
        return type(self)([function(part) for part in self.parts])

    def by_level(self) -> list[tuple[Level | None, list[int]]]:
        """The levels of the parts, the coarsest first, and the numbers of their parts."""
        found: dict[Level | None, list[int]] = {}
        for number, part in enumerate(self.parts):
            found.setdefault(level_of(part), []).append(number)
        return sorted(found.items(), key=lambda item: _num_rows(item[0], self.shape[0]))

    def expand_to(self, level: Level | None) -> Tensor:
        """One matrix with a row per row of a finer level, or per sample where it is None."""
        return stand_beside(self.parts, level)

    def join(self) -> Rows:
        """One matrix at the join of the levels."""
        level = self.level
        return Shared.of(self.expand_to(level), level)

    def __repr__(self) -> str:
        return f"Columns({', '.join(map(repr, self.parts))})"


def _num_rows(level: Level | None, batch_size: int) -> int:
    """Of a level its rows; of the samples one more than there are, so that they come last."""
    return expected_size(batch_size) + 1 if level is None else expected_size(level.num_rows)


def level_of(rows: Rows) -> Level | None:
    """The level of a tensor; None for a plain one, which has a row per sample."""
    return rows.level if isinstance(rows, RowTensor) else None


def rows_at(level: Level | None, rows: Rows) -> Tensor:
    """The rows of a level that is at least as fine as the tensor's own, [rows, ...]."""
    return rows.expand_to(level) if isinstance(rows, RowTensor) else rows


def stand_beside(parts: Sequence[Rows], level: Level | None) -> Tensor:
    """Matrices side by side at a level that is at least as fine as that of each, [rows, sum of the widths].

    Raises:
        ValueError: the rows of a matrix are cut by the level.
    """
    values, indexes = list[Tensor](), list[Tensor | None]()
    for part in parts:
        own = level_of(part)
        values.append(part.values if isinstance(part, Shared) else rows_at(level, part))
        indexes.append(None if own is level or not isinstance(part, Shared) else part.level.rows_in(level))
    return expand_beside(values, indexes)


def expand(rows: Rows) -> Tensor:
    """A row per sample, [B, ...]; a plain tensor as it is."""
    return rows.expand_to(None) if isinstance(rows, RowTensor) else rows


def call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Calls a function of torch with shared tensors among its arguments.

    Raises:
        TypeError: the function writes into its first argument, whose rows are shared.
    """
    if (known := FUNCTIONS.get(func)) is not None:
        result = known(func, args, kwargs)
        if result is not NotImplemented:
            return result
    name = getattr(func, "__name__", str(func))
    if name.endswith("_") and not name.endswith("__"):
        raise TypeError(f"{name} would write into rows that samples share; use '{name[:-1]}', or .expand() before")
    return func(*_expanded(args), **{k: _expanded(v) for k, v in kwargs.items()})


def _expanded(argument: Any) -> Any:
    if isinstance(argument, RowTensor):
        return argument.expand_to(None)
    if isinstance(argument, tuple | list):
        return type(argument)(_expanded(a) for a in argument)
    return argument
