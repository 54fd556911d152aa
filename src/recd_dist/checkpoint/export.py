"""Weights for other programs, in safetensors files: whole tensors, whatever ranks and plan they were trained on.

::

    model.safetensors                    one file, or where it would be larger than a part may be:
    model-00001-of-00003.safetensors     parts of whole tensors
    model.safetensors.index.json         tensor -> part, as Hugging Face writes it
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recd_dist.checkpoint.catalog import read_description
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.errors import ConfigError, DataError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import flush_file, write_whole
from recd_dist.table.location import Location

_SUFFIX = ".safetensors"


def export(
    path: Location,
    out: Path,
    part_bytes: int,
    *,
    with_optimizer: bool = False,
    report: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes the tensors of a checkpoint to one safetensors file, or to several with an index.

    Names are those of the model (``embeddings.tables.item.weight``), states have ``optimizer/`` before them.

    Args:
        path: a checkpoint's directory, here or in a store.
        out: the file to write, which ends with ``.safetensors``.
        part_bytes: the most bytes of a file, and of the memory that is used, unless one tensor alone has more.
        with_optimizer: write the states of the optimizers, too.
        report: is told the bytes of each tensor that was read.

    Returns:
        The files.

    Raises:
        ConfigError: the file's name or directory does not fit, or the library is not installed.
        DataError: the checkpoint cannot be read, or the files cannot be written.
    """
    if out.suffix != _SUFFIX or not out.parent.is_dir():
        raise ConfigError(f"{out}: name a file that ends with {_SUFFIX}, in a directory that is there")
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ConfigError("safetensors is not installed; pip install safetensors") from error
    found, tensors = read_description(path), StoredTensors(path)
    names = [name for name in tensors.kinds if with_optimizer or name.startswith("model/")]
    parts = _deal({name: tensors.num_bytes(name) for name in names}, part_bytes)
    facts = {"format": "pt", "recd_dist.step": str(found.step), "recd_dist.schema": json_text(found.schema.to_json())}
    files: list[Path] = []
    where: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = out if len(parts) == 1 else out.with_name(f"{out.stem}-{number:05d}-of-{len(parts):05d}{_SUFFIX}")
        held = {}
        for name in part:
            held[_plain(name)] = tensors.read(name)
            if report:
                report(tensors.num_bytes(name))
        _write(lambda at, held=held: save_file(held, at, metadata=facts), file)  # type: ignore[misc]
        files.append(file)
        where |= dict.fromkeys(held, file.name)
    if len(parts) > 1:
        index = {"metadata": {"total_size": sum(map(tensors.num_bytes, names))}, "weight_map": where}
        files.append(out.with_name(f"{out.name}.index.json"))
        write_whole(files[-1], json_text(index), durable=True)
    return files


def _plain(name: str) -> str:
    return name.removeprefix("model/")


def _deal(sizes: Mapping[str, int], part_bytes: int) -> list[list[str]]:
    """Names in order, dealt to parts; each part has at least one."""
    parts: list[list[str]] = [[]]
    room = part_bytes
    for name, size in sizes.items():
        if parts[-1] and size > room:
            parts.append([])
            room = part_bytes
        parts[-1].append(name)
        room -= size
    return parts


def _write(save: Callable[[Any], None], file: Path) -> None:
    """Writes a file under another name and renames it."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        save(partial)
        flush_file(partial)
        partial.replace(file)
    except Exception as error:  # the library raises errors of its own when the disk is full
        partial.unlink(missing_ok=True)
        raise DataError(f"{file}: cannot be written ({error})") from error
