"""Raw logs in an object store: DuckDB reads them through fsspec, and what is not there is named."""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.table.object_store import Killed, Objects, names, objects
from upath import UPath

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.place.publish import publish
from recd_dist.etl.raw import duckdb_sql
from recd_dist.etl.source.input_files import find_input_files
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query
from recd_dist.reader.order import RowGroup
from recd_dist.reader.table_files import TableFiles
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.manifest import splits_of


@pytest.fixture(autouse=True)
def fresh():
    Objects.reset()
    yield
    Objects.reset()


@pytest.fixture
def logs(tmp_path) -> Path:
    """Two files of clicks, and a third of another format beside them."""
    root = tmp_path / "store/logs"
    root.mkdir(parents=True)
    for number in range(2):
        rows = {"session": [number] * 3, "t": [3, 1, 2], "item": [30, 10, 20], "clicked": [0, 1, 0]}
        pq.write_table(pa.table(rows), root / f"clicks-{number}.parquet")
    pa.csv.write_csv(pa.table({"session": [7], "clicked": [1], "item": [5]}), root / "more.csv")
    return root


def source(path: object, **options: object) -> Source:
    keys = {"session": "session", "timestamp": "t"}
    return Source.from_dict({"name": "shop", "path": str(path), "keys": keys, "labels": ["clicked"], **options})


@pytest.mark.parametrize(
    "samples", [None, "select * from read_parquet('{path}')", "select * from read_parquet(['{path}'])"]
)
def test_logs_of_a_store_to_a_table_of_a_store(logs, tmp_path, samples):
    etl(source(objects(logs) / "*.parquet", samples=samples), tmp_path / "built", progress=False)
    target = objects(tmp_path / "store/shop")
    publish(tmp_path / "built", target)
    rows = TableFiles(ClusteredTable.load(target / "train")).read(RowGroup(0, 0, 0))
    assert rows.session_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.labels[:, 0].tolist() == [1, 0, 0] * 2
    item = rows.columns["item"].values
    assert item[rows.row_of_sample.get("item", slice(None))].tolist() == [10, 20, 30] * 2


def test_one_file_a_directory_and_text(logs):
    with duckdb_sql.connect() as connection:
        for path, count in (("clicks-0.parquet", 3), ("clicks-*.parquet", 6), ("more.csv", 1)):
            query = samples_query(source(objects(logs) / path)).sql
            assert "clicked" in duckdb_sql.describe_query(connection, query, "samples query")
            assert connection.sql(f"select count(*) from ({query})").fetchall() == [(count,)]
        (logs / "more.csv").unlink()
        query = samples_query(source(objects(logs))).sql
        assert duckdb_sql.describe_query(connection, query, "x").keys() == {"session", "t", "item", "clicked"}
        assert connection.sql(f"select count(*) from ({query})").fetchall() == [(6,)]


def test_files_are_known_by_size_and_version(logs):
    """A run is named by its files: those of a store too, so that new logs are not taken for the old ones."""
    (logs / "more.csv").unlink()
    before = find_input_files(source(objects(logs)))
    assert [(Path(name).name, size) for name, size, _ in before.files] == [
        (f"clicks-{n}.parquet", (logs / f"clicks-{n}.parquet").stat().st_size) for n in range(2)
    ]
    assert (before.num_rows, before.memory_bytes) == (6, find_input_files(source(logs)).memory_bytes)
    assert find_input_files(source(objects(logs) / "clicks-*.parquet")) == before
    os.utime(logs / "clicks-0.parquet", ns=(1, 1))
    after = find_input_files(source(objects(logs)))
    assert after.files[1] == before.files[1]
    assert after.files[0][2] != before.files[0][2]


def test_columns_that_drift_are_found_in_a_store(logs):
    pq.write_table(pa.table({"session": ["x"], "t": [1], "item": [1], "clicked": [0]}), logs / "clicks-2.parquet")
    with pytest.raises(DataError, match=r"clicks-2.parquet: column 'session' is VARCHAR, in objects://.*it is BIGINT"):
        find_input_files(source(objects(logs) / "clicks-*.parquet"))


def test_tables_are_made_replaced_and_added_to_in_a_store(logs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (logs / "more.csv").unlink()
    target = objects(tmp_path / "store/shop")

    def sessions() -> list[int]:
        files = TableFiles(ClusteredTable.load(target / "train"))
        assert list(files.table.find_damage()) == []
        num_parts = len(files.table.manifest.parts)
        sessions_of_parts = [files.read(RowGroup(n, 0, 0)).session_ids.tolist() for n in range(num_parts)]
        return sorted({session for part in sessions_of_parts for session in part})

    etl(source(objects(logs) / "clicks-0.parquet"), target, progress=False)
    assert sessions() == [0]
    etl(source(objects(logs) / "clicks-1.parquet"), target, append=True, progress=False)
    assert sessions() == [0, 1]
    with pytest.raises(DataError, match="a table is already there"):
        etl(source(objects(logs)), target, progress=False)
    before = set(names(target))
    etl(source(objects(logs) / "clicks-1.parquet"), target, overwrite=True, progress=False)
    assert sessions() == [1]
    assert not {name for name in before if "part-" in name} & set(names(target))
    assert not list((tmp_path / ".recd-etl").glob("*"))


def test_a_killed_upload_of_the_etl_is_finished_by_the_same_call(logs, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    target = objects(tmp_path / "store/shop")
    made = source(objects(logs) / "clicks-*.parquet")
    Objects.reset()
    Objects.die_at = 3
    with pytest.raises(Killed):
        etl(made, target, progress=False)
    assert splits_of(target) == []
    Objects.die_at = None
    with caplog.at_level("INFO"):
        etl(made, target, progress=False)
    assert "1 are there already" in caplog.text
    assert list(ClusteredTable.load(target / "train").find_damage()) == []


def test_files_of_several_kinds(logs):
    with pytest.raises(DataError, match=r"files of several kinds \(\.csv, \.parquet\) in this directory"):
        samples_query(source(objects(logs)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logs/click-0.parquet", r"click-0.parquet: not found; did you mean 'clicks-0.parquet'\?"),
        ("logs/*.tsv", r"\*.tsv: no file matches this pattern"),
        ("lugs", r"lugs: not found; did you mean 'logs'\?"),
        ("nothing/here.parquet", r"here.parquet: not found, and neither is anything in objects://.*/nothing$"),
    ],
)
def test_logs_that_are_not_there(logs, name, message):
    with pytest.raises(DataError, match=message):
        inspect(source(objects(logs.parent) / name))


def test_an_unknown_store():
    with pytest.raises(ConfigError, match="unknown protocol 's4'"):
        inspect(source("s4://bucket/x.parquet"))


def test_text_that_only_looks_like_a_path_is_let_be():
    with duckdb_sql.connect() as connection:
        query = "select 'a' as x where 'app://y' like 'gs://%' or 'x' in ('deep://link', 'android-app://z')"
        assert duckdb_sql.describe_query(connection, query, "x") == {"x": "VARCHAR"}
        assert connection.list_filesystems() == []


def test_s3_needs_no_extension_of_duckdb(logs, monkeypatch):
    class Bucket(Objects):
        protocol = ("s3", "s3a")  # its paths have no slash in front

    monkeypatch.chdir("/")
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Bucket)
    path = f"s3://{str(logs).lstrip('/')}/clicks-*.parquet"
    assert isinstance(UPath(path).fs, Bucket)
    with duckdb_sql.connect() as connection:
        query = samples_query(source(path)).sql
        duckdb_sql.describe_query(connection, query, "x")
        assert connection.sql(query).order("session, t").fetchall()[0] == (0, 1, 10, 1)
        duckdb_sql.register_stores(connection, query)  # a second time does no harm
        loaded = connection.sql("select extension_name from duckdb_extensions() where loaded").fetchall()
    assert ("httpfs",) not in loaded
