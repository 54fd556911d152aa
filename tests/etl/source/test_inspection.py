"""Columns to features: what each type becomes, and what is said of those that do not fit."""

import hashlib
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw.duckdb_sql import TEXT_ID
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source
from recd_dist.table.flat import identifier
from recd_dist.table.schema import Feature, Kind


def source(path: Path, samples: str, **options: object) -> Source:
    return Source.from_dict(
        {"name": "shop", "path": str(path), "samples": samples, "labels": ["y"], "groups": {}} | options
    )


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("1::integer", Kind.id),
        ("1::ubigint", Kind.id),
        ("sum(1)", Kind.id),
        ("true", Kind.id),
        ("'red'", Kind.id),
        ("'red'::enum('red', 'blue')", Kind.id),
        ("uuid()", Kind.id),
        ("[1, 2]", Kind.ids),
        ("[1, 2]::integer[2]", Kind.ids),
        ("[1::tinyint]", Kind.ids),
        ("['red']", Kind.ids),
        ("1.5", Kind.dense),
        ("1.5::double", Kind.dense),
    ],
)
def test_the_kind_follows_from_the_type(tmp_path, sql, kind):
    schema = inspect(source(tmp_path, f"select {sql} as x, 1 as y")).schema
    assert schema.features == (Feature("x", kind, "sample", None if kind is Kind.dense else "x"),)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("timestamp '2024-01-01'", r"column 'x': a TIMESTAMP is no feature; name it keys.timestamp, drop it"),
        ("{'a': 1}", r"column 'x': a STRUCT\(a INTEGER\) is no feature; take its fields in the SQL, such as x.field"),
        ("[1.5]", r"a list of DECIMAL is no list of ids; turn its elements into integers"),
        ("[[1]]", r"a list of INTEGER\[\] is no list of ids"),
        ("interval 3 days", r"an INTERVAL is no feature; take its seconds in the SQL: epoch\(x\)::float as x"),
        ("'a'::blob", r"type BLOB is no feature; cast it in the SQL"),
    ],
)
def test_other_types_are_refused_with_a_remedy(tmp_path, sql, message):
    with pytest.raises(DataError, match=message):
        inspect(source(tmp_path, f"select {sql} as x, 1 as y"))


def test_a_query_may_end_in_a_comment(tmp_path):
    groups = {"g": {"sql": "select 1 as u, 2 as z -- ends here", "key": "u"}}
    schema = inspect(source(tmp_path, "select 1 as u, 3 as x, 1 as y -- so does this", groups=groups)).schema
    assert [f.name for f in schema.features] == ["z", "x"]


def test_kind_and_table_can_be_said(tmp_path):
    features = {"a": {"kind": "dense"}, "b": {"kind": "ids", "table": "t"}, "c": {"kind": "id"}}
    inspection = inspect(source(tmp_path, "select 1 as a, 2 as b, 3.0 as c, 1 as y", features=features))
    assert [(f.kind, f.table) for f in inspection.schema.features] == [
        (Kind.dense, None),
        (Kind.ids, "t"),
        (Kind.id, "c"),
    ]
    assert duckdb.sql(inspection.samples).fetchall() == [(1.0, 1.0, [2], 3)]


def test_every_missing_column_is_named_with_the_nearest(tmp_path):
    with pytest.raises(DataError) as caught:
        inspect(
            source(
                tmp_path,
                "select 1 as session, 2 as device, 0 as clicked, 7 as user",
                keys={"session": "sesion", "timestamp": "time"},
                labels=["cliked"],
                groups={
                    "request": ["devise"],
                    "history": {"sql": "select 7 as usr, [1] as items", "key": "user"},
                    "more": {"sql": "select 7 as user, [1] as other", "key": ["user", "nothing"]},
                },
                features={"devize": {"table": "t"}},
                drop=["sessions"],
            )
        )
    for part in (
        "keys.session: no column 'sesion' in the samples; did you mean 'session'?",
        "keys.timestamp: no column 'time' in the samples; there are: clicked, device, session, user",
        "labels: no column 'cliked' in the samples; did you mean 'clicked'?",
        "groups.request.features: no column 'devise' in the samples; did you mean 'device'?",
        "groups.history.key: no column 'user' in its query; did you mean 'usr'?",
        "groups.more.key: no column 'nothing' in the samples",
        "features.devize: no such column; did you mean 'device'?",
        "drop: no column 'sessions'; did you mean 'session'?",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": {"session": "f"}}, "keys.session: column 'f' is .*; a key is an integer, text or timestamp"),
        ({"keys": {"timestamp": "s"}}, "keys.timestamp: column 's' is VARCHAR; a timestamp is a TIMESTAMP, DATE or"),
        ({"labels": ["s"]}, "labels: column 's' is VARCHAR; a label is a number or true/false"),
        ({"features": {"s": {"kind": "dense"}}}, "column 's': a VARCHAR cannot be dense; cast it in the SQL"),
        ({"features": {"l": {"kind": "id"}}}, r"column 'l': a INTEGER\[\] cannot be kind 'id'; take one element"),
        ({"split": "nonsense > 1"}, "data.split, line 1, column 1: no column 'nonsense'"),
        (
            {"groups": {"g": {"sql": "select 'a' as i, 1 as z", "key": "i"}}},
            "'i' is VARCHAR in the group's query and IN",
        ),
    ],
)
def test_a_column_of_the_wrong_type_is_named(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        inspect(source(tmp_path, "select 1 as i, 's' as s, 1.5 as f, [1] as l, 1 as y", **options))


def test_paths_that_are_not_there(tmp_path):
    (tmp_path / "clicks.parquet").touch()
    (tmp_path / "notes.txt").touch()
    plain = {"labels": ["y"]}
    for path, message in (
        (tmp_path / "click.parquet", "not found; did you mean 'clicks.parquet'?"),
        (tmp_path / "no" / "x.parquet", "not found, and neither is the directory"),
        (tmp_path / "*.csv", "no file matches this pattern"),
        (tmp_path / "notes.txt", "cannot tell its format by its name"),
    ):
        with pytest.raises(DataError) as caught:
            inspect(Source.from_dict(plain | {"path": str(path)}))
        assert message in str(caught.value)


def test_files_are_read_by_their_suffix(tmp_path):
    (tmp_path / "a.csv").write_text("item,y\n3,1\n")
    (tmp_path / "b.tsv").write_text("item\ty\n3\t1\n")
    (tmp_path / "days" / "1").mkdir(parents=True)
    duckdb.sql("select 3 as item, 1 as y").write_parquet(str(tmp_path / "days" / "1" / "x.parquet"))
    for path in ("a.csv", "b.tsv", "days", "days/*/*.parquet"):
        inspection = inspect(Source.from_dict({"path": str(tmp_path / path), "labels": ["y"]}))
        assert [f.name for f in inspection.schema.features] == ["item"], path
        assert duckdb.sql(inspection.samples).fetchall() == [(1.0, 3)], path


def test_the_hash_of_text_is_the_documented_one():
    for text in ("", "red", "rødgrød"):
        expected = int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") & (2**63 - 1)
        quoted = f"'{text}'"
        assert duckdb.sql(f"select {TEXT_ID.format(quoted)}").fetchall() == [(expected,)]


def test_wide_integers_keep_their_bits(tmp_path):
    sql = "select 18446744073709551615::ubigint as a, [9223372036854775808::ubigint, 7] as b, 7::decimal(38,0) as c"
    sql += ", 1 as y"
    inspection = inspect(source(tmp_path, sql))
    assert [f.kind for f in inspection.schema.features] == [Kind.id, Kind.ids, Kind.id]
    assert duckdb.sql(f"select a, b, c from ({inspection.samples})").fetchall() == [(-1, [-(2**63), 7], 7)]


def test_floats_that_hold_ids_may_be_missing(tmp_path):
    sql = "select unnest([1.0::double, 'nan'::double, null]) as a, 1 as y"
    inspection = inspect(source(tmp_path, sql, features={"a": {"kind": "id"}}))
    assert duckdb.sql(f"select a from ({inspection.samples})").fetchall() == [(1,), (None,), (None,)]


@pytest.mark.parametrize("where", ["samples", "group"])
def test_a_table_of_texts_and_integers_is_refused(tmp_path, where):
    features = {"history": {"table": "item"}, "item": {"table": "item"}}
    sql, groups = "select ['7', '8'] as history, 7 as item, 1 as u, 1 as y", {}
    if where == "group":
        sql, groups = "select 7 as item, 1 as u, 1 as y", {"g": {"sql": "select 1 as u, ['7'] as history", "key": "u"}}
    message = (
        r"table 'item': 'history' is VARCHAR\[\], whose texts are hashed, and 'item' is INTEGER: .*"
        r"history::bigint\[\] as history, or item::varchar as item"
    )
    with pytest.raises(DataError, match=message):
        inspect(source(tmp_path, sql, features=features, groups=groups, drop=["u"] if where == "samples" else []))


def test_a_table_of_texts_alone_is_taken(tmp_path):
    features = {"history": {"table": "item"}, "item": {"table": "item"}}
    schema = inspect(source(tmp_path, "select ['7'] as history, '7' as item, 1 as y", features=features)).schema
    assert schema.tables == ("item",)


def test_names_that_others_keep(tmp_path):
    schema = inspect(source(tmp_path, "select 1 as keys, 2 as values, 3 as type, 1 as y")).schema
    assert schema.tables == ("keys_table", "values_table", "type_table")
    with pytest.raises(DataError, match=r"features\.keys\.table: torch keeps 'items' for itself"):
        inspect(source(tmp_path, "select 1 as keys, 1 as y", features={"keys": {"table": "items"}}))
    with pytest.raises(DataError, match="column '__session': names with two underscores before them are kept"):
        inspect(source(tmp_path, "select 1 as __session, 1 as x, 1 as y"))


@pytest.mark.parametrize(
    ("end", "keys", "refused"),
    [
        ("", {}, True),
        (" order by a.x", {}, False),
        (" order by coalesce(a.x, 0)", {}, False),
        (" qualify row_number() over (order by a.x) = 1", {}, True),
        ("", {"timestamp": "x"}, False),
        (" where 'order by' = 'order by'", {}, True),
    ],
)
def test_a_join_without_an_order_is_refused(tmp_path, end, keys, refused):
    sql = "select a.x, b.z, 1 as y from (values (1)) a(x) join (values (1, 2)) b(x, z) on a.x = b.x" + end
    if refused:
        with pytest.raises(DataError, match=r"rows of a join come in any order; name keys\.timestamp"):
            inspect(source(tmp_path, sql, keys=keys))
    else:
        assert "z" in inspect(source(tmp_path, sql, keys=keys)).schema


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("1 as x, 2 as x", r"data.samples: column 'x' stands twice; .* such as b.\* exclude \(x\)"),
        ("1 as item, 2 as Item", "data.samples: columns 'item' and 'Item' differ in case alone"),
    ],
)
def test_columns_of_one_name_are_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        inspect(source(tmp_path, f"select {columns}, 1 as y"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_duration_becomes_no_id(tmp_path, unit):
    pq.write_table(pa.table({"stay": pa.array([1, 2], pa.duration(unit)), "y": [0, 1]}), tmp_path / "a.parquet")
    read = "select * from read_parquet('{path}/a.parquet')"
    with pytest.raises(DataError, match=f"column 'stay': a duration in {unit} would become an id; take its seconds"):
        inspect(source(tmp_path, read))
    assert "stay" not in inspect(source(tmp_path, "select y, 1 as z from read_parquet('{path}/a.parquet')")).schema
    as_number = inspect(source(tmp_path, read, features={"stay": {"kind": "dense"}})).schema
    assert as_number["stay"].kind is Kind.dense


def test_names_in_any_script(tmp_path):
    names = ("категория_070", "カテゴリ", "श्रेणी", "größe")
    columns = ", ".join(f"1 as {identifier(name)}" for name in names)
    schema = inspect(source(tmp_path, f"select {columns}, 1 as y")).schema
    assert schema.tables == names


WEIGHTED = "select [1, 2] as history, [0.5, 0.5] as heat, 7 as item, 1 as y"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"item": {"window": True}}, "features.item.window: only lists of ids have windows, 'item' is id"),
        ({"history": {"window": True}, "item": {}}, "features.history.window: 'history' is in no group"),
        ({"history": {"weights": "heta"}}, "features.history.weights: no column 'heta' in the samples query; did you"),
    ],
)
def test_options_of_a_feature_that_do_not_fit_are_one_error(tmp_path, options, message):
    options = {"history": {"weights": "heat"}} | options
    if options["history"].get("window"):
        options["history"]["weights"] = "heat"
    with pytest.raises(DataError) as caught:
        inspect(source(tmp_path, WEIGHTED, features=options, groups={"user": ["item"]}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dropped_weights_are_not_read(tmp_path):
    found = inspect(source(tmp_path, WEIGHTED, features={"history": {"weights": "heat"}}, drop=["heat"]))
    assert [(f.name, f.weights) for f in found.schema.features] == [("history", None), ("item", None)]
    assert "heat" not in found.samples.partition(" from ")[0]
