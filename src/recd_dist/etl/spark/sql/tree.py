"""DuckDB's syntax trees: read from SQL, changed, and written back as SQL by DuckDB.

::

    coalesce(i1, 0)::float      {class: CAST, child: {class: OPERATOR, children: [{class: COLUMN_REF}, ...]}}

DuckDB is the only parser, so that no second parser has to agree with it on what a query says.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import duckdb

from recd_dist.errors import ConfigError

Tree = dict[str, Any]
"""A node of DuckDB's syntax tree, as DuckDB writes it in JSON."""

_POSITION = ("query_location", "query_location_length")


class Unsupported(ConfigError):
    """A construct of a query that may give other rows on Spark than on DuckDB."""


class Trees:
    """Reads and writes syntax trees through one DuckDB connection.

    Args:
        connection: an open DuckDB.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._frame = self.parse("select 1 from batch")

    def parse(self, query: str) -> Tree:
        """Reads the tree of one SELECT.

        Raises:
            Unsupported: the text is no SELECT, or holds several statements.
        """
        answer = json.loads(self.connection.execute("select json_serialize_sql(?)", [query]).fetchall()[0][0])
        if answer.get("error"):
            raise Unsupported(f"the query is no SELECT that DuckDB can take apart: {answer.get('error_message')}")
        if len(answer["statements"]) != 1:
            raise Unsupported("the query has several statements; give one SELECT")
        node: Tree = answer["statements"][0]["node"]
        return node

    def to_query(self, expressions: list[Tree], table: str) -> str:
        """Writes SQL that selects expressions as ``e0``, ``e1``, ... from a table."""
        node = copy.deepcopy(self._frame)
        node["from_table"] = self.table(table)
        node["select_list"] = [tree | {"alias": f"e{i}"} for i, tree in enumerate(expressions)]
        text = json.dumps({"error": False, "statements": [{"node": node, "named_param_map": []}]})
        return str(self.connection.execute("select json_deserialize_sql(?::json)", [text]).fetchall()[0][0])

    def to_sql(self, tree: Tree) -> str:
        """Writes an expression as SQL, for messages and for comparisons."""
        query = self.to_query([tree], "batch")
        return query.removeprefix("SELECT ").removesuffix(" AS e0 FROM batch")

    def table(self, name: str) -> Tree:
        """The node of a table in FROM."""
        node: Tree = self._frame["from_table"] | {"table_name": name, "qualified_name": {"path": [name]}}
        return node

    def cast(self, tree: Tree, duck: str) -> Tree:
        """The expression ``tree::duck``.

        Args:
            tree: any expression.
            duck: name of a DuckDB type.
        """
        node = self.parse(f"select null::{duck}")["select_list"][0]
        return node | {"child": without_alias(tree)}


def column(name: str) -> Tree:
    """The expression that refers to a column."""
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": 0,
        "query_location_length": 0,
        "column_names": [name],
    }


def without_alias(tree: Tree) -> Tree:
    """An expression without the name that the select list gives it."""
    return tree | {"alias": ""}


def children(tree: Any) -> Iterator[Tree]:
    """The expressions directly below a node."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(value, dict) and "class" in value:
            yield value
        elif isinstance(value, dict | list):
            yield from children(value)


def walk(tree: Tree) -> Iterator[Tree]:
    """Visits an expression and every expression below it."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def replace_nodes(tree: Any, change: Callable[[Tree], Tree | None]) -> Any:
    """Copies a tree and puts other expressions in the place of some of its own.

    Args:
        tree: an expression, or a list of expressions.
        change: returns what takes the place of an expression, or None to look at the expressions below it. Nothing
            below a replacement is looked at.
    """
    if isinstance(tree, list):
        return [replace_nodes(item, change) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "class" in tree and (other := change(tree)) is not None:
        return other | {"alias": tree.get("alias") or ""}
    return {key: replace_nodes(value, change) for key, value in tree.items()}


def replace_by_columns(trees: list[Tree], columns: Mapping[str, str]) -> list[Tree]:
    """Copies expressions and puts references to columns in the place of what has been computed already.

    Args:
        trees: the expressions.
        columns: fingerprint of a computed expression -> name of its column.
    """

    def change(tree: Tree) -> Tree | None:
        name = columns.get(fingerprint(tree))
        return column(name) if name else None

    copies: list[Tree] = replace_nodes(trees, change)
    return copies


def fingerprint(tree: Any) -> str:
    """A text that is equal for two expressions that say the same, wherever they stand in the query."""

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(item) for item in value]
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key not in ("alias", *_POSITION)}
        return value

    return json.dumps(bare(tree), sort_keys=True)


def literal_text(tree: Tree) -> str | None:
    """The text of a literal; None for NULL and for any other expression."""
    if tree["class"] == "CONSTANT" and tree["literal"]["kind"] != "NULL":
        return str(tree["literal"]["text"])
    return None


def spark_identifier(name: str) -> str:
    """A name in the quotes that Spark SQL uses for identifiers."""
    return "`" + name.replace("`", "``") + "`"
