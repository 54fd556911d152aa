"""The tensors of a checkpoint on one process, one after the other: to compare two of them, and for other programs."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from recd_dist.checkpoint.safe_storage import SafeReader, TensorsOnlyPlanner, read_metadata
from recd_dist.checkpoint.writing import first_reason
from recd_dist.errors import DataError
from recd_dist.table.location import Location


class StoredTensors:
    """A checkpoint's tensors by name, read when they are asked for; the whole of one is in memory at a time.

    Args:
        path: a checkpoint's directory, here or in a store.

    Attributes:
        kinds: shape and dtype of each tensor, by name, sorted.

    Raises:
        DataError: its metadata cannot be read.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        known: dict[str, Any] = read_metadata(path).state_dict_metadata
        self.kinds = {
            name: (tuple(value.size), value.properties.dtype)
            for name, value in sorted(known.items())
            if hasattr(value, "chunks")
        }

    def num_bytes(self, name: str) -> int:
        """The size of a tensor."""
        shape, dtype = self.kinds[name]
        return math.prod(shape) * dtype.itemsize

    def read(self, name: str) -> Tensor:
        """Reads a tensor, put together from all its parts.

        Raises:
            DataError: it cannot be read.
        """
        shape, dtype = self.kinds[name]
        into = {name: torch.empty(shape, dtype=dtype)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that there is no process group
                dcp_load(into, storage_reader=SafeReader(self._path), planner=TensorsOnlyPlanner(), no_dist=True)
        except CheckpointException as error:
            raise DataError(f"{self._path}: {name} cannot be read ({first_reason(error)})") from error
        return into[name]


def compare(one: StoredTensors, other: StoredTensors) -> Iterator[tuple[str, str | None, float]]:
    """Compares the tensors of two checkpoints, bit by bit.

    Args:
        one: a checkpoint.
        other: another one.

    Yields:
        For each tensor its name, what differs in words or None where nothing does, and the largest absolute difference
        (nan where there is none: tensors that only one has, of another shape, or that hold nan).
    """
    for name in sorted({*one.kinds, *other.kinds}):
        if name not in other.kinds or name not in one.kinds:
            yield name, f"only in the {'first' if name in one.kinds else 'second'}", math.nan
        elif one.kinds[name] != other.kinds[name]:
            (shape, dtype), (shape2, dtype2) = one.kinds[name], other.kinds[name]
            yield name, f"{list(shape)} {dtype} in the first, {list(shape2)} {dtype2} in the second", math.nan
        else:
            yield (name, *_differ(one.read(name), other.read(name)))


def _differ(one: Tensor, other: Tensor) -> tuple[str | None, float]:
    if not one.numel() or torch.equal(one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8)):
        return None, 0.0
    gap = (one.double() - other.double()).abs()
    num = int((gap != 0).sum())  # nan counts
    return f"{num:,} of {one.numel():,} numbers differ", float(gap.max())
