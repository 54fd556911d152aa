"""The rows of all embedding tables of an export as one matrix, mapped into memory and not read.

::

    tables.safetensors   header | item [N, D] | region [M, D] | scales            one dtype stands together
    row stack                   | first row 0 | first row N   |                   ids + first row of their table

All tables of a model are as wide, so that every lookup of a batch is one call. Processes that serve the same export
share the memory. Rows that a delta replaces are written into private pages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recd_dist.errors import DataError
from recd_dist.exported.row_precision import dequantise
from recd_dist.exported.tensor_files import read_header

SCALE = ".scale"
"""Behind the name of a table, the name of the scales of its rows."""

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "I8": np.dtype(np.int8)}


class RowStack:
    """The rows of tables of one width.

    Args:
        rows: float32, float16 or int8 [R, D].
        scales: bfloat16 [R], of int8 rows; None for others.
        first_row: for each table where its rows begin.
        num_rows: for each table how many it has.
    """

    def __init__(
        self, rows: Tensor, scales: Tensor | None, first_row: Mapping[str, int], num_rows: Mapping[str, int]
    ) -> None:
        self.rows, self.scales, self.first_row, self.num_rows = rows, scales, dict(first_row), dict(num_rows)

    @property
    def dim(self) -> int:
        """D, the width of a row."""
        return self.rows.shape[1]

    def table(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The rows of a table as views, [rows, D], and their scales; none of a table that is not there."""
        first = self.first_row.get(name, 0)
        part = slice(first, first + self.num_rows.get(name, 0))
        return self.rows[part], None if self.scales is None else self.scales[part]

    def take(self, index: Tensor) -> Tensor:
        """Rows by number, float32 [N, D].

        Args:
            index: int64 [N], numbers in the stack.
        """
        taken = self.rows.index_select(0, index)
        if self.scales is not None:
            return dequantise(taken, self.scales.index_select(0, index))
        return taken.float()

    def pool(self, index: Tensor, lengths: Tensor, weights: Tensor | None) -> Tensor:
        """Sums of rows, float32 [K, D]; zero for an empty list.

        Args:
            index: int64 [N], numbers in the stack, list after list.
            lengths: int32 [K], lengths of the lists.
            weights: float32 [N], by which rows are multiplied; None for 1.
        """
        if not len(index):
            return torch.zeros(len(lengths), self.dim)
        starts = torch.cumsum(lengths, 0, dtype=torch.int64) - lengths
        if self.rows.dtype == torch.float32:
            return F.embedding_bag(index, self.rows, starts, mode="sum", per_sample_weights=weights)
        numbers = torch.arange(len(index))
        return F.embedding_bag(numbers, self.take(index), starts, mode="sum", per_sample_weights=weights)

    def replace_rows(self, name: str, index: Tensor, rows: Tensor, scales: Tensor | None) -> None:
        """Writes rows of a table in this process's own memory.

        Args:
            name: the table.
            index: int64 [n], rows of the table.
            rows: [n, D], in the dtype of the stack.
            scales: bfloat16 [n], of int8 rows.
        """
        own, own_scales = self.table(name)
        own[index] = rows
        if own_scales is not None and scales is not None:
            own_scales[index] = scales

    def grow(self, num_rows: Mapping[str, int]) -> "RowStack":
        """The same rows, with room for more in some tables, as zeros.

        Args:
            num_rows: for some tables, new ones too, how many rows they shall have, at least as many as they have.
        """
        num_rows = {**self.num_rows, **num_rows}
        if num_rows == self.num_rows:
            return self
        first_row, total = dict[str, int](), 0
        for name, size in num_rows.items():
            first_row[name], total = total, total + size
        scales = None if self.scales is None else self.scales.new_zeros(total)
        grown = RowStack(self.rows.new_zeros(total, self.dim), scales, first_row, num_rows)
        for name in self.num_rows:
            (rows, scales_of), (own, own_scales) = grown.table(name), self.table(name)
            rows[: len(own)] = own
            if scales_of is not None and own_scales is not None:
                scales_of[: len(own)] = own_scales
        return grown


def map_rows(path: Path) -> RowStack:
    """Maps the tables of a safetensors file into memory.

    Args:
        path: the file; its tables have one dtype and one width.

    Raises:
        DataError: it is no such file.
    """
    try:
        header, start = read_header(path)
        scales = {name: value for name, value in header.items() if name.endswith(SCALE)}
        tables = {name: value for name, value in header.items() if name not in scales}
        kinds: set[tuple[str, int]] = {(value["dtype"], value["shape"][1]) for value in tables.values()}
        if not kinds:
            return RowStack(torch.zeros(0, 1), None, {}, {})
        ((name, dim),) = kinds
        dtype = _DTYPES[name]
        rows, first_row = _map_beside(path, start, tables, dtype, dim)
        own_scales = None
        if scales:
            order = [f"{table}{SCALE}" for table in first_row]
            bits, _ = _map_beside(path, start, {key: scales[key] for key in order}, np.dtype(np.int16), 1)
            own_scales = torch.from_numpy(bits[:, 0]).view(torch.bfloat16)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: no file of tables ({error!r}); copy the export again, or export again") from error
    return RowStack(
        torch.from_numpy(rows), own_scales, first_row, {name: tables[name]["shape"][0] for name in first_row}
    )


def _map_beside(
    path: Path, start: int, tensors: Mapping[str, Any], dtype: np.dtype[Any], width: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Maps tensors that stand side by side as one matrix; and the first row of each, in their order."""
    order = sorted(tensors, key=lambda name: tensors[name]["data_offsets"][0])
    places = [tensors[name]["data_offsets"] for name in order]
    row_bytes = dtype.itemsize * width
    for name, (begin, end), before in zip(order, places, [(0, places[0][0]), *places], strict=False):
        if begin != before[1] or end - begin != tensors[name]["shape"][0] * row_bytes:
            raise ValueError(f"'{name}' does not follow the tensor before it")
    num_rows = (places[-1][1] - places[0][0]) // row_bytes
    if not num_rows:
        return np.zeros((0, width), dtype), dict.fromkeys(order, 0)
    mapped = np.memmap(path, dtype, "c", offset=start + places[0][0], shape=(num_rows, width))
    first_row = {name: (begin - places[0][0]) // row_bytes for name, (begin, _) in zip(order, places, strict=True)}
    return mapped, first_row
