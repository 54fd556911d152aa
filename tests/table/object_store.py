"""An object store for tests: ``objects:///absolute/path/key``, kept in a local directory that other processes see.

It behaves as S3 does: no rename, no append, no directories; an object is there when its upload has been closed and not
before; an upload that dies leaves nothing. Importing this module registers it, and unpickling an ``ObjectPath`` in a
worker process imports it.
"""

import os
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from upath import UPath
from upath.registry import register_implementation


class Killed(BaseException):
    """The process ends here, as far as the test is concerned."""


class Objects(AbstractFileSystem):
    """The store. Class attributes, so that a test can look and interfere.

    Attributes:
        writes: ``put KEY`` and ``delete KEY`` in the order in which they took place, in full.
        fetched: bytes of the ranges that were read, by key.
        die_at: number of writes after which the next one raises ``Killed`` halfway; None never.
        chunk_s: an upload pauses that long after each chunk.
    """

    protocol = "objects"
    root_marker = "/"
    writes: ClassVar[list[str]] = []
    fetched: ClassVar[dict[str, int]] = {}
    die_at: ClassVar[int | None] = None
    chunk_s: ClassVar[float] = 0.0
    lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def reset(cls) -> None:
        Objects.writes.clear()
        Objects.fetched.clear()
        Objects.die_at, Objects.chunk_s = None, 0.0

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if os.path.isfile(path):
            found = [self._entry(path)]
        else:
            names = sorted(os.listdir(path)) if os.path.isdir(path) else []
            found = [e for name in names if (e := self._entry(f"{path.rstrip('/')}/{name}"))]
            if not found:
                raise FileNotFoundError(path)
        return found if detail else [entry["name"] for entry in found]

    def _entry(self, path: str) -> dict[str, Any] | None:
        """An object, or a prefix of objects; a directory without any is not there."""
        if os.path.isfile(path):
            return {"name": path, "size": os.path.getsize(path), "type": "file", "mtime": os.path.getmtime(path)}
        holds = any(files for _, _, files in os.walk(path))
        return {"name": path, "size": 0, "type": "directory"} if holds else None

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        entry = self._entry(path)
        if entry is None:
            raise FileNotFoundError(path)
        return entry

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.path.getmtime(self._strip_protocol(path)), UTC)

    def _write(self, what: str, path: str) -> None:
        with self.lock:
            if Objects.die_at is not None and len(Objects.writes) >= Objects.die_at:
                raise Killed(f"{what} {path}")
            Objects.writes.append(f"{what} {path}")

    def _visible(self, path: str, data: bytes) -> None:
        """What the end of an upload does; a rename inside the store, which no client can ask for."""
        self._write("put", path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir(), delete=False) as file:
            file.write(data)
        os.replace(file.name, path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._visible(self._strip_protocol(path), value)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        data, local = bytearray(), Path(lpath).read_bytes()
        for start in range(0, len(local), 1 << 12):
            data += local[start : start + (1 << 12)]
            time.sleep(Objects.chunk_s)
        self._visible(self._strip_protocol(rpath), bytes(data))

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        self._write("delete", path)
        os.unlink(path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> "ObjectFile":
        if mode not in ("rb", "wb"):
            raise NotImplementedError(f"an object store cannot open with mode {mode}")
        return ObjectFile(self, path, mode, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        with open(path, "rb") as file:
            data = file.read()[start:end]
        with self.lock:
            Objects.fetched[path] = Objects.fetched.get(path, 0) + len(data)
        return data

    def mv(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("an object store has no rename")

    rename = move = mv_file = mv

    def cp_file(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("this store does not copy")

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: there are no directories."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing."""


class ObjectFile(AbstractBufferedFile):
    """Reads ranges; a write is gathered and visible when closed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)

    def _initiate_upload(self) -> None:
        self.gathered = bytearray()

    def _upload_chunk(self, final: bool = False) -> bool:
        self.gathered += self.buffer.getvalue()
        if final:
            self.fs._visible(self.path, bytes(self.gathered))
        return True


class ObjectPath(UPath):
    """Its class travels by name: a process that unpickles it imports this module."""


fsspec.register_implementation("objects", Objects, clobber=True)
register_implementation("objects", ObjectPath, clobber=True)


def objects(path: Path) -> UPath:
    """A place in the store, kept in a local directory."""
    return UPath(f"objects://{path}")


def names(place: UPath) -> list[str]:
    """Every object below a place, by relative path."""
    root = Path(place.path)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
