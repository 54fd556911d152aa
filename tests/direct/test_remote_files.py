"""Flat files in an object store are read as local ones are: here in a store of tests, which behaves as S3 does."""

import logging
from dataclasses import asdict

import pytest
from tests.direct.conftest import samples
from tests.direct.test_open_direct import contents
from tests.table.object_store import Objects, objects

from recd_dist.direct.open_direct import open_direct
from recd_dist.direct.stream_parts import PartWatcher
from recd_dist.errors import DataError
from recd_dist.job.job import resolve
from recd_dist.job.open_table import open_split_directly


@pytest.fixture(autouse=True)
def fresh():
    Objects.reset()
    yield
    Objects.reset()


@pytest.fixture
def folder(write):
    """Three files in folders of days."""
    rows = samples(150)
    for day in range(3):
        path = write(rows[day * 290 : day * 290 + 290], f"day={day}/part.parquet", row_group_size=100)
    return path.parent.parent


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_local_files(folder, configure, num_workers):
    here = contents(resolve(configure(folder, "data.drop=[day]")))
    there = contents(resolve(configure(objects(folder), "data.drop=[day]")), num_workers=num_workers)
    assert len(here) == 870
    assert there == here


def test_a_unit_is_one_request(folder, configure, monkeypatch):
    job, requests, cat_file = resolve(configure(objects(folder), "data.drop=[day]")), [], Objects.cat_file

    def counted(self, path, start=None, end=None, **options):
        requests.append(path)
        return cat_file(self, path, start, end, **options)

    monkeypatch.setattr(Objects, "cat_file", counted)
    contents(job)
    assert len(requests) == 2 * 3  # a footer and the columns of each file, whose row groups are joined to one unit


@pytest.mark.parametrize(("change", "told"), [("cut", "bytes, it had"), ("gone", "gone since this job has opened it")])
def test_an_object_that_changes_is_named(folder, configure, change, told):
    job, path = resolve(configure(objects(folder), "data.drop=[day]")), folder / "day=1/part.parquet"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"^objects://.*day=1/part.parquet: .*{told}"):
        contents(job)


def test_parts_of_a_stream_come_in_a_store(folder, configure, write):
    """An object is there when it is whole: it is taken at the first look."""
    config = configure(objects(folder), "data.drop=[day]", "reader.follow=true")
    watcher = PartWatcher(str(objects(folder)), open_direct(asdict(config.data)))
    assert [part.name for part in watcher.look()[0]] == [f"day={day}/part.parquet" for day in range(3)]
    write(samples(5), "day=3/part.parquet")
    assert [part.name for part in watcher.look()[0]] == ["day=3/part.parquet"]
    write(samples(9, seed=2), "day=3/part.parquet")
    with pytest.raises(DataError, match=r"day=3/part.parquet: was written anew after it was taken to be trained"):
        watcher.look()


def test_objects_that_were_trained_are_told_apart_by_their_names(folder, configure, caplog):
    trained = configure(objects(folder), "data.drop=[day]")
    with caplog.at_level(logging.WARNING):
        table = open_split_directly(trained, None, "all", str(objects(folder / "day=1")), None)
    assert table.manifest.num_samples == 290
    assert "1 of its 1 files are those that the run was trained on" in caplog.text
