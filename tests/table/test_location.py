"""Paths: local or in a store, what cannot be one, and files that are written whole."""

import pickle
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from tests.table.object_store import Killed, Objects, names, objects
from upath import UPath

from recd_dist.errors import ConfigError, DataError
from recd_dist.table.location import (
    arrow_input,
    contents,
    directories,
    file_size,
    file_sizes,
    is_remote,
    listing,
    location,
    put,
)


@pytest.fixture(autouse=True)
def fresh():
    Objects.reset()
    yield
    Objects.reset()


def test_text_without_a_protocol_is_local(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert location("tables/mine") == Path("tables/mine")
    assert location("~/mine") == Path("/home/ada/mine")
    assert location("file:///data/mine") == Path("/data/mine")
    assert type(location("x")) is type(Path("x"))
    assert not is_remote(location("x"))


def test_a_protocol_is_a_store():
    path = location("memory://bucket/mine") / "train"
    assert is_remote(path)
    assert (str(path), path.name, str(path.parent)) == ("memory://bucket/mine/train", "train", "memory://bucket/mine")
    assert location(path) is path
    assert pickle.loads(pickle.dumps(path)) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://bucket/x", r"s3://bucket/x: the library for s3:// is not installed; pip install 'recd-dist\[s3\]'"),
        ("gs://bucket/x", r"the library for gs:// is not installed; pip install 'recd-dist\[gcs\]'"),
        ("az://bucket/x", r"the library for az:// is not installed; Install adlfs$"),
    ],
)
def test_a_library_that_is_missing(text, message, monkeypatch):
    def absent(protocol):
        raise ImportError("Install adlfs\nand more")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(ConfigError, match=message):
        location(text)


def test_an_unknown_protocol():
    with pytest.raises(ConfigError, match=r"s4://bucket/x: unknown protocol 's4'; there are: gcs, gs, hdfs, s3"):
        location("s4://bucket/x")
    with pytest.raises(ConfigError, match=r"unknown protocol 'hfds'; did you mean 'hdfs'\?"):
        location("hfds://host/x")


def test_credentials_in_a_path_are_refused_and_not_shown():
    with pytest.raises(
        ConfigError, match=r"s3://\*\*\*@bucket/x: holds a user and password .*environment variables"
    ) as error:
        location("s3://KEY:pa55@bucket/x")
    assert "pa55" not in str(error.value)


def test_a_store_that_cannot_be_opened(monkeypatch):
    class Hadoop(MemoryFileSystem):
        def __init__(self, *_, **__):
            raise OSError("Unable to load libjvm\ndlopen failed, and more lines")

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hdfs", Hadoop)
    with pytest.raises(ConfigError, match=r"hdfs://host/x: the store cannot be opened \(.*JAVA_HOME.* CLASSPATH$"):
        location("hdfs://host/x")


@pytest.mark.parametrize("text", ["s3:///x", "gs://"])
def test_a_bucket_that_is_missing(text):
    with pytest.raises(ConfigError, match=rf"{text}: names no bucket; write (s3|gs)://BUCKET/PATH"):
        location(text)


def test_extras_of_the_messages_are_in_pyproject():
    import tomllib

    from recd_dist.table.location import EXTRAS

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {extra for extra in EXTRAS.values() if extra not in project["optional-dependencies"]} == set()


@pytest.mark.parametrize("remote", [False, True])
def test_a_small_file_is_put_and_read(tmp_path, remote):
    place = objects(tmp_path) if remote else tmp_path
    put(place / "x.json", b"one")
    put(place / "x.json", b"three")
    assert contents(place / "x.json") == b"three"
    assert names(objects(tmp_path)) == ["x.json"]
    with pytest.raises(FileNotFoundError):
        contents(place / "y.json")


def test_an_object_store_gets_one_put_and_a_dying_one_changes_nothing(tmp_path):
    place = objects(tmp_path) / "x.json"
    put(place, b"old")
    assert Objects.writes == [f"put {tmp_path}/x.json"]
    Objects.die_at = 1
    with pytest.raises(Killed):
        put(place, b"new")
    assert contents(place) == b"old"


def test_a_store_that_shows_files_while_they_are_written_gets_a_rename(monkeypatch):
    calls, pipe, move = [], MemoryFileSystem.pipe_file, AbstractFileSystem.mv

    def pipe_file(self, path, value, **options):
        calls.append(f"write {path}")
        pipe(self, path, value, **options)

    def mv(self, path1, path2, **options):
        calls.append(f"rename {path1} {path2}")
        assert not self.exists(path2)  # HDFS renames onto no file
        move(self, path1, path2, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    monkeypatch.setattr(MemoryFileSystem, "mv", mv)
    monkeypatch.setattr("recd_dist.table.location._RENAMING", {"memory"})
    path = UPath("memory://renaming/m.json")
    for text in (b"old", b"new"):
        put(path, text)
    assert calls == ["write /renaming/.m.json.partial", "rename /renaming/.m.json.partial /renaming/m.json"] * 2
    assert contents(path) == b"new"
    assert path.fs.ls("/renaming", detail=False) == ["/renaming/m.json"]


@pytest.mark.parametrize("remote", [False, True])
def test_sizes_and_directories(tmp_path, remote):
    for name in ("train/samples/a", "train/b", "test/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "d").write_bytes(b"")
    place = objects(tmp_path) if remote else tmp_path
    assert file_sizes(place, ["train/samples/a", "test/c", "nope", "train"]) == {"train/samples/a": 15, "test/c": 6}
    assert directories(place) == ["test", "train"]
    assert directories(place / "nope") == []
    assert [file_size(place / name) for name in ("train/b", "train", "nope", "d")] == [7, None, None, 0]
    if remote:
        assert listing(place) == {"train/samples/a": 15, "train/b": 7, "test/c": 6, "d": 0}
        assert listing(place / "nope") == {}


def test_a_file_in_a_store_is_read_by_ranges(tmp_path):
    (tmp_path / "x").write_bytes(bytes(100_000))
    with arrow_input(objects(tmp_path) / "x") as file:
        file.seek(50_000)
        assert len(file.read(10)) == 10
    assert Objects.fetched == {f"{tmp_path}/x": 10}
    assert arrow_input(tmp_path / "x") == tmp_path / "x"


def test_what_a_store_raises_is_one_line(tmp_path, monkeypatch):
    class NoCredentialsError(Exception):
        pass

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate credentials\nand a long story")

    for name in ("cat_file", "pipe_file", "info", "find", "ls", "_open"):
        monkeypatch.setattr(Objects, name, refuse)
    place = objects(tmp_path) / "x"
    for ask in (contents, file_size, listing, directories, arrow_input, lambda path: put(path, b"")):
        with pytest.raises(DataError, match=r"NoCredentialsError \(Unable to locate credentials\); credentials and"):
            ask(place)
