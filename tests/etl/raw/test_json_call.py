"""JSON lines: types hold for all rows of all files."""

import gzip
import json
from pathlib import Path

import duckdb
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw.pin_reads import PinnedQuery, pin_reads
from recd_dist.etl.raw.read_options import ReadOptions
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.source_queries import samples_query

BEYOND = 21_000


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pin(path: Path, **options: object) -> PinnedQuery:
    return pin_reads(WrittenSql.of(f"select * from read_json('{path}')"), ReadOptions(**options))


def types(query: PinnedQuery) -> dict[str, str]:
    return {row[0]: row[1] for row in duckdb.sql(f"describe {query.sql}").fetchall()}


def test_types_come_from_all_rows(tmp_path):
    rows = [{"a": i, "l": [i], "t": "2026-11-25T10:00:00", "s": "7"} for i in range(BEYOND)]
    query = pin(write(tmp_path / "x.jsonl", [*rows, {"a": 2.5, "l": [1.5], "t": "2026-11-25T11:00:00", "s": "8"}]))
    assert types(query) == {"a": "DOUBLE", "l": "DOUBLE[]", "t": "TIMESTAMP", "s": "VARCHAR"}
    assert duckdb.sql(f"select sum(a) - floor(sum(a)) from ({query.sql})").fetchall() == [(0.5,)]


def test_a_text_among_numbers_is_named_or_missing(tmp_path):
    file = write(tmp_path / "x.jsonl", [*({"a": i} for i in range(50)), {"a": "n/a"}])
    with pytest.raises(DataError, match=r"x.jsonl, line 51, column 'a': 'n/a' is no BIGINT .*data.null_values=\[n/a\]"):
        pin(file)
    query = pin(file, null_values=("n/a",))
    assert types(query) == {"a": "BIGINT"}
    assert duckdb.sql(f"select count(*), count(a), max(a) from ({query.sql})").fetchall() == [(51, 50, 49)]


def test_dates_are_read_as_in_csv(tmp_path):
    query = pin(write(tmp_path / "x.jsonl", [{"t": "11/09/2019"}, {"t": "25/09/2019"}]))
    assert [str(row[0])[:10] for row in duckdb.sql(query.sql).fetchall()] == ["2019-09-11", "2019-09-25"]
    assert "dates are read day first" in query.notices[0].found
    with pytest.raises(DataError, match="every date can be read day first and month first"):
        pin(write(tmp_path / "x.jsonl", [{"t": "11/09/2019"}]))


def test_keys_that_only_one_file_has_stay(tmp_path):
    write(tmp_path / "a.jsonl", [{"a": 1, "l": []}])
    write(tmp_path / "b.jsonl", [{"a": 2, "l": [5], "b": "x"}])
    query = pin(tmp_path / "*.jsonl")
    assert types(query) == {"a": "BIGINT", "l": "BIGINT[]", "b": "VARCHAR"}
    assert duckdb.sql(query.sql).fetchall() == [(1, [], None), (2, [5], "x")]


def test_types_of_two_files_that_do_not_go_together(tmp_path):
    write(tmp_path / "a.jsonl", [{"a": 1}])
    write(tmp_path / "b.jsonl", [{"a": "x"}])
    with pytest.raises(DataError, match=r"b.jsonl: column 'a' is VARCHAR, in .*a.jsonl it is BIGINT"):
        pin(tmp_path / "*.jsonl")


def test_a_broken_line_is_named_without_the_query(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 2}\n')
    with pytest.raises(DataError, match=r"x.jsonl: .*in line [23]: ") as caught:
        pin(tmp_path / "x.jsonl")
    assert "describe" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.ndjson", "x.jsonl.gz"])
def test_paths_that_are_json_need_no_query(tmp_path, name):
    text = b'{"a": 1}\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    query = samples_query(Source.from_dict({"path": str(tmp_path), "labels": ["a"]}))
    assert duckdb.sql(query.sql).fetchall() == [(1,)]


def test_an_empty_file_adds_nothing(tmp_path):
    write(tmp_path / "a.jsonl", [{"a": 1}])
    (tmp_path / "b.jsonl").touch()
    assert types(pin(tmp_path / "*.jsonl")) == {"a": "BIGINT"}
    with pytest.raises(DataError, match=r"b.jsonl: the file is empty"):
        pin(tmp_path / "b.jsonl")


def test_keys_that_differ_in_case_alone_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x.jsonl: keys that differ in upper and lower case alone \(A, a\)"):
        pin(write(tmp_path / "x.jsonl", [{"a": 1}, {"A": 2}]))
    assert types(pin(write(tmp_path / "y.jsonl", [{"a": 1, "a_1": 2}]))) == {"a": "BIGINT", "a_1": "BIGINT"}
