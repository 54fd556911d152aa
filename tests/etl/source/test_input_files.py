"""Raw files are compared before they are read: columns that come, go or change are named."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.input_files import find_input_files
from recd_dist.etl.source.source import Source

ROWS = {"session": [1, 2], "clicked": [0, 1], "history": [[1, 2], [3]], "item": [5, 6]}


def source(path: Path, **options: object) -> Source:
    given = {"path": str(path / "*.parquet"), "keys": {"session": "session"}, "labels": ["clicked"], "groups": {}}
    return Source.from_dict(given | options)


def write(path: Path, name: str, **changes: object) -> None:
    rows = {key: value for key, value in (ROWS | changes).items() if value is not None}
    pq.write_table(pa.table(rows), path / f"{name}.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": None}, "column 'item' is absent, in .*a.parquet it is BIGINT.*union_by_name"),
        ({"extra": [1, 2]}, "column 'extra' is BIGINT, in .*a.parquet it is absent"),
        ({"history": [1, 2]}, "column 'history' is BIGINT, in .*a.parquet it is BIGINT\\[\\].*lists and single"),
        ({"item": [[1], [2]]}, "column 'item' is BIGINT\\[\\], in .*a.parquet it is BIGINT"),
        ({"item": ["x", "y"]}, "column 'item' is VARCHAR, in .*a.parquet it is BIGINT"),
        ({"item": [0.5, 1.5]}, "column 'item' is DOUBLE, in .*a.parquet it is BIGINT"),
    ],
)
def test_drift_is_found_before_anything_is_read(tmp_path, change, message):
    write(tmp_path, "a")
    write(tmp_path, "b", **change)
    with pytest.raises(DataError, match=f"b.parquet: {message}"):
        etl(source(tmp_path), tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_wider_integers_are_no_drift(tmp_path):
    write(tmp_path, "a", item=pa.array([5, 6], pa.int32()))
    write(tmp_path, "b", session=[3, 4])
    assert etl(source(tmp_path), tmp_path / "out", progress=False)["train"].num_samples == 4


def test_a_query_that_unites_by_name_is_left_alone(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", item=None)
    sql = "select * replace (coalesce(item, 0) as item) from read_parquet('{path}', union_by_name = true)"
    assert etl(source(tmp_path, samples=sql), tmp_path / "out", progress=False)["train"].num_samples == 4


def test_files_of_a_directory_of_different_tables_are_compared_by_pattern(tmp_path):
    write(tmp_path, "clicks")
    pq.write_table(pa.table({"session": [1, 2], "age": [3, 4]}), tmp_path / "users.parquet")
    options = {"samples": "select * from read_parquet('{path}/clicks.parquet')"}
    user = {"sql": "select * from read_parquet('{path}/users.parquet')", "key": "session"}
    files = find_input_files(replace(source(tmp_path, groups={"user": user}, **options), path=str(tmp_path)))
    assert [Path(name).name for name, _, _ in files.files] == ["clicks.parquet", "users.parquet"]
    assert files.num_rows is None
    assert files.memory_bytes > 0


def test_rows_are_known_from_the_footers(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    assert find_input_files(source(tmp_path)).num_rows == 4
    (tmp_path / "c.csv").write_text("session,clicked\n1,0\n")
    text = Source.from_dict({"path": str(tmp_path / "c.csv"), "labels": ["clicked"]})
    assert (find_input_files(text).num_rows, find_input_files(text).memory_bytes) == (None, 60)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[: len(raw) // 2], lambda _: b"PAR1"])
def test_damaged_files_are_named_and_nothing_is_left(tmp_path, damage):
    write(tmp_path, "a")
    write(tmp_path, "b")
    file = tmp_path / "b.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"b\.parquet"):
        etl(source(tmp_path), tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
