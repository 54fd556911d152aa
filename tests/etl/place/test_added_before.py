"""Raw files that are added twice: the same ones are skipped, mixed or changed ones are refused."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError, DataError
from recd_dist.etl.compaction import compact
from recd_dist.etl.etl_run import Options
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.location import location
from recd_dist.table.manifest import Manifest

ROWS = 40


def write_log(path: Path, first: int = 0, label: int = 0) -> Path:
    """Forty samples of ten sessions in uncompressed Parquet: another first label leaves the size as it is."""
    number = list(range(first, first + ROWS))
    labels = pa.array([label, *(n % 2 for n in number[1:])], pa.int64())
    table = pa.table(
        {"session": [n // 4 for n in number], "t": number, "item": [n * 7 % 11 for n in number], "clicked": labels}
    )
    options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    pq.write_table(table, path, **options)
    return path


def source(path: object, **options: object) -> Source:
    keys = {"session": "session", "timestamp": "t"}
    return Source.from_dict({"name": "shop", "path": str(path), "keys": keys, "labels": ["clicked"], **options})


def add(path: object, out: object, **options: object) -> int:
    """Adds files to a table; returns its number of samples. The run has another name whenever ``threads`` differs."""
    given = {name: options.pop(name) for name in ("threads", "overwrite", "strict") if name in options}
    return etl(source(path, **options), location(str(out)), append=True, progress=False, **given)["train"].num_samples


def test_the_same_files_are_skipped_whatever_their_names_and_the_runs_options(tmp_path, caplog):
    caplog.set_level("INFO")
    log = write_log(tmp_path / "a.parquet")
    assert add(log, tmp_path / "out") == ROWS
    before = (tmp_path / "out/train/manifest.json").read_bytes()
    log.touch()
    assert add(log, tmp_path / "out", threads=1) == ROWS
    assert add(log.rename(tmp_path / "b.parquet"), tmp_path / "out") == ROWS
    assert (tmp_path / "out/train/manifest.json").read_bytes() == before
    assert caplog.text.count("all 1 raw files are in the table already, nothing is added") == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_manifest_names_the_files(tmp_path):
    write_log(tmp_path / "a.parquet")
    add(tmp_path / "a.parquet", tmp_path / "out")
    (file,) = Manifest.load(tmp_path / "out/train").raw_files
    assert file.path == str(tmp_path / "a.parquet")
    assert file.num_bytes == (tmp_path / "a.parquet").stat().st_size
    assert file.checksum.startswith("sha256:")
    assert len(file.checksum) == len("sha256:") + 32


def test_some_of_the_files_are_refused(tmp_path):
    write_log(tmp_path / "a.parquet")
    add(tmp_path / "a.parquet", tmp_path / "out")
    write_log(tmp_path / "b.parquet", first=100)
    message = (
        r"append: 1 of 2 raw files are in the table already \(.*a.parquet\).*let data.path name the new files only"
    )
    with pytest.raises(DataError, match=message):
        add(f"{tmp_path}/*.parquet", tmp_path / "out")
    assert Manifest.load(tmp_path / "out/train").num_samples == ROWS
    assert add(tmp_path / "b.parquet", tmp_path / "out") == 2 * ROWS


def test_a_copy_among_the_files_of_a_run_is_announced(tmp_path, caplog):
    log = write_log(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to(log)
    write_log(tmp_path / "c.parquet", label=1)  # of the same size
    with pytest.raises(DataError, match=r"1 raw files are copies of others \(.*b.parquet of .*a.parquet"):
        add(f"{tmp_path}/*.parquet", tmp_path / "out", strict=True)
    assert add(f"{tmp_path}/*.parquet", tmp_path / "out") == 3 * ROWS
    assert "copies of others" in caplog.text


def test_other_content_under_the_same_name_is_refused(tmp_path):
    log = write_log(tmp_path / "a.parquet")
    size = log.stat().st_size
    add(log, tmp_path / "out")
    write_log(log, label=1)  # one label corrected
    assert log.stat().st_size == size
    with pytest.raises(
        DataError, match=r"a.parquet is in the table already and had other content then.*overwrite=true"
    ):
        add(log, tmp_path / "out")
    made = etl(source(log), tmp_path / "out", overwrite=True, progress=False)["train"]
    assert (made.num_samples, len(made.raw_files)) == (ROWS, 1)


def test_a_replaced_partition_takes_the_corrected_file(tmp_path):
    day = {"partition": "day", "samples": "select * replace (make_timestamp(t) as t) from '{path}'"}
    policy = {"policy": {"earliest": "1969-01-01"}}
    log = write_log(tmp_path / "a.parquet")
    add(log, tmp_path / "out", **day, **policy)
    write_log(log, label=1)
    made = etl(source(log, **day, **policy), tmp_path / "out", append=True, replace=["1970-01-01"], progress=False)
    assert (made["train"].num_samples, len(made["train"].raw_files)) == (ROWS, 1)
    assert add(log, tmp_path / "out", **day, **policy, threads=1) == ROWS


def test_another_query_of_the_same_file_is_announced(tmp_path, caplog):
    log = write_log(tmp_path / "a.parquet")
    parts = (
        {"samples": "select * from '{path}' where session < 5"},
        {"samples": "select * from '{path}' where session >= 5"},
    )
    assert add(log, tmp_path / "out", **parts[0]) == ROWS // 2
    with pytest.raises(
        DataError, match=r"--strict: .* suspicious thing.*1 raw files are in the table already by another"
    ):
        add(log, tmp_path / "out", **parts[1], strict=True)
    assert add(log, tmp_path / "out", **parts[1]) == ROWS
    assert "a sample that both queries read will be there twice" in caplog.text
    assert add(log, tmp_path / "out", **parts[0], threads=1) == ROWS
    assert add(log, tmp_path / "out", **parts[1], threads=1) == ROWS


def test_files_of_a_groups_own_query_may_come_again(tmp_path):
    for day in (0, 1):
        folder = tmp_path / f"day-{day}"
        folder.mkdir()
        write_log(folder / "clicks.parquet", first=100 * day)
        pq.write_table(pa.table({"item": list(range(200)), "price": [0.5] * 200}), folder / "items.parquet")
    sql = "select item, price from '{path}/items.parquet'"
    options = {"samples": "select * from '{path}/clicks.parquet'", "groups": {"goods": {"key": "item", "sql": sql}}}
    assert add(tmp_path / "day-0", tmp_path / "out", **options) == ROWS
    assert add(tmp_path / "day-1", tmp_path / "out", **options) == 2 * ROWS
    assert len(Manifest.load(tmp_path / "out/train").raw_files) == 2


def test_compaction_keeps_the_files(tmp_path):
    for number in (0, 1):
        add(write_log(tmp_path / f"{number}.parquet", first=100 * number), tmp_path / "out")
    compact(tmp_path / "out", Options(), progress=False)
    assert len(Manifest.load(tmp_path / "out/train").raw_files) == 2
    assert add(tmp_path / "0.parquet", tmp_path / "out", threads=1) == 2 * ROWS


def test_a_table_of_an_older_release_is_read_and_added_to(tmp_path):
    log = write_log(tmp_path / "a.parquet")
    add(log, tmp_path / "out")
    manifest = tmp_path / "out/train/manifest.json"
    value = json.loads(manifest.read_text())
    del value["raw_files"]
    manifest.write_text(json.dumps(value))
    assert Manifest.load(tmp_path / "out/train").raw_files == ()
    assert add(write_log(tmp_path / "b.parquet", first=100), tmp_path / "out") == 2 * ROWS
    assert [Path(f.path).name for f in Manifest.load(tmp_path / "out/train").raw_files] == ["b.parquet"]


def test_logs_and_tables_in_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = fsspec.filesystem("memory")
    store.pipe("/logs/a.parquet", write_log(tmp_path / "a.parquet").read_bytes())
    assert add("memory://logs/a.parquet", "memory://tables/twice") == ROWS
    assert add("memory://logs/a.parquet", "memory://tables/twice", threads=1) == ROWS
    store.pipe("/logs/a.parquet", write_log(tmp_path / "a.parquet", label=1).read_bytes())
    with pytest.raises(DataError, match="had other content then"):
        add("memory://logs/a.parquet", "memory://tables/twice")
    store.rm("/tables", recursive=True)


def test_to_append_and_to_overwrite_exclude_each_other(tmp_path):
    log = write_log(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="append=true overwrite=true: one adds to the table that is there"):
        add(log, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_empty_files_are_no_files_that_the_table_holds(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "empty.csv").touch()
        (folder / "full.csv").write_text(f"session,t,item,clicked\n{number},1,5,0\n{number},2,6,1\n")
        assert add(folder, tmp_path / "out") == 2 * number


def test_new_files_by_another_query_are_announced(tmp_path, caplog):
    caplog.set_level("INFO")
    query = "select * from read_parquet('{path}')"
    add(write_log(tmp_path / "a.parquet"), tmp_path / "out", samples=query)
    add(write_log(tmp_path / "b.parquet", first=ROWS), tmp_path / "out", samples=query)
    assert "by the query of this run" not in caplog.text
    assert add(write_log(tmp_path / "c.parquet", first=2 * ROWS), tmp_path / "out") == 3 * ROWS
    assert "append: no file of the table was read by the query of this run" in caplog.text
