"""Flat files while they are read: every sample once on any number of ranks, and files that change meanwhile."""

import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.direct.conftest import flat_table, samples

from recd_dist.errors import ConfigError, DataError
from recd_dist.job.job import Job, resolve
from recd_dist.reader import equal_rows, taken_rows
from recd_dist.reader.chunks import flat_pages
from recd_dist.reader.load_loops import load_direct_loops
from recd_dist.reader.loader import Loader
from recd_dist.reader.raw_rows import RawRows

CUT = {"row_group_size": 100}


def loader_of(job: Job, **options: Any) -> Loader:
    given = {"batch_size": 40, "seed": 5, "window": 2} | options
    return Loader(job.table, job.schema, job.tables, job.transforms.fit(job.table), **given)


@pytest.fixture
def job(write, configure):
    """Files of some units: three folders, since the row groups of one folder would be joined."""
    rows = samples(150)
    third = len(rows) // 3
    for day in range(3):
        path = write(rows[day * third : (day + 1) * third], f"day={day}/part.parquet", **CUT)
    return resolve(configure(path.parent.parent, "data.drop=[day]"))


def test_a_job_that_changes_its_ranks_trains_each_sample_once(job):
    """One rank, then two after a kill, then three: what each has trained adds up to every sample, once."""
    seen, state = [], None
    for world_size, num_batches in ((1, 2), (2, 2), (3, 100)):
        loaders = [loader_of(job, rank=rank, world_size=world_size, state=state) for rank in range(world_size)]
        for loader in loaders:
            for number, batch in enumerate(loader):
                if number == num_batches:
                    break
                seen += batch.sample_ids.tolist()
        state = loaders[0].state(min(num_batches, len(loaders[0])))
        for loader in loaders:
            loader.close()
    assert sorted(seen) == list(range(job.manifest.num_samples))


def test_worker_processes_read_the_same_batches(job):
    threaded, workers = loader_of(job), loader_of(job, num_workers=1)
    pairs = zip(threaded, workers, strict=True)
    for a, b in pairs:
        assert (a.sample_ids.tolist(), a.sparse.values.tolist()) == (b.sample_ids.tolist(), b.sparse.values.tolist())
    threaded.close()
    workers.close()


def test_the_position_of_other_files_is_refused(job, write, configure):
    state = loader_of(job).state(1)
    other = resolve(configure(write(samples(150, seed=1), "../other.parquet", **CUT)))
    with pytest.raises(ConfigError, match="resume: the checkpoint was made on another table"):
        loader_of(other, state=state)
    moved = resolve(configure(job.table.path, "data.drop=[day]", "reader.equal_rows=hash"))
    loader_of(moved, state=state).close()


def test_a_file_that_is_rewritten_while_it_is_read(job):
    """By the same rows, so that only its time tells; a batch of a file that was read before is still trained."""
    reader = loader_of(job, order="table", window=1)
    batches = iter(reader)
    next(batches)
    last = job.table.raw_files[2].path
    content = last.read_bytes()
    last.write_bytes(content)
    os.utime(last, ns=(1, 1))
    with pytest.raises(DataError, match=r"day=2/part.parquet: written anew since this job has opened it; the files"):
        list(batches)
    reader.close()
    with pytest.raises(DataError, match=r"day=2/part.parquet: written anew"):
        loader_of(job)


def test_a_file_that_is_deleted_while_it_is_read(job):
    reader = loader_of(job, order="table", window=1)
    batches = iter(reader)
    next(batches)
    job.table.raw_files[2].path.unlink()
    with pytest.raises(DataError, match=r"day=2/part.parquet: gone since this job has opened it; the files of a run"):
        list(batches)
    reader.close()


def test_a_file_of_other_rows_in_its_place(job, write):
    write(flat_table(samples(10)), "day=1/part.parquet")
    with pytest.raises(DataError, match=r"day=1/part.parquet: [\d,]+ bytes, it had [\d,]+ since this job"):
        list(loader_of(job))


def test_a_damaged_page_names_its_file(write, configure):
    path = write(samples(60), compression="zstd")
    job = resolve(configure(path))
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[40:2000] = b"\xff" * 1960
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"flat.parquet, row group 0: cannot be decoded"):
        list(loader_of(job))


def test_a_damaged_list_that_pyarrow_reads_as_fewer_rows(write, configure):
    """Where all else is decoded by loops of our own, pyarrow reads the lists alone, and compares them with nothing."""
    rows = [dict(row, history=[row["item"], 2]) for row in samples(20)]
    path = write(rows, compression="none", use_dictionary=False)
    job, before, whole = resolve(configure(path)), path.stat(), path.read_bytes()
    chunk = next(
        c for c in pq.read_metadata(path).row_group(0).to_dict()["columns"] if "history" in c["path_in_schema"]
    )
    refused = 0
    for place in range(chunk["data_page_offset"], chunk["data_page_offset"] + 80):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            num_rows = len(pq.ParquetFile(path).read_row_group(0, columns=["history"]))
        except (pa.ArrowException, OSError):
            continue
        if num_rows != len(rows):
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            with pytest.raises(DataError, match=r"cannot be decoded \(\d+ rows, its footer tells of"):
                RawRows(job.table.raw_files, ["history"]).read(job.table.units[0][0])
            refused += 1
    assert refused


def test_loops_that_were_loaded_are_not_compiled_again(job):
    load_direct_loops()
    loops = (flat_pages.decode_flat_pages, equal_rows._flag_rows, equal_rows._find_first_equals)
    loops += (taken_rows._count_values, taken_rows._copy_rows)
    compiled = [list(loop.signatures) for loop in loops]
    list(loader_of(job))
    assert all(compiled)
    assert [list(loop.signatures) for loop in loops] == compiled
