"""Rows of a group that has its own query."""

import duckdb
import pyarrow as pa
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.source.inspection import ROW_KEY, link_column
from recd_dist.suggest.linked_rows import add_linked_rows, find_rows


def test_each_sample_finds_its_row_by_key() -> None:
    rows = pa.table({ROW_KEY: [7, 3], "likes": [[70], [30]]})
    links = pa.chunked_array([[7, 7, 3], [None, 3, 5]])
    assert find_rows(links, rows).tolist() == [0, 0, 1, -1, 1, -1]
    assert find_rows(links, rows.slice(0, 0)).tolist() == [-1] * 6


def test_more_rows_are_added_once_and_only_if_they_fit() -> None:
    connection = duckdb.connect()
    connection.sql(f"create table likes as select range as {ROW_KEY}, range * 10 as likes from range(10)")
    rows = pa.table({ROW_KEY: [3, 7], "likes": [30, 70]})
    samples = pa.table({link_column("likes"): [7, 1, None, 1]})
    query = "select * from likes"
    assert add_linked_rows(connection, query, "likes", samples, rows, 1 << 20)[ROW_KEY].to_pylist() == [3, 7, 1]
    assert add_linked_rows(connection, query, "likes", samples, rows, 1) is rows


def test_a_query_that_fails_names_its_group() -> None:
    rows = pa.table({ROW_KEY: [3]})
    samples = pa.table({link_column("likes"): [7]})
    with pytest.raises(DataError, match="query of group 'likes': "):
        add_linked_rows(duckdb.connect(), "select * from nothing", "likes", samples, rows, 1 << 20)
