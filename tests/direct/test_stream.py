"""A folder of parts that grows: which parts count, and every sample trained once over stops, parts and ranks."""

import os
from dataclasses import asdict

import pytest
from tests.direct.conftest import KEYS, flat_table, recd, samples

from recd_dist.direct import stream_parts
from recd_dist.direct.open_direct import open_direct
from recd_dist.direct.stream_form import load_form, save_form
from recd_dist.direct.stream_parts import PartWatcher, first_folder, table_of_parts
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.job import resolve

STREAM = ["reader.follow=true", "reader.follow_idle_s=0", "data.split=null", "data.drop=[day]"]


@pytest.fixture
def watcher(write, configure, monkeypatch):
    """A watcher of a folder with two parts, which were written long ago; new ones count at the second look."""
    monkeypatch.setattr(stream_parts, "SETTLE_S", 0.0)
    for name in ("day=1/a.parquet", "day=1/b.parquet"):
        os.utime(write(samples(10), name), (1, 1))
    folder = write(samples(1), "day=2/c.parquet").parents[1]
    (folder / "day=2/c.parquet").unlink()
    config = configure(folder, *STREAM)
    return PartWatcher(str(folder), open_direct(asdict(config.data)))


def names(found):
    return [part.name for part in found[0]]


def test_parts_are_taken_once_when_they_are_whole(watcher, write, caplog):
    assert names(watcher.look()) == ["day=1/a.parquet", "day=1/b.parquet"]
    assert watcher.look() == ([], None)
    path = write(samples(12), "day=2/c.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    write(samples(5), "day=2/.d.parquet.partial")
    write(samples(5), "day=2/e.parquet")
    assert [watcher.look() for _ in range(3)] == [([], None)] * 3, "c is not whole, and e waits for it"
    path.write_bytes(content)
    watcher.look()
    assert names(watcher.look()) == ["day=2/c.parquet", "day=2/e.parquet"]
    write(samples(5), "day=1/late.parquet")
    watcher.look()
    assert names(watcher.look()) == ["day=1/late.parquet"]
    assert "1 parts have come late" in caplog.text


def test_a_part_that_is_written_anew_is_an_error(watcher, write):
    watcher.look()
    path = write(samples(10), "day=1/a.parquet")
    watcher.look()  # the same rows in the same bytes
    write(samples(10, seed=1), "day=1/a.parquet")
    with pytest.raises(DataError, match=r"day=1/a.parquet: was written anew after it was taken to be trained"):
        watcher.look()
    path.unlink()
    assert watcher.look() == ([], None), "what was trained may be removed"


def test_a_part_that_gets_another_name_is_not_trained_twice(watcher, write):
    parts, _ = watcher.look()
    write(samples(12, seed=2), "day=2/c.parquet")
    folder = write(samples(10, seed=3), "day=1/a.parquet.tmp").parents[1]
    (folder / "day=1/a.parquet").rename(folder / "day=2/d.parquet")
    watcher.look()
    with pytest.raises(DataError, match=r"day=2/d.parquet: looks like day=1/a.parquet, which was taken to be trained"):
        watcher.look()
    later = PartWatcher(str(folder), watcher._table, parts)
    later.look()
    with pytest.raises(DataError, match="Parts must keep their names"):
        later.look()


def test_a_part_of_other_columns_is_an_error(watcher, write):
    watcher.look()
    write(flat_table(samples(5)).drop_columns("item"), "day=2/c.parquet")
    watcher.look()
    with pytest.raises(DataError, match=r"day=2/c.parquet: column 'item' is absent"):
        watcher.look()


def test_an_epoch_has_parts_of_one_folder_and_a_sample_for_each_rank(watcher, write):
    parts, flat = watcher.look()
    for name in ("day=2/c.parquet", "day=3/d.parquet"):
        write(samples(1, seed=5), name)
    watcher.look()
    more, later = watcher.look()
    assert flat is not None
    assert later is not None
    assert first_folder(flat, parts, 2) == 2
    assert [first_folder(later, more, least) for least in (1, later.files[0].num_rows + 1, 1000)] == [1, 2, 0]


def test_what_a_run_began_with_is_kept(watcher, tmp_path):
    base = watcher._table
    save_form(tmp_path, base, {"age": [{"standardize": {"mean": 1.0, "std": 2.0}}]})
    kept = load_form(tmp_path)
    assert kept is not None
    assert (kept.manifest.schema, kept.manifest.ids, kept.conversions) == (
        base.manifest.schema, base.manifest.ids, base.conversions,
    )  # fmt: skip
    _, flat = watcher.look()
    assert flat is not None
    table = table_of_parts(kept, flat, first_sample=100)
    assert (table.manifest.parts[0].first_sample, table.manifest.num_samples) == (100, base.manifest.num_samples)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.split=0.1", r"reader.follow=true: data.split=0.1: a stream has no end; write data.split=null"),
        ("epochs=2", "reader.follow=true: epochs=2"),
        ("data.reader=table", "reader.follow=true: parts that come are read with data.reader=direct"),
    ],
)
def test_what_a_stream_has_no_use_for(write, configure, option, message):
    with pytest.raises(ConfigError, match=message):
        resolve(configure(write(samples(5)).parent, *STREAM, option))


def test_each_sample_is_trained_once_over_stops_parts_and_ranks(write, tmp_path):
    """A run that ends in the middle of a part; more parts; two ranks; a part that was written anew."""
    for n in range(2):
        path = write(samples(30, seed=n), f"day={n}/a.parquet")
        os.utime(path, (1, 1))
    run = tmp_path / "run"
    sizes = [f"data.tables.{table}.num_embeddings=300" for table in ("item", "history")]
    data = ["data=parquet", f"data.path={path.parents[1]}", "data.reader=direct", *KEYS, *STREAM, *sizes]
    command = ["train", *data, "batch_size=32", f"run_dir={run}", "record_samples=true"]
    assert recd(*command, "max_steps=3").returncode == 0
    os.utime(write(samples(40, seed=2), "day=2/a.parquet"), (1, 1))
    assert recd(*command, "--nproc", "2").returncode == 0
    assert "trained once, 0 never, 0 more than once" in recd("seen", str(run)).stdout
    write(samples(30, seed=9), "day=0/a.parquet")
    assert recd(*command).returncode != 0
