"""Raw logs in an object store: DuckDB reads them through fsspec, and what is not there is named."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.object_store import Objects, objects
from upath import UPath

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl import sql
from recd_dist.etl.columns import inspect
from recd_dist.etl.publish import publish
from recd_dist.etl.run import etl
from recd_dist.etl.source import Source
from recd_dist.reader.files import TableFiles
from recd_dist.reader.order import RowGroup


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
    rows = TableFiles(target / "train").read(RowGroup(0, 0, 0))
    assert rows.session_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.labels[:, 0].tolist() == [1, 0, 0] * 2
    item = rows.columns["item"].values
    assert item[rows.rows["item"] if "item" in rows.rows else slice(None)].tolist() == [10, 20, 30] * 2


def test_one_file_a_directory_and_text(logs):
    with sql.connect() as connection:
        for path, count in (("clicks-0.parquet", 3), ("clicks-*.parquet", 6), ("more.csv", 1)):
            query = sql.default_samples(sql.checked_path(str(objects(logs) / path)))
            assert "clicked" in sql.described(connection, query, "samples query")
            assert connection.sql(f"select count(*) from ({query})").fetchall() == [(count,)]
        (logs / "more.csv").unlink()
        query = sql.default_samples(sql.checked_path(str(objects(logs))))
        assert sql.described(connection, query, "x").keys() == {"session", "t", "item", "clicked"}
        assert connection.sql(f"select count(*) from ({query})").fetchall() == [(6,)]


def test_files_of_several_kinds(logs):
    with pytest.raises(DataError, match=r"files of several kinds \(\.csv, \.parquet\) in this directory"):
        sql.default_samples(str(objects(logs)))


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
    with sql.connect() as connection:
        query = "select 'a' as x where 'app://y' like 'gs://%' or 'x' in ('deep://link', 'android-app://z')"
        assert sql.described(connection, query, "x") == {"x": "VARCHAR"}
        assert connection.list_filesystems() == []


def test_s3_needs_no_extension_of_duckdb(logs, monkeypatch):
    class Bucket(Objects):
        protocol = ("s3", "s3a")  # its paths have no slash in front

    monkeypatch.chdir("/")
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Bucket)
    path = f"s3://{str(logs).lstrip('/')}/clicks-*.parquet"
    assert isinstance(UPath(path).fs, Bucket)
    with sql.connect() as connection:
        query = sql.default_samples(sql.checked_path(path))
        sql.described(connection, query, "x")
        assert connection.sql(query).order("session, t").fetchall()[0] == (0, 1, 10, 1)
        sql.register_stores(connection, query)  # a second time does no harm
        loaded = connection.sql("select extension_name from duckdb_extensions() where loaded").fetchall()
    assert ("httpfs",) not in loaded
