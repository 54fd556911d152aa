"""DuckDB's own syntax trees: read from SQL, walked, changed and written back as SQL by DuckDB itself.

::

    coalesce(i1, 0)::float      {class: CAST, child: {class: OPERATOR, children: [{class: COLUMN_REF}, ...]}}

No other parser has to agree with DuckDB's on what a query says.
"""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import duckdb

from recd_dist.errors import ConfigError

Tree = dict[str, Any]
"""A node of DuckDB's syntax tree, as its JSON has it."""


class Unsupported(ConfigError):
    """A construct that is not known to mean the same on Spark."""


class Trees:
    """Syntax trees by one DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._frame = self.parsed("select 1 from batch")

    def parsed(self, query: str) -> Tree:
        """The tree of one SELECT.

        Raises:
            Unsupported: more or other than that.
        """
        found = json.loads(self.connection.execute("select json_serialize_sql(?)", [query]).fetchall()[0][0])
        if found.get("error"):
            raise Unsupported(f"the query is no SELECT that DuckDB can take apart: {found.get('error_message')}")
        if len(found["statements"]) != 1:
            raise Unsupported("the query has several statements; give one SELECT")
        node: Tree = found["statements"][0]["node"]
        return node

    def query(self, expressions: list[Tree], table: str) -> str:
        """SQL that selects expressions as ``e0``, ``e1``, ... from a table."""
        node = copy.deepcopy(self._frame)
        node["from_table"] = self.table(table)
        node["select_list"] = [tree | {"alias": f"e{i}"} for i, tree in enumerate(expressions)]
        text = json.dumps({"error": False, "statements": [{"node": node, "named_param_map": []}]})
        return str(self.connection.execute("select json_deserialize_sql(?::json)", [text]).fetchall()[0][0])

    def table(self, name: str) -> Tree:
        """A table in FROM."""
        made: Tree = self._frame["from_table"] | {"table_name": name, "qualified_name": {"path": [name]}}
        return made

    def text(self, tree: Tree) -> str:
        """An expression as SQL, for messages and comparisons."""
        query = self.query([tree], "batch")
        return query.removeprefix("SELECT ").removesuffix(" AS e0 FROM batch")


def column(name: str) -> Tree:
    """A reference to a column."""
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": 0,
        "query_location_length": 0,
        "column_names": [name],
    }


def cast(tree: Tree, trees: Trees, duck: str) -> Tree:
    """``tree::duck``."""
    node = trees.parsed(f"select null::{duck}")["select_list"][0]
    return node | {"child": tree | {"alias": ""}}


def children(tree: Any) -> Iterator[Tree]:
    """The expressions directly below a node."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(value, dict) and "class" in value:
            yield value
        elif isinstance(value, dict | list):
            yield from children(value)


def walked(tree: Tree) -> Iterator[Tree]:
    """A node and everything below it."""
    yield tree
    for child in children(tree):
        yield from walked(child)


def replaced(tree: Any, change: Callable[[Tree], Tree | None]) -> Any:
    """A copy in which ``change`` may put another tree in the place of a node; its result is not looked into."""
    if isinstance(tree, list):
        return [replaced(item, change) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "class" in tree and (other := change(tree)) is not None:
        return other | {"alias": tree.get("alias") or ""}
    return {key: replaced(value, change) for key, value in tree.items()}


def same(tree: Any) -> str:
    """A text that two trees share when they say the same, wherever they stand in the query."""

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(item) for item in value]
        if isinstance(value, dict):
            return {
                k: bare(v) for k, v in value.items() if k not in ("alias", "query_location", "query_location_length")
            }
        return value

    return json.dumps(bare(tree), sort_keys=True)


def constant(tree: Tree) -> str | None:
    """The text of a literal; None for anything else."""
    if tree["class"] == "CONSTANT" and tree["literal"]["kind"] != "NULL":
        return str(tree["literal"]["text"])
    return None


def backticked(name: str) -> str:
    """A Spark identifier, quoted."""
    return "`" + name.replace("`", "``") + "`"
