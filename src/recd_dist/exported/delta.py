"""Deltas: exports that hold only the rows which are other than those of an export before, and all dense layers.

::

    DELTA/tables.safetensors   NAME.index int64 [n]   NAME int8, float16 or float32 [n, D]   NAME.scale bfloat16 [n]
    DELTA/export.json          base: ../monday, version of it    -->   rows of monday, with these in their place
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recd_dist.errors import ConfigError, DataError
from recd_dist.exported.description import TABLES, Base, Description, read_description
from recd_dist.exported.row_stack import SCALE, RowStack, map_rows

INDEX = ".index"
"""Behind the name of a table, the name of the numbers of its changed rows."""


def open_rows(directory: Path, description: Description) -> RowStack:
    """The rows of an export; those of a delta stand in the place of those of the exports before.

    Args:
        directory: the export.
        description: what it is.

    Raises:
        ConfigError, DataError: an export before is missing, or is another than the delta was made for.
    """
    if description.base is None:
        return map_rows(directory / TABLES)
    before, found = open_base(directory, description.base)
    stack, changed = open_rows(before, found), load_file(directory / TABLES)
    names = [name for name in description.tables if f"{name}{INDEX}" in changed]
    stack = stack.grow({name: description.tables[name].num_embeddings for name in names})
    for name in names:
        stack.replace_rows(name, changed[f"{name}{INDEX}"], changed[name], changed.get(f"{name}{SCALE}"))
    return stack


def open_base(directory: Path, base: Base) -> tuple[Path, Description]:
    """The export that a delta builds upon.

    Args:
        directory: the delta.
        base: what it says of the other.

    Raises:
        ConfigError: it is not there, or was replaced by another one.
    """
    path = Path(os.path.normpath(Path(os.path.realpath(directory)) / base.path))
    try:
        found = read_description(path)
    except ConfigError as error:
        raise ConfigError(
            f"{directory}: a delta of {path}, which is not there; keep both, or export without base=..."
        ) from error
    if found.version != base.version:
        raise ConfigError(
            f"{directory}: a delta of {path} at version {base.version}, which has {found.version} now; export again "
            "without base=..."
        )
    return path, found


def bases_of(directory: Path) -> list[Path]:
    """The exports that an export builds upon, the nearest first; none for a whole one.

    Args:
        directory: the export.

    Raises:
        ConfigError, DataError: one of them is missing, damaged, or another than it was.
    """
    found, description = list[Path](), read_description(directory)
    while description.base is not None:
        directory, description = open_base(directory, description.base)
        found.append(directory)
    return found


def changed_rows(before: RowStack, name: str, rows: Tensor, scales: Tensor | None) -> Tensor:
    """The rows of a table that are other than before, or were not there, int64 [n].

    Args:
        before: the rows of the export before.
        name: the table; of one that was not there all rows are new.
        rows: the rows of now, in the dtype of the stack.
        scales: their scales, of int8 rows.

    Raises:
        DataError: the rows are written otherwise than those before, or there are fewer.
    """
    own, own_scales = before.table(name)
    if own.dtype != rows.dtype or own.shape[1] != rows.shape[1] or len(rows) < len(own):
        raise DataError(
            f"table '{name}': {tuple(rows.shape)} {rows.dtype}, in the export before {tuple(own.shape)} {own.dtype}; "
            "export without base=..."
        )
    differs = (_bits(rows[: len(own)]) != _bits(own)).any(1)
    if scales is not None and own_scales is not None:
        differs |= _bits(scales[: len(own), None])[:, 0] != _bits(own_scales[:, None])[:, 0]
    new = torch.arange(len(own), len(rows))
    return torch.cat([differs.nonzero()[:, 0], new])


def _bits(rows: Tensor) -> Tensor:
    """The bits of numbers, which tell nan from nan."""
    return rows.view({1: torch.int8, 2: torch.int16, 4: torch.int32}[rows.element_size()])
