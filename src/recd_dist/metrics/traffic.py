"""Counts the bytes that leave this rank through collectives, by direction.

It wraps the functions of ``torch.distributed`` that TorchRec calls. What a rank sends to itself is not counted. The
direction follows from the tensor that travels: integers are ids and lengths (``input``, or ``splits`` where the call
gives no split sizes), floats outside a backward pass are embedded rows (``output``), and floats inside a backward pass
are gradients (``backward``). Weights of ids are floats too; where TorchRec sends them on their own, the module that
calls shows that they are ``input``. Everything else (metrics, checkpoints) is ``other``. DDP's all-reduce runs in C++
and is not counted here; a formula gives its bytes.
"""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Sent = tuple[int, Tensor, bool]
"""The bytes that leave the rank, a tensor that shows their direction, and whether split sizes were given."""

DIRECTIONS = ("input", "output", "backward", "splits", "other")
_SENDS_KJTS = "torchrec.distributed.dist_data"
"""The module of TorchRec that sends ids, lengths and weights, and no vectors."""


class TrafficCounter:
    """Counts from ``install`` to ``uninstall``, or inside a ``with``.

    Attributes:
        sent_bytes: the bytes sent to other ranks since the last ``take``, by direction.
        num_collectives: the number of collectives called since the last ``take``.
    """

    def __init__(self) -> None:
        self.sent_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.num_collectives = 0
        self._originals: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """Wraps the collectives; a second call changes nothing."""
        if self._originals:
            return
        sizes: dict[str, Callable[..., Sent]] = {
            "all_to_all_single": _all_to_all_single,
            "reduce_scatter_tensor": _reduce_scatter_tensor,
            "reduce_scatter": _reduce_scatter,
            "all_gather_into_tensor": _all_gather_into_tensor,
            "all_gather": _all_gather,
            "all_reduce": _all_reduce,
        }
        for name, size in sizes.items():
            self._originals[name] = getattr(dist, name)
            setattr(dist, name, self._wrap(name, self._originals[name], size))

    def uninstall(self) -> None:
        """Puts torch's own functions back."""
        for name, function in self._originals.items():
            setattr(dist, name, function)
        self._originals.clear()

    def take(self) -> dict[str, int]:
        """Returns the bytes by direction since the last call, and starts to count from 0 again."""
        sent = self.sent_bytes
        self.sent_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.num_collectives = 0
        return sent

    def __enter__(self) -> "TrafficCounter":
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def _wrap(self, name: str, function: Callable[..., Any], size: Callable[..., Sent]) -> Callable[..., Any]:
        has_direction = name in (
            "all_to_all_single",
            "reduce_scatter_tensor",
            "reduce_scatter",
            "all_gather_into_tensor",
        )

        def count_and_call(*args: Any, **kwargs: Any) -> Any:
            num_bytes, tensor, has_splits = size(*args, **kwargs)
            has_ids = not tensor.is_floating_point() or sys._getframe(1).f_globals.get("__name__") == _SENDS_KJTS
            self.num_collectives += 1
            self.sent_bytes[_direction(has_ids, has_splits) if has_direction else "other"] += num_bytes
            return function(*args, **kwargs)

        return count_and_call


def _direction(has_ids: bool, has_splits: bool) -> str:
    """The direction; a backward pass that is running on this thread sends gradients, otherwise vectors are sent."""
    if has_ids:
        return "input" if has_splits else "splits"
    return "output" if torch._C._current_graph_task_id() == -1 else "backward"


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: list[int] | None = None,
    input_split_sizes: list[int] | None = None,
    group: Any = None,
    async_op: bool = False,
) -> Sent:
    """The rank sends every chunk but its own."""
    del output, output_split_sizes, async_op
    total = _num_bytes(input)
    world_size = dist.get_world_size(group)
    if not input_split_sizes:
        return total - total // world_size, input, False
    rows = sum(input_split_sizes)
    own = input_split_sizes[dist.get_rank(group)]
    return (total * (rows - own) // rows if rows else 0), input, True


def _reduce_scatter_tensor(output: Tensor, input: Tensor, op: Any = None, group: Any = None, **_: Any) -> Sent:
    """In a ring the rank sends every chunk but one."""
    del output, op
    world_size = dist.get_world_size(group)
    return _num_bytes(input) * (world_size - 1) // world_size, input, True


def _reduce_scatter(output: Tensor, input_list: list[Tensor], op: Any = None, group: Any = None, **_: Any) -> Sent:
    """The rank sends every chunk but its own; chunks may differ in size."""
    del op
    own = input_list[dist.get_rank(group)]
    return sum(map(_num_bytes, input_list)) - _num_bytes(own), output, True


def _all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Any = None, **_: Any) -> Sent:
    """The rank sends its tensor to every other rank."""
    del output_tensor
    return _num_bytes(input_tensor) * (dist.get_world_size(group) - 1), input_tensor, True


def _all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None, **_: Any) -> Sent:
    """The rank sends its tensor to every other rank, which receives a list."""
    del tensor_list
    return _num_bytes(tensor) * (dist.get_world_size(group) - 1), tensor, True


def _all_reduce(tensor: Tensor, op: Any = None, group: Any = None, **_: Any) -> Sent:
    """In a ring the rank sends every chunk but one, twice."""
    del op
    world_size = dist.get_world_size(group)
    return 2 * _num_bytes(tensor) * (world_size - 1) // world_size, tensor, True
