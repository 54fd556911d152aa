"""Safetensors files: written for everybody who may read the directory, and their headers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from recd_dist.errors import DataError


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors to a file.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        path.chmod(mode)  # the library makes a file that its owner alone can read
    except Exception as error:  # the library raises errors of its own when the disk is full
        raise DataError(f"{path}: cannot be written ({error})") from error


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds: dtype, shape and place of each tensor; and where their bytes begin.

    Raises:
        ValueError: the file is cut or no such file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, 100 << 20):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = max((value["data_offsets"][1] for value in header.values()), default=0)
    if 8 + length + end != size:
        raise ValueError(f"{size:,} bytes, the header says {8 + length + end:,}")
    return header, 8 + length
