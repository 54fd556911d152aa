"""What is wrong with the user's SQL is told at the place where the user wrote it."""

import duckdb
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.raw.sql_errors import WrittenSql
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "logs with a long name.parquet"
    duckdb.sql(f"copy (select 1 as item, 2 as user_id, 0 as clicked, 0.5 as price) to '{file}'")
    return file


def refusal(path, samples="select * from '{path}'", **options) -> str:
    given = {"name": "shop", "path": str(path), "samples": samples, "labels": ["clicked"], "groups": {}} | options
    with pytest.raises(DataError) as caught:
        inspect(Source.from_dict(given))
    return str(caught.value)


@pytest.mark.parametrize(
    ("samples", "place", "message"),
    [
        (
            "\n  select item,\n    usr_id as u\n  from '{path}'",
            "3, column 5",
            "no column 'usr_id'; did you mean 'user_id'",
        ),
        ("from read_parquet('{path}') t join '{path}' u using (item)\nwhere t.prise > 3", "2, column 7", "'price'"),
        ("select 'é' as e from '{path}' where 'ü' = itm", "1, column 43", "no column 'itm'; did you mean 'item'?"),
        ("select item\nfrom read_parquet('{path}') t where a b;", "2, column 39", 'syntax error at or near "b"'),
        ("select lenght(item) from '{path}'", "1, column 8", "lenght does not exist; did you mean 'length'?"),
        ("select * exclude (foo) from '{path}'", "1, column 19", 'Column "foo" in EXCLUDE list not found'),
        ("select 'abc", "1, column 8", "unterminated string literal"),
        ("selekt 1 as y", "1, column 8", "syntax error"),
    ],
)
def test_the_place_is_that_of_the_users_text(path, samples, place, message):
    first, shown = refusal(path, samples).split("\n")
    assert first.startswith(f"data.samples, line {place}: ")
    assert message in first
    assert shown.strip() == samples.split("\n")[int(place[0]) - 1].strip()


def test_queries_of_groups_and_splits_are_texts_of_their_own(path):
    groups = {"h": {"sql": "select user_id,\n itm from '{path}'", "key": "user_id"}}
    assert refusal(path, groups=groups).startswith("data.groups.h.sql, line 2, column 2: no column 'itm'; did you mean")
    assert refusal(path, split="item > 3\n and prise > 1").startswith("data.split, line 2, column 6: no column 'prise'")
    assert refusal(path, split="item >").startswith("data.split, line 1, column 7: syntax error")


def test_a_split_may_end_in_a_comment(path):
    source = {"name": "s", "path": str(path), "labels": ["clicked"], "groups": {}, "split": "item > 3 -- the late ones"}
    assert inspect(Source.from_dict(source)).schema.labels == ("clicked",)


@pytest.mark.parametrize(("position", "place"), [(0, (1, 1)), (5, (1, 6)), (12, (1, 6)), (20, (2, 1)), (21, (2, 2))])
def test_replacements_are_undone(position, place):
    written = WrittenSql.of("from f(x)\n y z").replace({(5, 9): "f(a, b, c, d)\n"})
    assert written.sql == "from f(a, b, c, d)\n\n y z"
    assert written.place(position) == place
