"""Expressions that Spark computes itself, because their result cannot differ.

These are columns as they are, whole numbers and truth values as literals, widening casts, ``is null`` and
``coalesce``. DuckDB computes everything else.
"""

from collections.abc import Callable, Mapping

from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import Tree, literal_text

_WIDER = {
    "BOOLEAN": "TINYINT SMALLINT INTEGER BIGINT FLOAT DOUBLE",
    "TINYINT": "SMALLINT INTEGER BIGINT FLOAT DOUBLE",
    "UTINYINT": "SMALLINT INTEGER BIGINT FLOAT DOUBLE",
    "SMALLINT": "INTEGER BIGINT FLOAT DOUBLE",
    "USMALLINT": "INTEGER BIGINT FLOAT DOUBLE",
    "INTEGER": "BIGINT FLOAT DOUBLE",
    "UINTEGER": "BIGINT FLOAT DOUBLE",
    "BIGINT": "FLOAT DOUBLE",
    "FLOAT": "DOUBLE",
    "SMALLINT[]": "INTEGER[] BIGINT[]",
    "INTEGER[]": "BIGINT[]",
    "UINTEGER[]": "BIGINT[]",
}
"""Casts that Spark does as DuckDB does: they lose nothing, or they round a whole number to the nearest float."""


def native_sql(tree: Tree, duck: str, columns: Mapping[str, str], type_of: Callable[[Tree], str]) -> str | None:
    """Spark SQL of an expression whose result is the same on both engines; None for all other expressions.

    Args:
        tree: resolved expression: it refers to columns by their internal names.
        duck: its DuckDB type.
        columns: internal name -> DuckDB type of the columns that it may refer to.
        type_of: returns the DuckDB type of a resolved expression.
    """
    stored = stored_type(duck)
    if stored is None:
        return None
    kind = tree["class"]
    if kind == "COLUMN_REF" and len(tree["column_names"]) == 1 and tree["column_names"][0] in columns:
        return str(tree["column_names"][0])
    if kind == "CONSTANT" and duck in ("INTEGER", "BIGINT", "BOOLEAN"):
        return f"cast({literal_text(tree)} as {stored[1].simpleString()})"
    if kind == "CAST" and not tree["try_cast"]:
        return _widen(tree["child"], duck, columns, type_of)
    if tree["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        child = native_sql(tree["children"][0], type_of(tree["children"][0]), columns, type_of)
        return child and f"{child} is {'not ' if 'NOT' in tree['type'] else ''}null"
    if tree["type"] == "OPERATOR_COALESCE":
        arguments = [_widen(child, duck, columns, type_of) for child in tree["children"]]
        return None if None in arguments else f"coalesce({', '.join(map(str, arguments))})"
    return None


def _widen(tree: Tree, duck: str, columns: Mapping[str, str], type_of: Callable[[Tree], str]) -> str | None:
    """Spark SQL of an expression as a type that holds all its values, or rounds them as IEEE 754 says."""
    own = type_of(tree)
    inner, stored = native_sql(tree, own, columns, type_of), stored_type(duck)
    if inner is None or stored is None or not (own == duck or duck in _WIDER.get(own, "").split()):
        return None
    return inner if own == duck else f"cast({inner} as {stored[1].simpleString()})"
