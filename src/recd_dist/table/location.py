"""Locations of tables and raw logs: local paths, or paths in a store behind fsspec.

::

    tables/mine          -> pathlib.Path   ~ is expanded
    s3://bucket/mine     -> upath.UPath    has the same operations: /, name, parent, glob, is_file, stat

An object store has no rename and no append, and an object is visible only when it is whole. So what must be whole or
absent is one ``put``; a local file is written under another name beside its place, and renamed. Credentials, end points
and other options of a store come from where its own library looks (environment, profile files, fsspec's configuration),
never from here.
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
from recd_dist.redaction.credentials import find_credential

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = Union[Path, "UPath"]
"""A local path or one in a store."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hdfs": "hdfs"}
"""Protocol -> the extra of this package that brings its library."""

_USUAL = "environment variables, profile files: docs/operations.md"
_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_VERSION = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What stores tell of a file that changes when the file does."""
_CONTENT = ("ETag", "md5Hash", "etag")
"""What stores tell of a file that follows from its content, or changes with every writing."""
_RENAMING = {"hdfs", "arrow_hdfs", "webhdfs", "sftp", "ssh"}
"""Stores that show a file while it is written, and can rename one."""


def location(text: "str | Location") -> "Location":
    """The path that a text names: ``proto://`` is one in a store, anything else is local.

    Args:
        text: the text in a config or on a command line; a path of either kind is returned as it is.

    Raises:
        ConfigError: the protocol is unknown, its library is not installed (the message names the extra), the store
            cannot be opened, or the text holds a credential.
    """
    if not isinstance(text, str):
        return text
    match = _REMOTE.match(text)
    if not match:
        return Path(text).expanduser()
    protocol, rest = match[1].lower(), text[match.end() :]
    if protocol in _LOCAL:
        return Path(rest)
    if what := find_credential(text):
        raise ConfigError(f"{text}: holds {what}; a store's library finds credentials in its usual places ({_USUAL})")
    if protocol in _BUCKETS and not rest.partition("/")[0]:
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
        raise ConfigError(f"{text}: the store cannot be opened ({first_line(error)}){more}") from error
    return path


def _require(protocol: str, text: str) -> None:
    """Refuses a protocol that fsspec does not know, or whose library is not installed."""
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        remedy = f"pip install 'recd-dist[{extra}]'" if extra else first_line(error)
        raise ConfigError(f"{text}: the library for {protocol}:// is not installed; {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{text}: unknown protocol '{protocol}'{nearest(protocol, EXTRAS)}") from error


def known_protocols() -> set[str]:
    """Every protocol that may stand before ``://``, whether its library is installed or not."""
    import fsspec

    return {*fsspec.available_protocols(), *fsspec.registry}


def is_remote(path: "Location") -> "TypeGuard[UPath]":
    """Whether a path lies in a store."""
    return not isinstance(path, Path)


class StoreError(DataError):
    """A store cannot be reached or has given up; the data are as they were, and the same command may go on."""


@contextmanager
def report_store_errors(path: "Location") -> Iterator[None]:
    """Turns what a store's library raises inside it into an error of one line.

    A file that is not there stays a FileNotFoundError, and what Arrow says of damaged bytes stays as it is.

    Args:
        path: the path that the body of the context reads or writes.

    Raises:
        StoreError: no permission, no credentials, no network or no such bucket, in the words of the library.
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
            f"{path}: the store answers with {kind} ({first_line(error)}); credentials and end points come from the "
            f"store's usual places ({_USUAL})"
        ) from error


def contents(path: "Location") -> bytes:
    """The bytes of a small file, which a store sends in one request.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path.read_bytes()
    with report_store_errors(path):
        data: bytes = path.fs.cat_file(path.path)
        return data


def put(path: "Location", data: bytes) -> None:
    """Writes a small file, whole or not at all, in place of one that is there.

    In an object store that is one put. Where files show while they are written (local disks, HDFS), the bytes are
    written to a file beside it, which is flushed and renamed. HDFS does not rename onto a file, so the old one is
    removed first and for a moment none is there.

    Args:
        path: the file.
        data: its bytes.

    Raises:
        OSError: the local disk is full or may not be written.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        write_whole(path, data, durable=True)
        return
    beside = path.with_name(f".{path.name}.partial")
    with report_store_errors(path):
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
    with report_store_errors(path), suppress(FileNotFoundError):
        info = path.fs.info(path.path)
        if info["type"] == "file":
            return int(info["size"])
    return None


def file_sizes(root: "Location", paths: Iterable[str]) -> dict[str, int]:
    """The sizes of files; a store gives them in one listing, since one request per file would take minutes.

    Args:
        root: a directory.
        paths: the files, relative to it.

    Returns:
        Bytes of each file by its relative path; files that are missing are left out.
    """
    if isinstance(root, Path):
        sizes = ((name, file_size(root / name)) for name in paths)
        return {name: size for name, size in sizes if size is not None}
    there = listing(root)
    return {name: there[name] for name in paths if name in there}


def listing(root: "UPath") -> dict[str, int]:
    """Every object below a directory of a store.

    Returns:
        Bytes of each object by its path relative to the directory; an empty dict where there is none.

    Raises:
        StoreError: the store cannot be reached.
    """
    with report_store_errors(root):
        root.fs.invalidate_cache()  # a long process must not see what it saw an hour ago
        try:
            objects = root.fs.find(root.path, detail=True)
        except FileNotFoundError:
            return {}
    prefix = root.path.rstrip("/") + "/"
    return {
        name.lstrip("/").removeprefix(prefix.lstrip("/")): int(info["size"])
        for name, info in objects.items()
        if name.lstrip("/").startswith(prefix.lstrip("/"))
    }


@dataclass(frozen=True)
class StoredFile:
    """A file in a store.

    Attributes:
        path: where it lies.
        num_bytes: its size.
        version: a number that changes when the file is written anew, as far as the store tells (ETag, time of change).
        content: what the store says of the content, such as ``etag:...``, and the version where it says nothing.
    """

    path: "UPath"
    num_bytes: int
    version: int
    content: str


def stored_files(pattern: "UPath") -> list[StoredFile]:
    """The files that a path in a store names, sorted: itself, those below it, or those that its glob matches.

    Args:
        pattern: a file, a directory, or a path with ``*``, ``?`` or ``[``.

    Raises:
        StoreError: the store cannot be reached.
    """
    fs = pattern.fs
    with report_store_errors(pattern):
        fs.invalidate_cache()
        if re.search(r"[*?\[]", pattern.path) and not fs.exists(pattern.path):
            objects = fs.glob(pattern.path, detail=True)
        else:
            try:
                objects = fs.find(pattern.path, detail=True)
            except FileNotFoundError:
                objects = {}
    files = []
    for name, info in sorted(objects.items()):
        if info["type"] == "file" and not name.rpartition("/")[2].startswith("."):
            path = type(pattern)(fs.unstrip_protocol(name), **pattern.storage_options)
            version = repr([info[key] for key in _VERSION if key in info])
            number = int.from_bytes(sha256(version.encode()).digest()[:7])
            said = (f"{key.lower()}:{str(info[key]).strip(chr(34))}" for key in _CONTENT if info.get(key))
            files.append(StoredFile(path, int(info["size"]), number, next(said, f"version:{number:014x}")))
    return files


def directories(root: "Location") -> list[str]:
    """Names of the directories inside a directory, sorted; none where it does not exist.

    Raises:
        StoreError: the store cannot be reached.
    """
    if isinstance(root, Path):
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    with report_store_errors(root), suppress(FileNotFoundError, NotADirectoryError):
        root.fs.invalidate_cache()
        entries = root.fs.ls(root.path, detail=True)
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in entries if info["type"] == "directory")
    return []


def arrow_input(path: "Location") -> Any:
    """What pyarrow reads a file from: a local path as it is, else a file object that fetches only what is asked for.

    By default fsspec reads 5 MiB ahead; a Parquet file is read by pieces, all columns of a row group at once.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path
    with report_store_errors(path):
        return path.fs.open(path.path, "rb", cache_type="none")


def _from_arrow(error: Exception) -> bool:
    """Whether Arrow complains of damaged bytes, not a store: OSErrors of stores carry a number, those of Arrow none."""
    return type(error).__module__.startswith("pyarrow") or (type(error) is OSError and error.errno is None)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters; its class where it has no message."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0][:300]
