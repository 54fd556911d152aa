"""A table in an object store is read as a local one is, in worker processes too, and only what is asked is fetched."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.reader.conftest import SCHEMA, TABLES, SmallTable, samples_of, write_table
from tests.table.object_store import Objects, objects

from recd_dist.cli import main
from recd_dist.errors import DataError
from recd_dist.etl.place.publish import publish
from recd_dist.etl.raw import duckdb_sql
from recd_dist.reader.loader import Loader
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.flat import flat_view
from recd_dist.table.location import location
from recd_dist.table.manifest import Manifest
from recd_dist.table.stats.table_stats import measure_table

ROOT = Path(__file__).parents[2]
FOOTER = 1 << 16  # what Arrow reads of a file's end at first


@pytest.fixture(autouse=True)
def fresh():
    Objects.reset()
    yield
    Objects.reset()


def batches(table, **options):
    reader = Loader(ClusteredTable.load(table), SCHEMA, TABLES, batch_size=32, window=3, **options)
    try:
        return list(reader)
    finally:
        reader.close()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_local_table(small, num_workers):
    there = batches(objects(small.path), num_workers=num_workers)
    here = batches(small.path, num_workers=num_workers)
    assert len(there) == len(here) > 5
    for a, b in zip(there, here, strict=True):
        assert torch.equal(a.sparse.values, b.sparse.values)
        assert torch.equal(a.sparse.lengths, b.sparse.lengths)
        assert torch.equal(a.sparse.inverse, b.sparse.inverse)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.sample_ids, b.sample_ids)
        assert all(torch.equal(a.dense[group], b.dense[group]) for group in b.dense)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> SmallTable:
    """Histories of a thousand ids each: nearly all bytes are theirs."""
    rng = np.random.default_rng(0)
    samples = [replace(s, history=rng.integers(0, 50, 1000).tolist()) for s in samples_of(200)]
    path = tmp_path_factory.mktemp("heavy")
    return SmallTable(path, samples, write_table(path, samples, row_group_size=400, row_groups_per_part=3))


def chunk(path: Path, row_group: int, columns: list[str]) -> int:
    """Bytes of some columns in a row group, from the footer."""
    metadata = pq.ParquetFile(path).metadata.row_group(row_group)
    found = [metadata.column(i) for i in range(metadata.num_columns)]
    return sum(c.total_compressed_size for c in found if c.path_in_schema.split(".")[0] in columns)


def test_only_the_columns_asked_for_are_fetched(heavy):
    user = heavy.path / "user/part-00000.parquet"
    assert user.stat().st_size > 10 * FOOTER
    schema = SCHEMA.without(["history"])
    TableFiles(ClusteredTable.load(objects(heavy.path)), schema).read(RowGroup(0, 1, 0))
    wanted = chunk(user, 1, ["row", "age"])
    assert Objects.fetched[str(user)] == FOOTER + wanted
    assert wanted < user.stat().st_size / 100


def test_a_row_group_is_one_request_a_file_and_a_footer_is_fetched_once(heavy, monkeypatch):
    requests = []
    cat_file = Objects.cat_file

    def counted(self, path, start=None, end=None, **options):
        requests.append(f"{Path(path).parent.name}/{Path(path).name}")
        return cat_file(self, path, start, end, **options)

    files = TableFiles(ClusteredTable.load(objects(heavy.path)))
    monkeypatch.setattr(Objects, "cat_file", counted)
    files.read(RowGroup(0, 0, 0))
    assert sorted(requests) == sorted([f"{group}/part-00000.parquet" for group in ("samples", "user", "profile")] * 2)
    requests.clear()
    files.read(RowGroup(0, 1, 0))
    assert sorted(requests) == [f"{group}/part-00000.parquet" for group in ("profile", "samples", "user")]


def test_sizes_are_checked_by_one_listing(small, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a request for each file takes minutes")

    files = TableFiles(ClusteredTable.load(objects(small.path)))
    monkeypatch.setattr(Objects, "info", refuse)
    files.check_sizes()


def test_checksums_of_a_whole_table(small):
    assert list(ClusteredTable.load(objects(small.path)).find_damage()) == []


def test_missing_cut_and_damaged_objects_are_named(spoiled):
    table = spoiled()
    files = TableFiles(ClusteredTable.load(objects(table.path)))
    path = table.path / "user/part-00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"^objects://.*user/part-00001.parquet: [\d,]+ bytes, [\d,]+ were written"):
        files.check_sizes()
    path.write_bytes(b"\xff" * len(data))
    with pytest.raises(DataError, match=r"user/part-00001.parquet: not a readable Parquet file"):
        files.read(RowGroup(1, 0, 0))
    path.write_bytes(data[:4] + b"\xff" * 100 + data[104:])
    assert [f"{damage.path.name}: {damage.problem.split()[1]}" for damage in files.table.find_damage()] == [
        "part-00001.parquet: checksum"
    ]
    path.unlink()
    with pytest.raises(DataError, match=r"user/part-00001.parquet: no such file, though the manifest names it"):
        files.check_sizes()


def test_a_table_that_is_replaced_under_a_reader(spoiled):
    table = spoiled()
    files = TableFiles(ClusteredTable.load(objects(table.path)))
    files.read(RowGroup(0, 0, 0))
    (table.path / "samples/part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"samples/part-00000.parquet: gone; the table was replaced while it was read"):
        files.read(RowGroup(0, 1, 0))


def test_a_store_that_fails_while_it_is_read(small, monkeypatch):
    class ClientError(Exception):
        pass

    def fail(*_, **__):
        raise ClientError("SlowDown: reduce your request rate")

    files = TableFiles(ClusteredTable.load(objects(small.path)))
    monkeypatch.setattr(Objects, "cat_file", fail)
    with pytest.raises(DataError, match=r"part-00000.parquet: the store answers with ClientError \(SlowDown: reduce"):
        files.read(RowGroup(0, 0, 0))


def test_no_table_in_a_store(tmp_path):
    with pytest.raises(DataError, match=r"^objects://.*/train: no clustered table here"):
        Manifest.load(objects(tmp_path) / "train")


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tiny, tmp_path) -> str:
    """The tiny table, published."""
    publish(Path(tiny[2].removeprefix("data.table=")), objects(tmp_path / "store/tiny"))
    return f"data.table=objects://{tmp_path}/store/tiny"


def test_statistics_are_those_of_the_local_table(tiny, stored):
    here, there = (Path(tiny[2].removeprefix("data.table=")), stored.removeprefix("data.table="))
    for split in ("train", "test"):
        assert measure_table(f"{there}/{split}").to_json() == measure_table(here / split).to_json()


@pytest.mark.usefixtures("own_logging")
def test_recd_stats_of_a_store(stored, capsys):
    assert main(["stats", "data=tiny", stored]) == 0
    shown = capsys.readouterr().out
    assert "tiny/train" in shown
    assert "tiny/test" in shown
    assert main(["stats", "data=tiny", f"{stored}/nothing"]) == 2
    assert main(["stats", "data=tiny", "data.table=s4://bucket/x"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"recd: error: {stored}/nothing: no clustered table there")
    assert errors[1] == "recd: error: s4://bucket/x: unknown protocol 's4'; there are: gcs, gs, hdfs, s3, s3a"


def recd(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "recd_dist.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_job_of_two_ranks_with_workers_trains_from_a_store(tiny, stored, tmp_path):
    """Processes that know the store as they would s3: by an installed package that names it to fsspec."""
    package = tmp_path / "package/objects_for_tests-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: objects-for-tests\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[fsspec.specs]\nobjects = tests.table.object_store:Objects\n")
    paths = os.pathsep.join([str(package.parent), str(ROOT), os.environ.get("PYTHONPATH", "")])
    job = ["data=tiny", stored, f"run_dir={tmp_path / 'run'}", "batch_size=256", "max_steps=4", "reader.num_workers=1"]
    shown = recd("train", *job, "--nproc", "2", PYTHONPATH=paths)
    assert "AUC, test" in shown
    assert "objects://" in recd("evaluate", f"run_dir={tmp_path / 'run'}", PYTHONPATH=paths)


def test_flat_samples_of_a_store_are_those_of_the_local_table(tiny, stored):
    here, there = Path(tiny[2].removeprefix("data.table=")), location(stored.removeprefix("data.table="))
    with duckdb_sql.connect() as connection:
        query = flat_view(there / "test")
        duckdb_sql.register_stores(connection, query)
        found = connection.sql(f"select * from ({query}) order by sample_id").fetchall()
        assert found == connection.sql(f"select * from ({flat_view(here / 'test')}) order by sample_id").fetchall()
    assert len(found) == Manifest.load(here / "test").num_samples
