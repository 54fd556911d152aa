"""SQL of a config is one query or one expression."""

import pytest

from recd_dist.table.one_query import second_statement


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "select 1 ;\n",
        "select 'a;b', $$c;d$$, $x$ ; $x$, e'\\';' -- ;",
        'select "e;f" /* ; */',
        "day > 3",
        "select 'é;'",
        "",
    ],
)
def test_one(sql: str) -> None:
    assert second_statement(sql) is None


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select 1; copy (select 2) to 'x'", "copy (select 2) to 'x'"),
        ("day > 3), false); install evil; select ((1", "install evil; select ((1"),
        ("select 'é'; attach 'x'", "attach 'x'"),
        ("select $$a$$;;\nset lock_configuration = false;", "set lock_configuration = false"),
    ],
)
def test_more(sql: str, found: str) -> None:
    assert second_statement(sql) == f"one query or expression, found a second statement: {found}"
