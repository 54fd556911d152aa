"""Iceberg and Delta tables read directly: the files of a snapshot, by the tables' own libraries if they are there."""

import sys

import pytest
from tests.direct.conftest import flat_table, samples

from recd_dist.direct.table_snapshots import snapshot_files
from recd_dist.errors import ConfigError, DataError
from recd_dist.job.job import resolve


@pytest.mark.parametrize(
    ("folder", "file", "extra"), [("_delta_log", "0.json", "delta"), ("metadata", "v1.metadata.json", "iceberg")]
)
def test_a_library_that_is_not_there_is_named(tmp_path, configure, monkeypatch, folder, file, extra):
    (tmp_path / "table" / folder).mkdir(parents=True)
    (tmp_path / "table" / folder / file).write_text("{}")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    monkeypatch.setitem(sys.modules, "pyiceberg.table", None)
    with pytest.raises(
        ConfigError, match=rf"{extra.title()} table, whose library is not installed; pip install 'recd-dist\[{extra}\]'"
    ):
        resolve(configure(tmp_path / "table"))


def test_hudi_and_snapshots_of_plain_files_are_refused(tmp_path, configure, write):
    (tmp_path / "table/.hoodie").mkdir(parents=True)
    with pytest.raises(DataError, match="a Hudi table, for which there is no reader"):
        resolve(configure(tmp_path / "table"))
    with pytest.raises(ConfigError, match=r"data.snapshot=7: .* is no Iceberg or Delta table, and has no snapshots"):
        resolve(configure(write(samples(5)), "data.snapshot=7"))


def test_a_delta_table(tmp_path, configure):
    deltalake = pytest.importorskip("deltalake", reason="pip install 'recd-dist[delta]'")
    root, first, second = str(tmp_path / "table"), flat_table(samples(20)), flat_table(samples(30, seed=1))
    deltalake.write_deltalake(root, first)
    deltalake.write_deltalake(root, second, mode="append")
    job = resolve(configure(root))
    assert job.manifest.num_samples == len(first) + len(second)
    assert resolve(configure(root, "data.snapshot=0")).manifest.num_samples == len(first)
    deltalake.DeltaTable(root).delete("price > 0.5")
    assert len(snapshot_files(root) or ()) >= 1
    num_left = sum(value <= 0.5 for table in (first, second) for value in table["price"].to_pylist())
    assert resolve(configure(root)).manifest.num_samples == num_left, "rows that were rewritten are not read twice"
    with pytest.raises(DataError, match=r"table that cannot be read|no such"):
        resolve(configure(root, "data.snapshot=99"))


def test_an_iceberg_table(tmp_path, configure):
    catalogs = pytest.importorskip("pyiceberg.catalog.sql", reason="pip install 'recd-dist[iceberg]'")
    catalog = catalogs.SqlCatalog("own", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/wh")
    catalog.create_namespace("logs")
    first, second = flat_table(samples(20), item=None), flat_table(samples(30, seed=1), item=None)
    table = catalog.create_table("logs.clicks", first.schema)
    table.append(first)
    before = table.current_snapshot().snapshot_id
    table.append(second)
    root = table.location().removeprefix("file://")
    assert resolve(configure(root)).manifest.num_samples == len(first) + len(second)
    assert resolve(configure(root, f"data.snapshot={before}")).manifest.num_samples == len(first)
    with pytest.raises(ConfigError, match=r"data.snapshot=99: the Iceberg table .* has no such snapshot"):
        resolve(configure(root, "data.snapshot=99"))
