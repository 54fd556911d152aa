"""Where a table or raw logs lie: a local path, or a store behind fsspec (``s3://``, ``gs://``, ``hdfs://``).

::

    tables/mine          -> pathlib.Path   ~ expanded
    s3://bucket/mine     -> upath.UPath    the same operations: /, name, parent, glob, is_file, stat

An object store has no rename and no append, and an object is visible only when it is whole. So what must be whole or
absent is one ``put``; a local file is written beside and renamed. Credentials, end points and other options of a store
come from where its own library looks (environment, profile files, fsspec's configuration), never from here.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

from recd_dist.errors import ConfigError, DataError, UserError, nearest
from recd_dist.files.whole_file import write_whole

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = Union[Path, "UPath"]
"""A local path or one in a store."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hdfs": "hdfs"}
"""Protocol -> the extra of this package that brings its library."""

_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_VERSION = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What stores tell of a file that changes with it."""
_RENAMING = {"hdfs", "arrow_hdfs", "webhdfs", "sftp", "ssh"}
"""Stores that show a file while it is written, and can rename one."""


def location(text: "str | Location") -> "Location":
    """A path from text: ``proto://`` is one in a store, anything else is local.

    Args:
        text: as a config or a command line gives it; a path of either kind is returned as it is.

    Raises:
        ConfigError: an unknown protocol, a library that is not installed (the message names the extra), or a store
            that cannot be opened.
    """
    if not isinstance(text, str):
        return text
    found = _REMOTE.match(text)
    if not found:
        return Path(text).expanduser()
    protocol = found[1].lower()
    if protocol in _LOCAL:
        return Path(text[found.end() :])
    if protocol in _BUCKETS and not text[found.end() :].partition("/")[0]:
        raise ConfigError(f"{text}: names no bucket; write {protocol}://BUCKET/PATH")
    _require(protocol, text)
    from upath import UPath

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a store that UPath has no class of its own for
            path = UPath(text)
        path.fs  # noqa: B018  (opens the store: hdfs needs Java and Hadoop's libraries for it)
    except Exception as error:
        more = "; hdfs needs Java and Hadoop: JAVA_HOME, HADOOP_HOME, CLASSPATH" if "hdfs" in protocol else ""
        raise ConfigError(f"{text}: the store cannot be opened ({_first_line(error)}){more}") from error
    return path


def _require(protocol: str, text: str) -> None:
    """A protocol that fsspec knows, with its library installed."""
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        remedy = f"pip install 'recd-dist[{extra}]'" if extra else _first_line(error)
        raise ConfigError(f"{text}: the library for {protocol}:// is not installed; {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{text}: unknown protocol '{protocol}'{nearest(protocol, EXTRAS)}") from error


def known_protocols() -> set[str]:
    """What may stand before ``://``, whether its library is installed or not."""
    import fsspec

    return {*fsspec.available_protocols(), *fsspec.registry}


def is_remote(path: "Location") -> "TypeGuard[UPath]":
    """Whether a path lies in a store."""
    return not isinstance(path, Path)


class StoreError(DataError):
    """A store that cannot be reached or has given up: nothing is wrong with the data, the same command may go on."""


@contextmanager
def reaching(path: "Location") -> Iterator[None]:
    """Turns what a store's library raises into one line.

    A file that is not there stays a FileNotFoundError, and what Arrow says of damaged bytes stays as it is.

    Raises:
        StoreError: no permission, no credentials, no network, no such bucket: as the library says it.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:
        if not is_remote(path) or _from_arrow(error):
            raise
        kind = type(error).__name__
        raise StoreError(
            f"{path}: the store answers with {kind} ({_first_line(error)}); credentials and end points come from the "
            "store's usual places (docs/operations.md)"
        ) from error


def contents(path: "Location") -> bytes:
    """The whole of a small file, in one request.

    Raises:
        FileNotFoundError: no such file.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path.read_bytes()
    with reaching(path):
        data: bytes = path.fs.cat_file(path.path)
        return data


def put(path: "Location", data: bytes) -> None:
    """Writes a small file, whole or not at all, in place of one that is there.

    In an object store that is one put. Where files show while they are written (local disks, HDFS), it is written
    beside, flushed and renamed; HDFS renames onto no file, so the old one goes first and for a moment none is there.

    Raises:
        OSError: a local disk that is full or closed.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        write_whole(path, data, durable=True)
        return
    beside = path.with_name(f".{path.name}.partial")
    with reaching(path):
        if not _RENAMING & set(_protocols(path)):
            path.fs.pipe_file(path.path, data)
            return
        path.fs.pipe_file(beside.path, data)
        with suppress(FileNotFoundError):
            path.fs.rm_file(path.path)
        path.fs.mv(beside.path, path.path)


def _protocols(path: "UPath") -> tuple[str, ...]:
    names = path.fs.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def file_size(path: "Location") -> int | None:
    """Bytes of a file; None where there is none.

    Raises:
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path.stat().st_size if path.is_file() else None
    with reaching(path), suppress(FileNotFoundError):
        info = path.fs.info(path.path)
        if info["type"] == "file":
            return int(info["size"])
    return None


def file_sizes(root: "Location", paths: Iterable[str]) -> dict[str, int]:
    """Sizes of those of the files that are there; in a store by one listing, since a request each takes minutes.

    Args:
        root: a directory.
        paths: relative to it.

    Returns:
        Bytes by relative path; files that are missing are left out.
    """
    if isinstance(root, Path):
        sizes = ((name, file_size(root / name)) for name in paths)
        return {name: size for name, size in sizes if size is not None}
    there = listing(root)
    return {name: there[name] for name in paths if name in there}


def listing(root: "UPath") -> dict[str, int]:
    """Every object below a place of a store: bytes by path relative to it. Nothing there is an empty dict.

    Raises:
        StoreError: the store cannot be reached.
    """
    with reaching(root):
        root.fs.invalidate_cache()  # a long process must not see what it saw an hour ago
        try:
            found = root.fs.find(root.path, detail=True)
        except FileNotFoundError:
            return {}
    prefix = root.path.rstrip("/") + "/"
    return {
        name.lstrip("/").removeprefix(prefix.lstrip("/")): int(info["size"])
        for name, info in found.items()
        if name.lstrip("/").startswith(prefix.lstrip("/"))
    }


@dataclass(frozen=True)
class Stored:
    """A file in a store.

    Attributes:
        path: where it lies.
        num_bytes: its size.
        version: changes when the file is written anew, as far as the store tells (ETag, time of change).
    """

    path: "UPath"
    num_bytes: int
    version: int


def stored_files(pattern: "UPath") -> list[Stored]:
    """Files that a path in a store names, sorted: itself, those below it, or those that a glob matches.

    Raises:
        StoreError: the store cannot be reached.
    """
    fs = pattern.fs
    with reaching(pattern):
        fs.invalidate_cache()
        if re.search(r"[*?\[]", pattern.path) and not fs.exists(pattern.path):
            found = fs.glob(pattern.path, detail=True)
        else:
            try:
                found = fs.find(pattern.path, detail=True)
            except FileNotFoundError:
                found = {}
    files = []
    for name, info in sorted(found.items()):
        if info["type"] == "file" and not name.rpartition("/")[2].startswith("."):
            path = type(pattern)(fs.unstrip_protocol(name), **pattern.storage_options)
            told = repr([info[key] for key in _VERSION if key in info])
            files.append(Stored(path, int(info["size"]), int.from_bytes(sha256(told.encode()).digest()[:7])))
    return files


def directories(root: "Location") -> list[str]:
    """Names of the directories in a place, sorted; none where nothing is there.

    Raises:
        StoreError: the store cannot be reached.
    """
    if isinstance(root, Path):
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    with reaching(root), suppress(FileNotFoundError, NotADirectoryError):
        root.fs.invalidate_cache()
        found = root.fs.ls(root.path, detail=True)
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")
    return []


def readable(path: "Location") -> Any:
    """What pyarrow and zlib can read: the path where it is local, else a file object that fetches only what is asked.

    fsspec reads ahead by 5 MiB unless told not to; a Parquet file is read by pieces, a row group's columns at once.

    Raises:
        FileNotFoundError: no such file.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path
    with reaching(path):
        return path.fs.open(path.path, "rb", cache_type="none")


def _from_arrow(error: Exception) -> bool:
    """Damaged bytes, not the store: stores' errors of the class OSError carry a number, Arrow's do not."""
    return type(error).__module__.startswith("pyarrow") or (type(error) is OSError and error.errno is None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:300]
