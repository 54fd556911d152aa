"""The files of a checkpoint as torch.distributed.checkpoint opens them: local or in a store, counted while written."""

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemBase

from recd_dist.checkpoint.catalog import StoredPart
from recd_dist.files.whole_file import flush_file
from recd_dist.table.location import Location, is_remote, report_store_errors


class CountedFiles(FileSystemBase):
    """Opens files, and notes size and checksum of each that is written; a local one is on the disk when it is closed.

    Attributes:
        written: what was written, by name.
    """

    def __init__(self) -> None:
        self.written: dict[str, StoredPart] = {}

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
        """Opens a file to write it from its beginning, or to read it.

        Args:
            path: a local path, or one in a store.
            mode: ``wb`` or ``rb``.

        Raises:
            OSError: the local disk is full or may not be written.
            StoreError: the store cannot be reached.
        """
        with report_store_errors(path):
            if mode != "wb":
                with path.open(mode) as stream:
                    yield stream
                return
            with path.open(mode) as stream:
                counted = _Counted(stream)
                try:
                    yield counted
                except RuntimeError as error:
                    if counted.error is None:
                        raise
                    raise counted.error from error  # torch puts one of its own in the place of a full disk's
            if not is_remote(path):
                flush_file(Path(path))
            self.written[path.name] = StoredPart(counted.tell(), counted.crc32)

    def write(self, path: Location, data: bytes) -> None:
        """Writes a small file.

        Raises:
            OSError: the local disk is full or may not be written.
            StoreError: the store cannot be reached.
        """
        with self.create_stream(path, "wb") as stream:
            stream.write(data)

    def concat_path(self, path: Any, suffix: str) -> Any:
        """The path of a file in a directory."""
        return path / suffix

    def init_path(self, path: Any) -> Any:
        """A path as torch gives it: only the one that is replaced by a location."""
        return path

    def rename(self, path: Any, new_path: Any) -> None:
        """Renames a local file."""
        path.rename(new_path)

    def mkdir(self, path: Any) -> None:
        """Makes a local directory; a store has none."""
        if not is_remote(path):
            path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether torch may choose this class by a path: it is chosen by name only."""
        del checkpoint_id
        return False

    def exists(self, path: Any) -> bool:
        """Whether there is such a file: torch asks for metadata that a new checkpoint would replace, and none is."""
        return False if is_remote(path) else bool(path.exists())

    def rm_file(self, path: Any) -> None:
        """Removes a local file."""
        path.unlink()


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them.

    Attributes:
        crc32: the checksum of what was written so far.
        error: why the last bytes could not be written, if so.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream, self._num_bytes, self.crc32 = stream, 0, 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.crc32 = zlib.crc32(data, self.crc32)
        try:
            self._stream.write(data)
        except OSError as error:
            self.error = error
            raise
        size = memoryview(data).nbytes
        self._num_bytes += size
        return size

    def tell(self) -> int:
        return self._num_bytes

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()
