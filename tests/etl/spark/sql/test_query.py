"""Queries give the same rows on Spark and on DuckDB, or Spark refuses them; a test for each construct."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.etl.spark.on_spark import (
    PySparkException,
    QueryContext,
    SparkSession,
    assert_same_rows,
    spark,
    to_data_frame,
    translate_query,
)

from recd_dist.errors import ConfigError
from recd_dist.etl.raw import duckdb_sql as engine

__all__ = ["spark"]  # the fixture

LOGS = """
select i, i // 3 as user, (i % 5)::tinyint as small, (i * 7 % 11)::uinteger as u32, i::hugeint as huge,
  (1::bigint << (i + 22)::int) + 1 as big,
  case when i % 4 = 0 then null else i / 8 end as d, (i / 3)::float as f, (i / 7)::decimal(9,3) as price,
  case i % 6 when 0 then 'nan'::double when 1 then -0.0 else i - 3.5 end as odd,
  ['Æble', '', null, ' x ', '1.5', 'ß'][i % 6 + 1] as word, i % 3 = 0 as yes,
  timestamp '2023-03-26 00:30:00' + interval (i * i * 1000003) microsecond as time, date '2024-02-28' + i::int as day,
  timestamptz '2023-03-26 00:30:00+02' + interval (i) hour as tz,
  case i % 4 when 0 then null when 1 then [] when 2 then [i, null, i + 1] else [i] end as ids,
  [word, 'k'] as words, [i / 3]::float[] as floats
from range(40) t(i)
"""
USERS = "select u as user, 'n' || u as name, [u, u + 1] as liked from range(2, 20) t(u)"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw")
    duckdb.sql(LOGS).write_parquet(str(path / "logs.parquet"))
    duckdb.sql(USERS).write_parquet(str(path / "users.parquet"))
    (path / "x.csv").write_text('a,b,c,d\n1,NULL,"x, y",2024-01-02 03:04:05\n2,,NULL,NULL\n-3,"",é,2024-01-02\n')
    return path


def run_both(query: str, raw: Path, spark: SparkSession) -> tuple[pa.Table, pa.Table]:
    """Runs a query on Spark and on DuckDB; Spark has wider types for unsigned and huge integers."""
    query = query.replace("{logs}", f"'{raw}/logs.parquet'").replace("{users}", f"'{raw}/users.parquet'")
    query = query.replace("{path}", str(raw))
    with engine.connect() as connection:
        context = QueryContext(spark, connection, "samples_spark")
        actual = to_data_frame(translate_query(context, context.trees.parse(query), {})).toArrow()
        expected = connection.sql(query).to_arrow_table()
    return actual, expected.rename_columns(actual.column_names)


QUERIES = {
    "conversions": "select i::int, d::int as half, d::bigint, price::int as p, yes::int, f::double, i::varchar as t, "
    "big::float, big::double as bd, d::varchar as dt, try_cast(word as float) as w, odd::float as o, "
    "small::float as s, huge::bigint as h from {logs}",
    "arithmetic": "select i / 7 as a, i // 7 as b, -i % 7 as c, f / 3, f * 2 + 1, price * 2, price / 3, u32 + 1, "
    "small + small, 1 + d, round(d, 1), floor(d), ln(1 + i), log2(1 + f), sqrt(i), i ** 2, odd > 1, least(i, 5) "
    "from {logs}",
    "text": "select upper(word), lower(word), len(word), word || '!', concat(word, i), word like '%x%', "
    "md5_number_lower(word)::varchar as m, word[1], trim(word), regexp_extract(word, '[0-9]+') from {logs}",
    "times": "select epoch_us(time), epoch(time), hour(time), isodow(time), dayofweek(time), "
    "date_trunc('month', time), "
    "date_trunc('day', day), epoch(time - timestamp '2023-01-01'), epoch_us(tz), hour(tz), day + 1, "
    "time + interval 1 month, strftime(time, '%y-%j') from {logs}",
    "lists": "select ids, ids[1], ids[-2:], len(ids), list_transform(ids, lambda x: x * 2 + i) as l, "
    "[x + 1 for x in ids if x > 3] as c, list_contains(ids, 3), list_sort(words), floats::bigint[], list_sum(ids), "
    "list_concat(ids, [7]) from {logs}",
    "nulls": "select coalesce(d, 0)::float as a, coalesce(i, 0) as b, d is null, word is not null, nullif(i, 3), "
    "coalesce(ids, []) as c, ifnull(word, 'none') from {logs} where d > 1 or d is null",
    "star": "select * exclude (i, ids) replace (u32 + 1 as u32), columns('^s'), "
    "coalesce(columns('^(d)$'), 2) as 'x_\\1' "
    "from {logs}",
    "aliases": "select i + 1 as j, j * 2 as k, k as l from {logs} where j > 3 and k < 40",
    "join": "select l.*, u.name, liked from {logs} l join {users} u using (user) where u.name <> 'n3'",
    "left join": "select i, name, u.user, l.user from {logs} l left join {users} u on u.user = l.user",
    "outer joins": "select user, i, name from (select * from {logs} where i < 9) full join {users} using (user) "
    "union all select user, i, name from {logs} right join {users} using (user)",
    "semi joins": "select i from {logs} semi join {users} using (user) union select i from {logs} anti join {users} "
    "using (user)",
    "joined by expressions": "select a.i, b.i as j from {logs} a join {logs} b on a.i + 6 = b.i and a.word = b.word",
    "groups": "select user, count(*), count(d), count(distinct word), sum(i), min(odd), max(odd), max(word), "
    "sum(i) + 1, "
    "sum(i) filter (i % 2 = 0), bool_or(yes) from {logs} group by user having count(*) > 1",
    "groups of all": "select small, i % 2 as odd_i, count(*) from {logs} group by all",
    "groups by number": "select upper(word) as w, max(time) from {logs} group by 1",
    "aggregate of all": "select count(*), min(day), max(f) from {logs} where i < 0",
    "ordered lists": "select user, list(word order by time, i) as a, list(i order by word, i) filter (i % 2 = 1) as b "
    "from {logs} group by user",
    "windows": "select i, sum(i) over (partition by user) as a, count(*) over (partition by small order by time "
    "range between interval 1 hour preceding and interval 1 microsecond preceding) as b, "
    "rank() over (order by small desc, d) as c, dense_rank() over (partition by yes order by word) as d, "
    "max(d) over (order by i range between 3 preceding and 1 preceding) as e, sum(small) over (order by day) as f "
    "from {logs} qualify c > 2",
    "windows over groups": "select user, sum(count(*)) over () as a, rank() over (order by max(i) desc) as b "
    "from {logs} "
    "group by user",
    "unnest": "select i, unnest(ids) as id, generate_subscripts(words, 1) as n, unnest([1, 2, 3]) as k, i + k as s "
    "from "
    "{logs}",
    "distinct": "select distinct small, yes from {logs} order by small",
    "tables": "with a(x, y) as (select i, word from {logs} where i < 5), b as (select x + 1 as x from a) "
    "select a.x, y, b.x as z from a join b on a.x = b.x where a.x in (1, 2, 3) and a.x between 1 and 9",
    "csv": "select * from read_csv('{path}/x.csv', nullstr = 'NULL')",
}


QUICK = ("nulls", "groups", "windows", "unnest", "csv")


@pytest.mark.parametrize("name", [q if q in QUICK else pytest.param(q, marks=pytest.mark.slow) for q in QUERIES])
def test_a_query_gives_the_same_rows(name, raw, spark):
    actual, expected = run_both(QUERIES[name], raw, spark)
    assert expected.num_rows > 0
    assert_same_rows(actual, expected)


def test_an_ordered_list_has_the_expected_elements(raw, spark):
    query = "select user, list(i order by desc_last, i) as l from (select *, 9 - i as desc_last from {logs}) group by 1"
    actual, _ = run_both(f"{query} having user < 2", raw, spark)
    assert sorted(tuple(row.values()) for row in actual.to_pylist()) == [(0, [2, 1, 0]), (1, [5, 4, 3])]


REFUSED = {
    "select i from {logs} limit 3": "LIMIT",
    "select distinct on (user) i from {logs}": "DISTINCT ON",
    "select random() as x from {logs}": "random()",
    "select now() as x from {logs}": "now()",
    "select i from {logs} using sample 3": "sample",
    "select row_number() over (order by small) as n from {logs}": "row_number()",
    "select lag(i) over (order by small) as n from {logs}": "lag()",
    "select sum(i) over (order by small rows 2 preceding) as n from {logs}": "ROWS",
    "select sum(d) as s from {logs}": "sum of DOUBLE",
    "select avg(i) as s from {logs}": "avg",
    "select first(i) as s from {logs}": "first",
    "select list(i) as s from {logs}": "list",
    "select list(i order by i desc) as s from {logs}": "desc",
    "select geomean(i) as s from {logs}": "aggregate",
    "select (select max(i) from {logs}) as m": "subquery",
    "select i from {logs} where exists (select 1)": "subquery",
    "select a.i from {logs} a join {logs} b on a.i < b.i": "anything but equality",
    "select a.i from {logs} a join {users} b on a.word = b.user": "VARCHAR with BIGINT",
    "select a.i from {logs} a asof join {logs} b on a.i >= b.i": "join",
    "select i from {logs} union select f from {logs}": "different types",
    "select i from {logs} intersect select u32 from {logs}": "INTERSECT",
    "select user, small, count(*) from {logs} group by rollup (user, small)": "ROLLUP",
    "select {'a': i} as s from {logs}": "STRUCT",
    "select 'x'::enum ('y', 'x') as s from {logs}": "ENUM",
    "select rank() over (order by ids) as s from {logs}": "order of BIGINT[]",
    "select list(i order by ids) as s from {logs}": "order of BIGINT[]",
    "select max(ids) as s from {logs}": "max",
    "select time - timestamp '2020-01-01' as s from {logs}": "INTERVAL",
    "select * from read_parquet({logs}, filename = true)": "filename",
    "select * from read_csv('{path}/x.csv', ignore_errors = true)": "ignore_errors",
    "select * from read_text('{path}/x.csv')": "read_text",
    "with recursive r as (select 1 as a union all select a + 1 from r where a < 3) select a from r": "recursive",
    "select * from (values (1, 2)) t(a, b)": "expression list",
}


@pytest.mark.parametrize("query", REFUSED)
def test_a_query_that_may_give_other_rows_is_refused(query, raw, spark):
    with pytest.raises(ConfigError, match="give the query as samples_spark") as error:
        run_both(query, raw, spark)
    assert REFUSED[query] in str(error.value)


def test_a_bad_value_is_an_error_and_no_null(raw, spark):
    with pytest.raises(PySparkException, match="Could not convert string 'Æble' to INT32"):
        run_both("select word::int as w from {logs} where word <> ''", raw, spark)


def test_a_csv_value_must_end_in_its_line(raw, spark, tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,"x\ny"\n2,"z"\n')
    with pytest.raises(PySparkException, match="holds the end of a line"):
        run_both(f"select * from read_csv('{tmp_path}/x.csv', quote = '\"')", raw, spark)


def test_several_csv_files_have_a_header_each(raw, spark, tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.csv").write_text(f"a,b\n{i},x\n{i},y\n")
    actual, expected = run_both(f"select * from read_csv('{tmp_path}/*.csv')", raw, spark)
    assert expected.num_rows == 10
    assert_same_rows(actual, expected)
