"""SQL of a config is one query or one expression: whatever stands behind a semicolon would be carried out too.

::

    samples: "select * from x; copy (select ...) to '/home/me/.profile'"    DuckDB would write that file

DuckDB itself refuses what writes inside a query; here the query ends where its author says.
"""

import duckdb


def second_statement(sql: str) -> str | None:
    """Finds SQL that is more than one statement.

    Args:
        sql: a query, which may end with a semicolon, or an expression.

    Returns:
        What is wrong, with the beginning of the second statement; None where there is no second one. Whether the first
        is right is for DuckDB to say.
    """
    text = sql.encode()
    ends = [place for place, _ in duckdb.tokenize(sql) if text[place : place + 1] == b";"]
    rest = [text[place + 1 :].decode(errors="replace").strip(" \n\t;") for place in ends]
    if not rest or not rest[0]:
        return None
    return f"one query or expression, found a second statement: {rest[0].splitlines()[0][:80]}"
