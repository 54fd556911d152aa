"""Writes and reads a torch.distributed.checkpoint directory on any Python, without running code from its files.

torch 2.13 unpickles ``.metadata`` without limits (filesystem.py, ``FileSystemReader.read_metadata``) and byte entries
with ``weights_only=False`` (default_planner.py, ``load_bytes``). It reads only tensors with ``weights_only=True``.
Here the metadata may name only the classes that torch itself writes there, and byte entries are refused, because our
checkpoints hold tensors only.

Pythons pickle the same object in different ways: 3.11.0 to 3.11.3 write an enum's member as ``getattr(class, name)``,
later ones as ``class(value)``; 3.13 writes a path as a class of ``pathlib._local``, which other releases lack. Metadata
are written in one form, whatever the Python: ``class(value)``, and no path. All forms are read.
"""

import enum
import io
import pickle
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.storage import WriteResult

from recd_dist.checkpoint.catalog import METADATA
from recd_dist.checkpoint.counted_files import CountedFiles
from recd_dist.errors import DataError
from recd_dist.table.location import Location, contents

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "TensorStorageMetadata", "ChunkStorageMetadata")),
    *((_METADATA, name) for name in ("TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
}
_PATHS = {(module, name) for module in ("pathlib", "pathlib._local") for name in ("Path", "PosixPath", "PurePosixPath")}


def _member(kind: object, name: object) -> enum.Enum:
    """The member of an enum, which Python 3.11.0 to 3.11.3 pickle as a call of ``getattr``; nothing else."""
    if isinstance(kind, enum.EnumMeta) and name in kind.__members__:
        return kind.__members__[str(name)]
    raise pickle.UnpicklingError(f"it asks for {name!r} of {kind!r}, which has no place there")


class _MetadataUnpickler(pickle.Unpickler):
    """Loads the classes of a checkpoint's metadata and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of a name, if torch writes that class into ``.metadata``."""
        if (module, name) == ("builtins", "getattr"):
            return _member
        if (module, name) in _PATHS:
            return PurePosixPath
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place there")


def read_metadata(directory: Location) -> Metadata:
    """Reads which tensors a checkpoint holds: their names, shapes and dtypes, and in which files they lie.

    Args:
        directory: the checkpoint's directory, with ``.metadata`` and the ``.distcp`` files.

    Raises:
        DataError: ``.metadata`` is missing or damaged, or names anything but a checkpoint's own classes and files.
    """
    path = directory / METADATA
    try:
        metadata = _MetadataUnpickler(io.BytesIO(contents(path))).load()
        if not isinstance(metadata, Metadata) or metadata.storage_data is None:
            raise pickle.UnpicklingError("it is not the metadata of a checkpoint")
        for info in metadata.storage_data.values():
            if Path(info.relative_path).name != info.relative_path:
                raise pickle.UnpicklingError(f"it points to {info.relative_path}, outside the checkpoint")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; the checkpoint is not whole, use an older one") from error
    except Exception as error:  # unpickling damaged bytes can raise nearly anything
        raise DataError(f"{path}: refused: {error}; use a checkpoint that recd_dist wrote") from error
    return metadata


class _PortablePickler(pickle.Pickler):
    """Writes enums in the form that every Python reads."""

    def reducer_override(self, value: Any) -> Any:
        """The class and the value of an enum's member; all else as usual."""
        return (type(value), (value.value,)) if isinstance(value, enum.Enum) else NotImplemented


def pickle_metadata(metadata: Metadata) -> bytes:
    """Pickles metadata in the form that every Python reads, whichever Python runs."""
    into = io.BytesIO()
    _PortablePickler(into, protocol=4).dump(metadata)
    return into.getvalue()


class PortableWriter(FileSystemWriter):
    """A ``FileSystemWriter`` whose metadata every Python reads, and which counts what it writes.

    Args:
        path: the checkpoint's directory, a local one or one in a store.

    Attributes:
        fs: the files, with sizes and checksums of those that this rank has written.
    """

    def __init__(self, path: Location) -> None:
        super().__init__(".", sync_files=False, overwrite=True)  # files are flushed where they are closed
        self.fs: Any = CountedFiles()
        self.path: Any = path

    def storage_meta(self) -> StorageMeta:
        """Which save it was; the path of the directory means nothing after it was renamed."""
        return StorageMeta(save_id=self.save_id)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes the metadata, on rank 0."""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {result.index: result.storage_data for part in results for result in part}
        metadata.storage_meta = self.storage_meta()
        self.fs.write(self.path / METADATA, pickle_metadata(metadata))


class SafeReader(FileSystemReader):
    """A ``FileSystemReader`` that reads metadata with ``read_metadata``, and files of a store where they lie.

    Args:
        path: the checkpoint's directory, a local one or one in a store.
    """

    def __init__(self, path: Location) -> None:
        super().__init__(".")
        self.fs: Any = CountedFiles()
        self.path: Any = path

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        """The metadata of the checkpoint at ``self.path``."""
        metadata = read_metadata(self.path)
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class TensorsOnlyPlanner(DefaultLoadPlanner):
    """A ``DefaultLoadPlanner`` that refuses pickled bytes.

    Args:
        grown: tensors that may have more rows than the checkpoint; rows that it does not have stay as they are.
    """

    def __init__(self, grown: Collection[str] = ()) -> None:
        super().__init__()
        self._grown = grown

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Takes the tensors to load; of those that have grown the size in the metadata becomes the one they have."""
        stored: Any = metadata.state_dict_metadata if metadata else {}
        for name in self._grown:
            if name in state_dict and name in stored:  # what overlaps is read: DCP compares the places of chunks
                stored[name].size = torch.Size(state_dict[name].size())
        super().set_up_planner(state_dict, metadata, is_coordinator)

    def load_bytes(self, read_item: ReadItem, _value: io.BytesIO) -> NoReturn:
        """Refuses an entry of pickled bytes.

        Raises:
            DataError: always.
        """
        raise DataError(f"checkpoint entry {read_item.dest_index.fqn}: pickled bytes; only tensors are loaded")
