"""What DuckDB, pyarrow and Hydra do that one would not guess; docs/surprises.md says what we do about it."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser


@pytest.mark.parametrize(("reader", "file", "read"), [("read_csv", "a.csv", 3), ("read_json", "a.json", 2)])
def test_later_fractions_are_rounded_to_whole_numbers(tmp_path: Path, reader: str, file: str, read: int) -> None:
    """Types come from the first 20,480 rows: 2.5 in a later row is 3 in CSV, 2 in JSON, without an error."""
    whole, fraction, head = ("1\n", "2.5\n", "x\n") if reader == "read_csv" else ('{"x": 1}\n', '{"x": 2.5}\n', "")
    (tmp_path / file).write_text(head + whole * 30_000 + fraction)
    with duckdb.connect() as connection:
        assert connection.execute(f"select max(x) from {reader}('{tmp_path / file}')").fetchone() == (read,)


@pytest.mark.parametrize(("text", "month"), [("11/09/2019 13:05:58", 9), ("11/9/2019 9:05:58 AM", 11)])
def test_the_month_of_a_date_with_strokes_depends_on_its_zeros(tmp_path: Path, text: str, month: int) -> None:
    (tmp_path / "a.csv").write_text(f"t\n{text}\n")
    with duckdb.connect() as connection:
        ((read,),) = connection.execute(f"from read_csv('{tmp_path / 'a.csv'}')").fetchall()
    assert read.month == month


def test_a_file_with_and_one_without_a_time_zone_are_read_by_the_machines_zone(tmp_path: Path) -> None:
    """The type of the first file counts; the other is moved by the session's time zone."""
    noon = datetime(2026, 1, 1, 12)
    pq.write_table(pa.table({"t": pa.array([noon], pa.timestamp("us"))}), tmp_path / "naive.parquet")
    pq.write_table(
        pa.table({"t": pa.array([noon.replace(tzinfo=UTC)], pa.timestamp("us", "UTC"))}), tmp_path / "utc.parquet"
    )
    hours = {}
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'America/New_York'")
        for first, second in (("naive", "utc"), ("utc", "naive")):
            files = [str(tmp_path / f"{name}.parquet") for name in (first, second)]
            rows = connection.execute(f"select epoch_us(t) // 3600000000 % 24 from read_parquet({files})").fetchall()
            hours[first] = [hour for (hour,) in rows]
    assert hours == {"naive": [12, 7], "utc": [12, 17]}


def test_nanoseconds_are_rounded_up_into_the_next_day(tmp_path: Path) -> None:
    last = np.array(["2026-01-01T23:59:59.999999600"], "datetime64[ns]")
    pq.write_table(pa.table({"t": last}), tmp_path / "a.parquet")
    with duckdb.connect() as connection:
        (day,) = connection.execute(f"select t::timestamp::date::text from '{tmp_path / 'a.parquet'}'").fetchone() or ()
    assert day == "2026-01-02"


def test_where_isnan_finds_no_nan_in_parquet(tmp_path: Path) -> None:
    """It is taken for false by the file's statistics, which pass over NaN. isfinite() is right."""
    pq.write_table(pa.table({"x": [0.0, float("nan"), 2.0]}), tmp_path / "a.parquet")
    with duckdb.connect() as connection:
        count = f"select count(*) from '{tmp_path / 'a.parquet'}' where"
        kept = [connection.execute(f"{count} {test}").fetchone() for test in ("isnan(x)", "not isfinite(x)")]
    assert kept == [(0,), (1,)]


def test_hashes_of_lists_do_not_see_where_a_list_ends() -> None:
    """Ours does (etl/checksum/row_hashes.py)."""
    with duckdb.connect() as connection:
        query = "select hash([1, 2], [3]) = hash([1], [2, 3]), hash([]::int[]) = hash(null::int[])"
        assert connection.execute(query).fetchone() == (True, True)


def test_options_of_a_list_column_go_by_its_leaf(tmp_path: Path) -> None:
    """compression={"history": ...} names no leaf, and the column is not compressed (etl/write/part_files.py)."""
    table = pa.table({"history": [[1, 2, 3]] * 100})
    for name, codec in (("history", "UNCOMPRESSED"), ("history.list.element", "ZSTD")):
        pq.write_table(table, tmp_path / "a.parquet", compression={name: "zstd"})
        assert pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).compression == codec


def test_a_list_view_cast_to_lists_is_invalid() -> None:
    views = pa.ListViewArray.from_arrays(
        pa.array([2, 0], pa.int32()), pa.array([1, 2], pa.int32()), pa.array([1, 2, 3])
    )
    with pytest.raises(pa.ArrowInvalid):
        views.cast(pa.list_(pa.int64())).validate(full=True)
    assert views.flatten().to_pylist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("text", "value"), [("on", "on"), ("010", "010"), ("1_000", 1000), ("1e3", 1000.0), ("0x10", "0x10")]
)
def test_values_of_overrides(text: str, value: object) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"x={text}"])
    assert override.value() == value
