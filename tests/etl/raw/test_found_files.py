"""What lies in a folder: data, marks of other engines, columns in the names of folders, tables of other formats."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw import table_formats
from recd_dist.etl.raw.found_files import find_files
from recd_dist.etl.raw.pin_reads import PinnedQuery, pin_reads
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.raw.table_formats import foreign_table
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query


def put(root: Path, *names: str, **columns: list[object]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.table(columns or {"a": [1]}), path)
        else:
            path.write_text("{}")


def query_of(path: Path) -> PinnedQuery:
    return samples_query(Source.from_dict({"path": str(path), "labels": ["a"]}))


def values(path: Path) -> list[tuple[object, ...]]:
    return duckdb.sql(query_of(path).sql).fetchall()


def test_marks_of_other_engines_are_passed_over(tmp_path):
    put(
        tmp_path, "a.parquet", "day/b.parquet", "_SUCCESS", "_metadata", ".a.parquet.crc", "a.parquet.crc", "README.txt"
    )
    put(tmp_path, "_temporary/0/c.parquet", ".hidden/d.parquet", ".e.parquet")
    assert [Path(file.name).name for file in find_files(f"{tmp_path}/**/*.parquet")] == ["a.parquet", "b.parquet"]
    assert values(tmp_path) == [(1,), (1,)]
    assert values(tmp_path / "*.parquet") == [(1,)]
    assert [file.name for file in find_files(f"{tmp_path}/.e.parquet")] == [f"{tmp_path}/.e.parquet"]


def test_names_with_brackets_stand_for_themselves(tmp_path):
    put(tmp_path, "clicks[1].parquet", "clicks (2).parquet")
    assert values(tmp_path / "clicks[1].parquet") == values(tmp_path / "clicks (2).parquet") == [(1,)]
    assert len(values(tmp_path)) == 2


def test_a_files_own_column_wins_over_the_name_of_its_folder(tmp_path):
    put(tmp_path, "t=2026-11-25/a.parquet", t=[7, 8])
    query = query_of(tmp_path / "t=2026-11-25/a.parquet")
    assert duckdb.sql(query.sql).fetchall() == [(7,), (8,)]
    assert "own column is read" in query.notices[0].found
    written = pin_reads(
        WrittenSql.of(f"from read_parquet('{tmp_path}/*/*.parquet', hive_partitioning = true)"), ReadOptions()
    )
    assert duckdb.sql(written.sql).fetchall()[0][0] != 7  # the query itself asks for it


def test_columns_of_folders_are_announced(tmp_path):
    put(tmp_path, "dt=2026-11-25/a.parquet", "dt=2026-11-26/a.parquet")
    query = query_of(tmp_path)
    assert [str(row[1]) for row in duckdb.sql(query.sql).fetchall()] == ["2026-11-25", "2026-11-26"]
    assert "names of folders give a column: dt (such as 2026-11-25)" in query.notices[0].found
    assert "data.drop=[dt]" in query.notices[0].cure


def test_folders_that_would_be_half_read_are_refused(tmp_path):
    put(tmp_path, "day=1/t=3/a.parquet", "day=2/t=3/a.parquet", t=[7])
    with pytest.raises(
        DataError, match="column 't' stands in the file and in the folder's name, and 'day' only in the"
    ):
        query_of(tmp_path)
    put(tmp_path, "other.parquet", t=[7])
    with pytest.raises(DataError, match="not all folders have the same key=value names"):
        query_of(tmp_path)


@pytest.mark.parametrize(
    ("mark", "data", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "day=1/a.parquet", "Delta"),
        ("metadata/v1.metadata.json", "data/a.parquet", "Iceberg"),
        (".hoodie/hoodie.properties", "a.parquet", "Hudi"),
    ],
)
def test_tables_of_other_formats_are_never_read_file_by_file(tmp_path, mark, data, kind, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise duckdb.IOException("no network")

    monkeypatch.setattr(table_formats, "connect", refuse)
    put(tmp_path / "t", mark, data)
    with pytest.raises(DataError, match=rf"path {tmp_path}/t: an? {kind} table"):
        query_of(tmp_path / "t")
    for path in (tmp_path / "t" / data, f"{tmp_path}/t/**/*.parquet"):
        with pytest.raises(DataError, match=rf"a.parquet: a file of the {kind} table {tmp_path}/t, .*data.path="):
            query_of(path)
    with pytest.raises(DataError, match=f"a file of the {kind} table"):
        pin_reads(WrittenSql.of(f"select * from read_parquet('{tmp_path}/t/{data}')"), ReadOptions())


def test_duckdbs_own_readers_are_used_where_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(table_formats, "_load_extension", lambda *_: None)
    put(tmp_path / "d", "_delta_log/0.json")
    put(tmp_path / "i", "metadata/v9.metadata.json", "metadata/v10.metadata.json")
    for name, scan in (
        ("d", f"delta_scan('{tmp_path}/d')"),
        ("i", f"iceberg_scan('{tmp_path}/i/metadata/v10.metadata.json')"),
    ):
        table = foreign_table(str(tmp_path / name))
        assert table is not None
        assert table.query() == f"select * from {scan}"


def test_files_of_several_kinds(tmp_path):
    put(tmp_path, "a.parquet", "b.csv")
    with pytest.raises(DataError, match=r"files of several kinds \(\.csv, \.parquet\)"):
        query_of(tmp_path)
