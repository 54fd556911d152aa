"""Weights for other programs, in safetensors files: whole tensors, whatever ranks and plan they were trained on.

::

    model.safetensors                    one file, or where it would be larger than a part may be:
    model-00001-of-00003.safetensors     parts of whole tensors
    model.safetensors.index.json         tensor -> part, as Hugging Face writes it
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recd_dist.checkpoint.catalog import read_description
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.errors import ConfigError, DataError, UserError
from recd_dist.files.json_text import json_text
from recd_dist.files.whole_file import flush_file
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
    with _all_or_none(files):
        for number, part in enumerate(parts, 1):
            name = out.name if len(parts) == 1 else f"{out.stem}-{number:05d}-of-{len(parts):05d}{_SUFFIX}"
            files.append(out.with_name(name))
            _save(tensors, part, lambda held, at: save_file(held, at, metadata=facts), _partial(files[-1]), report)
            where |= dict.fromkeys(map(_plain, part), name)
        if len(parts) > 1:
            index = {"metadata": {"total_size": sum(map(tensors.num_bytes, names))}, "weight_map": where}
            files.append(out.with_name(f"{out.name}.index.json"))
            _partial(files[-1]).write_text(json_text(index))
    return files


@contextmanager
def _all_or_none(files: list[Path]) -> Iterator[None]:
    """Gives files their names once all are written; when one cannot be, none is there and older ones stay.

    Args:
        files: the files, which the body of the context adds to this list and writes as ``_partial`` names them.

    Raises:
        DataError: one of them cannot be written.
    """
    try:
        yield
        for file in files:
            flush_file(_partial(file))
        for file in files:
            _partial(file).replace(file)
    except UserError:
        raise
    except Exception as error:  # the library raises errors of its own when the disk is full
        raise DataError(f"{files[-1]}: cannot be written ({error})") from error
    finally:
        for file in files:
            with suppress(OSError):
                _partial(file).unlink(missing_ok=True)


def _save(
    tensors: StoredTensors,
    names: Sequence[str],
    write: Callable[[dict[str, Any], Path], None],
    file: Path,
    report: Callable[[int], None] | None,
) -> None:
    held = {}
    for name in names:
        held[_plain(name)] = tensors.read(name)
        if report:
            report(tensors.num_bytes(name))
    file.touch()
    mode = file.stat().st_mode
    write(held, file)
    file.chmod(mode)  # the library makes a file that its owner alone can read


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.partial")


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
