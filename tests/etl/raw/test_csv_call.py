"""CSV files: types hold for all rows, and what does not fit is named with file, line, column, value and cure."""

from pathlib import Path

import duckdb
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.raw.duckdb_sql import connect
from recd_dist.etl.raw.pin_reads import PinnedQuery, pin_reads
from recd_dist.etl.raw.read_options import ReadOptions, read_text_options
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.source.source import Source

BEYOND = 21_000
"""More rows than DuckDB looks at when it guesses types."""


def write(path: Path, rows: list[str], header: str = "a,b,c", end: str = "\n", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join([header, *rows]) + end).encode(encoding))
    return path


def rows(count: int = 40) -> list[str]:
    return [f"{i},{i % 7},x{i % 5}" for i in range(count)]


def pin(path: Path, **options: object) -> PinnedQuery:
    return pin_reads(WrittenSql.of(f"select * from read_csv('{path}')"), ReadOptions(**options))


def types(query: PinnedQuery) -> dict[str, str]:
    return {row[0]: row[1] for row in duckdb.sql(f"describe {query.sql}").fetchall()}


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (
            "n/a,1,x",
            r"x.csv, line 21002, column 'a': 'n/a' is no BIGINT \(1 of 21,001 .*data.null_values=\[n/a\].*types.a=VARC",
        ),
        ("5,6", r"x.csv, line 21002: fewer values than the 3 columns: '5,6'; .*sed -i '21002d'"),
        ("5,6,7,8", r"x.csv, line 21002: more values than the 3 columns .*: '5,6,7,8'"),
        ("5,6,caf\xe9", r"x.csv, line 21002, column 'c': not written in UTF-8: .*; say .*: data.csv.encoding=latin-1"),
    ],
)
def test_a_late_line_that_does_not_fit_is_named(tmp_path, late, message):
    file = write(tmp_path / "x.csv", [*rows(BEYOND), late], encoding="latin-1")
    with pytest.raises(DataError, match=message):
        pin(file)


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        (
            '"a,b,c"',
            ['"1,2,""x"""'] * 9,
            r"line 1: every line is quoted as a whole .*one column instead of 3; take .*sed",
        ),
        (
            "a,b,c",
            ["1,2,x", "1,2", *["3,4,y"] * 30],
            r"line 3: 2 values where the first line has 3: '1,2'; mend the line",
        ),
        ("a,b,c", ["1,2,caf\xe9"], r"line 2: not written in UTF-8: .*data.csv.encoding=latin-1"),
    ],
)
def test_an_early_line_that_does_not_fit_is_named(tmp_path, header, lines, message):
    file = write(tmp_path / "x.csv", lines, header, encoding="latin-1")
    with pytest.raises(DataError, match=rf"x\.csv, {message}"):
        pin(file)


def test_a_reading_error_is_never_one_of_writing(tmp_path):
    file = write(tmp_path / "x.csv", [*rows(BEYOND), "n/a,1,x"], "session,clicked,item")
    source = Source.from_dict({"path": str(file), "keys": {"session": "session"}, "labels": ["clicked"], "groups": {}})
    with pytest.raises(DataError, match="line 21002, column 'session': 'n/a'"):
        etl(source, tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_types_come_from_all_rows(tmp_path):
    file = write(tmp_path / "x.csv", [*rows(BEYOND), "9223372036854775808,2.5,y"])
    query = pin(file)
    assert types(query) == {"a": "UBIGINT", "b": "DOUBLE", "c": "VARCHAR"}
    assert duckdb.sql(f"select max(a), sum(b) - floor(sum(b)) from ({query.sql})").fetchall() == [(2**63, 0.5)]
    (few,) = query.notices
    assert few.found.startswith("column 'b': 1 of 21,001 numbers have a fraction")
    assert few.suspicious
    assert not pin(file, types=(("b", "DOUBLE"),)).notices


def test_a_type_that_the_query_states_is_checked(tmp_path):
    file = write(tmp_path / "x.csv", [*rows(BEYOND), "1,2.5,y"])
    query = f"select b from read_csv('{file}', types = {{'b': 'INTEGER'}})"
    with pytest.raises(DataError, match=r"line 21002, column 'b': '2.5' is no BIGINT .*data.csv.types.b=DOUBLE"):
        pin_reads(WrittenSql.of(query), ReadOptions())
    assert types(pin_reads(WrittenSql.of(query), ReadOptions(types=(("b", "DOUBLE"),)))) == {"b": "DOUBLE"}


@pytest.mark.parametrize(("text", "share"), [("NULL", 2), ("\\N", 50), ("NA", 30), ("n/a", 2), ("", 2)])
def test_missing_values_keep_numbers_numbers(tmp_path, text, share):
    lines = [f"{text if i % share == 1 else i},{i},x" for i in range(300)]
    file = write(tmp_path / "x.csv", lines)
    if text:
        with pytest.raises(DataError, match=r"line 3, column 'a': .* is no BIGINT \(\d+ of 300 values"):
            pin(file)
    query = pin(file, null_values=(text,))
    assert types(query)["a"] == "BIGINT"
    missing = len(range(1, 300, share))
    assert duckdb.sql(f"select count(*) - count(a) from ({query.sql})").fetchall() == [(missing,)]


def test_text_that_is_text_stays_text(tmp_path):
    lines = [f"{'A' if i % 4 == 0 else ''}{i},{i % 2},x" for i in range(200)]
    assert types(pin(write(tmp_path / "x.csv", lines)))["a"] == "VARCHAR"


@pytest.mark.parametrize(
    ("dates", "order", "first"),
    [
        (["11/09/2019 13:05:58", "25/09/2019 13:05:58"], "day", "2019-09-11 13:05:58"),
        (["11/9/2019 9:05:58 AM", "11/25/2019 9:05:58 AM"], "month", "2019-11-09 09:05:58"),
        (["03.02.2026", "28.02.2026"], "day", "2026-02-03 00:00:00"),
    ],
)
def test_dates_whose_order_shows_are_announced(tmp_path, dates, order, first):
    query = pin(write(tmp_path / "x.csv", [f"{date},1,x" for date in dates]))
    assert [notice.found for notice in query.notices if f"dates are read {order} first" in notice.found]
    assert duckdb.sql(f"select a::varchar from ({query.sql}) limit 1").fetchall() == [(first,)]


def test_dates_that_have_two_readings_are_refused_until_a_format_is_given(tmp_path):
    file = write(tmp_path / "x.csv", ["11/09/2019 13:05:58,1,x", "12/10/2019 13:05:58,2,x"])
    with pytest.raises(
        DataError, match=r"column 'a': every date can be read day first and month .*data.csv.timestamp_f"
    ):
        pin(file)
    query = pin(file, timestamp_format="%m/%d/%Y %H:%M:%S")
    assert duckdb.sql(f"select min(a)::varchar from ({query.sql})").fetchall() == [("2019-11-09 13:05:58",)]
    write(tmp_path / "y.csv", ["25/10/2019 13:05:58,1,x"])
    query = pin(tmp_path / "*.csv")  # another file of the same log tells
    assert duckdb.sql(f"select min(a)::varchar from ({query.sql})").fetchall() == [("2019-09-11 13:05:58",)]
    write(tmp_path / "y.csv", ["11/25/2019 13:05:58,1,x", "25/11/2019 13:05:58,1,x"])
    with pytest.raises(DataError, match="1 dates can only be read day first and 1 only month first"):
        pin(tmp_path / "y.csv")


def test_times_with_and_without_zone_are_not_mixed(tmp_path):
    file = write(tmp_path / "x.csv", ["2026-11-25T10:00:00Z,1,x", "2026-11-25T10:00:00,1,x"])
    with pytest.raises(DataError, match="column 'a' mixes 1 times that name their zone with 1 that do not"):
        pin(file)
    query = pin(write(tmp_path / "x.csv", ["2026-11-25T10:00:00+02:00,1,x", "2026-11-25 10:00:00Z,1,x"]))
    assert types(query)["a"] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("a,b,d", rows(), r"b.csv: column 'c' is absent, in .*a.csv it is there.*read_csv\('{path}', union_by_name"),
        ("a,b,c,d", [f"{row},9" for row in rows()], r"b.csv: column 'd' is there, in .*a.csv it is absent"),
        ("a,b,c", ["p1,2,x"] * 9, r"b.csv: column 'a' is VARCHAR, in .*a.csv it is BIGINT.*data.csv.types.a=VARCHAR"),
        ("a,b,c", ["0.5,2,x"] * 9, r"b.csv: column 'a' is DOUBLE, in .*a.csv it is BIGINT"),
    ],
)
def test_files_that_drift_are_refused(tmp_path, header, lines, message):
    write(tmp_path / "a.csv", rows())
    write(tmp_path / "b.csv", lines, header)
    with pytest.raises(DataError, match=message):
        pin(tmp_path / "*.csv")


def test_files_whose_columns_stand_in_another_order_are_read_by_name(tmp_path):
    write(tmp_path / "a.csv", ["1,2,x"])
    write(tmp_path / "b.csv", ["y;3;4"], "c;a;b")
    query = pin(tmp_path / "*.csv")
    assert sorted(duckdb.sql(query.sql).fetchall()) == [(1, 2, "x"), (3, 4, "y")]


def test_how_a_file_is_written_can_be_said(tmp_path):
    file = write(tmp_path / "x.csv", ["1,5;'p;q';caf\xe9"] * 3, "", encoding="latin-1")
    given = {
        "delimiter": ";",
        "quote": "'",
        "header": False,
        "names": ["a", "b", "c"],
        "decimal": ",",
        "encoding": "latin-1",
    }
    mistakes: list[str] = []
    options = read_text_options([], given, mistakes)
    assert mistakes == []
    query = pin_reads(WrittenSql.of(f"from read_csv('{file}')"), options)
    assert duckdb.sql(query.sql).fetchall()[0] == (1.5, "p;q", "caf\xe9")


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ({"delimeter": ";"}, "unknown csv.delimeter; did you mean 'delimiter'?"),
        ({"delimiter": ";;"}, "csv.delimiter=';;': must be one character"),
        ("x", "csv must map options to values"),
        ({"types": ["a"]}, "csv.types must map columns to DuckDB types"),
    ],
)
def test_mistakes_in_options(csv, message):
    mistakes: list[str] = []
    read_text_options(None, csv, mistakes)
    assert message in "\n".join(mistakes)


def test_a_last_column_without_name_and_value_is_left_out(tmp_path):
    file = write(tmp_path / "x.tsv", ["1\t2\tx\t"] * 3, "a\tb\tc\t")
    assert types(pin(file)) == {"a": "BIGINT", "b": "BIGINT", "c": "VARCHAR"}


@pytest.mark.parametrize("count", [9, 3000])
def test_lines_that_end_in_a_delimiter_are_read(tmp_path, count):
    file = write(tmp_path / "x.tsv", ["1\t2\tx\t"] * count, "a\tb\tc")
    query = pin(file)
    assert types(query) == {"a": "BIGINT", "b": "BIGINT", "c": "VARCHAR"}
    assert duckdb.sql(f"select count(*), sum(b) from ({query.sql})").fetchall() == [(count, 2 * count)]


def test_first_lines_that_are_no_data_are_announced(tmp_path):
    query = pin(write(tmp_path / "x.csv", ["", "a,b,c", *rows()], "# made by hand"))
    assert len(duckdb.sql(query.sql).fetchall()) == 40
    assert "the first 2 lines are passed over" in query.notices[0].found


def test_a_table_of_many_columns_is_planned_once(tmp_path):
    """One expression for each column would take DuckDB minutes here, and gigabytes."""
    file = write(tmp_path / "x.csv", [",".join(map(str, range(400)))] * 3, ",".join(f"c{n}" for n in range(400)))
    assert set(types(pin(file)).values()) == {"BIGINT"}


@pytest.mark.parametrize(
    ("value", "sql", "expected"),
    [
        ("true", "a::float", 1.0),
        ("true", "a::bigint", 1),
        ("2026-11-25 01:00:00+02:00", "(a::date)::varchar", "2026-11-24"),
    ],
)
def test_a_cast_in_the_query_does_not_change_how_a_column_is_read(tmp_path, value, sql, expected):
    query = pin(write(tmp_path / "x.csv", [value] * 3, header="a"))
    with connect("500MB", threads=1) as connection:
        assert connection.execute(f"select distinct {sql} from ({query.sql})").fetchall() == [(expected,)]


def test_an_empty_file_adds_nothing(tmp_path):
    write(tmp_path / "a.csv", rows())
    (tmp_path / "b.csv").touch()
    query = pin(tmp_path / "*.csv")
    assert types(query) == {"a": "BIGINT", "b": "BIGINT", "c": "VARCHAR"}
    assert duckdb.sql(f"select count(*) from ({query.sql})").fetchall() == [(40,)]


@pytest.mark.parametrize(("header", "read"), [("a,a,c", "a, a_1"), ("a,A,c", "a, A_1"), ("a,a_1,c", None)])
def test_a_column_that_stands_twice_is_announced(tmp_path, header, read):
    found = [notice.found for notice in pin(write(tmp_path / "x.csv", rows(), header=header)).notices]
    assert [text.rpartition("read as ")[2] for text in found] == ([read] if read else [])


def test_a_file_that_is_no_archive_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x.csv.gz: .*not a GZIP"):
        pin(write(tmp_path / "x.csv.gz", rows()))
