"""Calls of readers are found in queries as DuckDB's own parser sees them."""

import pytest

from recd_dist.etl.raw.reader_calls import find_calls, replace_calls


@pytest.mark.parametrize(
    ("sql", "reader", "files", "options"),
    [
        ("from read_csv('x.csv')", "read_csv", "'x.csv'", {}),
        ("from READ_CSV_AUTO ( 'x', sep = ',', header=true )", "read_csv", "'x'", {"sep": "','", "header": "true"}),
        ("from read_csv(['a', 'b,('], types => {'a': 'INT'})", "read_csv", "['a', 'b,(']", {"types": "{'a': 'INT'}"}),
        ("select 'é' from parquet_scan('x' || 'y')", "read_parquet", "'x' || 'y'", {}),
        ("from t join 'd/x.parquet' using (a)", "read_parquet", "'d/x.parquet'", {}),
        ('select 1 from "d/x.csv.gz"', "read_csv", "'d/x.csv.gz'", {}),
        ("from read_ndjson('x')", "read_json", "'x'", {}),
    ],
)
def test_calls(sql, reader, files, options):
    (call,) = find_calls(sql)
    assert (call.reader, call.files, dict(call.options)) == (reader, files, options)


@pytest.mark.parametrize(
    "sql",
    [
        "select 'from read_csv(''x'')' as a",
        "select 1 -- from read_csv('x')",
        "select a from t where b = 'x.csv'",
        "select read_csv from t",
        "from unnest(['x.csv'])",
    ],
)
def test_what_only_looks_like_a_call(sql):
    assert find_calls(sql) == []


def test_calls_are_replaced_where_they_stand():
    sql = "select 'é', * from read_csv('x') as t join read_parquet('y', a = 1) using (k) -- read_csv('z')"
    first, second = find_calls(sql)
    replaced = replace_calls(sql, {first.span: "A", second.span: "(B)"})
    assert replaced == "select 'é', * from A as t join (B) using (k) -- read_csv('z')"
