"""The columns that an expression sees, and how expressions over them become columns of a Spark DataFrame.

::

    names     user_id, t.user_id  ->  c17        what a query may call a column, and what Spark calls it here
    types     c17: UINTEGER                      DuckDB's type of it
    added     [len(l) + 1, user_id::bigint]      the first by DuckDB in a worker, the second by Spark itself

Spark computes only what cannot differ: columns as they are, widening casts, missing values and their replacements.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import duckdb
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recd_dist.errors import DataError
from recd_dist.etl.source import duckdb_sql as engine
from recd_dist.etl.spark.sql.row_place import PLACE
from recd_dist.etl.spark.sql.spark_types import evaluated, stored
from recd_dist.etl.spark.sql.tree import Tree, Trees, Unsupported, backticked, constant, replaced, walked

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
"""Casts that Spark does as DuckDB does: nothing is lost, or a whole number is rounded to the nearest float."""


class Workshop:
    """What all steps of one query share: the session, DuckDB for questions of meaning, fresh column names.

    Args:
        spark: session.
        connection: of DuckDB.
        option: in which the query may be given in Spark's own SQL.
        placed: rows keep the place that they have in their file (``PLACE``), which their order is made of; steps that
            mix rows are refused.
    """

    def __init__(
        self, spark: SparkSession, connection: duckdb.DuckDBPyConnection, option: str, placed: bool = False
    ) -> None:
        self.placed = placed
        self.files: list[str] = []  # that are read, in DuckDB's order; known where rows are placed
        self.spark = spark
        self.connection = connection
        self.trees = Trees(connection)
        self.option = option
        self.time_zone = str(connection.execute("select current_setting('TimeZone')").fetchall()[0][0])
        self._number = 0

    def fresh(self) -> str:
        """A column name that nothing else has."""
        self._number += 1
        return f"c{self._number}"

    def unsupported(self, what: str) -> Unsupported:
        """The error for a construct that only hand-written Spark SQL can say."""
        return Unsupported(f"{what} is not known to give the same rows on Spark; give the query as {self.option}")

    def check_unplaced(self, what: str) -> None:
        """Refuses a step after which the order of rows is not that of their files.

        Raises:
            Unsupported: the order of rows counts.
        """
        if self.placed:
            raise self.unsupported(f"{what} without keys.timestamp, where the order of the rows counts,")

    @cached_property
    def kinds(self) -> dict[str, set[str]]:
        """Kinds of every function name of DuckDB: aggregate, scalar, macro; and ``volatile``."""
        found: dict[str, set[str]] = {}
        rows = self.connection.execute("select function_name, function_type, stability from duckdb_functions()")
        for name, kind, stability in rows.fetchall():
            kinds = found.setdefault(name, set())
            kinds |= {kind, *(["volatile"] if stability not in (None, "CONSISTENT") else [])}
        return found


@dataclass(frozen=True)
class Name:
    """A column as a query may call it."""

    qualifiers: tuple[str, ...]
    name: str
    internal: str


@dataclass
class Scope:
    """A DataFrame and the names and types of its columns."""

    shop: Workshop
    df: DataFrame
    names: list[Name]
    types: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(shop: Workshop, df: DataFrame, columns: list[tuple[str, str]], qualifier: str = "") -> "Scope":
        """A scope over a DataFrame's columns in order, renamed so that nothing else has their names.

        Args:
            shop: of the query.
            df: its columns have the Spark types that the DuckDB types are stored as.
            columns: name and DuckDB type of each column.
            qualifier: what the query calls the table.
        """
        fresh = [shop.fresh() for _ in columns]
        given = [name for name in df.columns if name not in PLACE]
        named = [F.col(backticked(a)).alias(b) for a, b in zip(given, fresh, strict=True)]
        renamed = df.select(named + [name for name in df.columns if name in PLACE])
        qualifiers = (qualifier,) if qualifier else ()
        names = [Name(qualifiers, name, internal) for (name, _), internal in zip(columns, fresh, strict=True)]
        return Scope(shop, renamed, names, {i: duck for i, (_, duck) in zip(fresh, columns, strict=True)})

    def qualified(self, qualifier: str) -> "Scope":
        """The same columns under another table name."""
        return replace(self, names=[replace(name, qualifiers=(qualifier,)) for name in self.names])

    def found(self, path: list[str]) -> tuple[str, list[str]] | None:
        """The internal name of ``[table.]column[.field...]`` and the fields that remain; None where nothing fits."""
        for start, fits in ((1, self._called(path[0], None)), (2, self._called(path[1], path[0]) if path[1:] else [])):
            internal = {name.internal for name in fits}
            if len(internal) > 1:
                raise DataError(f"column '{'.'.join(path)}' is ambiguous; name its table too")
            if internal:
                return internal.pop(), path[start:]
        return None

    def _called(self, name: str, qualifier: str | None) -> list[Name]:
        fits = [n for n in self.names if n.name.lower() == name.lower()]
        if qualifier is None:
            return fits
        return [n for n in fits if qualifier.lower() in (q.lower() for q in n.qualifiers)]

    def resolved(self, tree: Tree, aliases: dict[str, Tree] | None = None) -> Tree:
        """A copy whose column references are internal names; ``aliases`` stand for what no column is called."""

        def bound_to(bound: frozenset[str], tree: Tree) -> Tree:
            def change(node: Tree) -> Tree | None:
                if node["class"] == "COLUMN_REF":
                    return self._reference(node, bound, aliases or {})
                if node["class"] == "SUBQUERY":
                    raise self.shop.unsupported("a subquery inside an expression")
                if node["class"] == "LAMBDA":
                    params = {str(n["column_names"][0]).lower() for n in walked(node["lhs"]) if "column_names" in n}
                    return node | {"expr": bound_to(bound | params, node["expr"])}
                return None

            made: Tree = replaced(tree, change)
            return made

        return bound_to(frozenset(), tree)

    def _reference(self, node: Tree, bound: frozenset[str], aliases: dict[str, Tree]) -> Tree:
        path = node["column_names"]
        if path[0].lower() in bound:
            return node
        if (found := self.found(path)) is not None:
            return node | {"column_names": [found[0], *found[1]]}
        if len(path) == 1 and (alias := aliases.get(path[0].lower())) is not None:
            return alias
        raise self.shop.unsupported(f"the reference '{'.'.join(path)}'")

    def typed(self, trees: list[Tree], of_one_row: bool = True) -> list[str]:
        """DuckDB types of resolved expressions.

        Args:
            trees: the expressions.
            of_one_row: no aggregate or window is among them; False for these.

        Raises:
            Unsupported: an expression that is to be a function of one row and is not.
        """
        if not trees:
            return []
        if of_one_row:
            self._checked(trees)
        query = self.shop.trees.query(trees, "stub")
        used = {n["column_names"][0] for tree in trees for n in walked(tree) if n["class"] == "COLUMN_REF"}
        stub = ", ".join(f"null::{self.types[c]} as {c}" for c in sorted(used & set(self.types))) or "null as none"
        text = f"with stub as (select {stub} where false) {query}"
        try:
            described = self.shop.connection.execute(f"describe {text}").fetchall()
            if of_one_row and self.shop.connection.execute(text).fetchall():
                raise self.shop.unsupported(f"an aggregate inside {self.shop.trees.text(trees[0])[:100]}")
        except duckdb.Error as error:
            raise DataError(f"query: {engine.short_message(error)}") from error
        return [row[1] for row in described]

    def _checked(self, trees: list[Tree]) -> None:
        for node in (node for tree in trees for node in walked(tree)):
            if node["class"] in ("WINDOW", "PARAMETER", "POSITIONAL_REFERENCE", "DEFAULT", "STAR"):
                raise self.shop.unsupported(f"a {node['class'].lower().replace('_', ' ')} in this place")
            kinds = self.shop.kinds.get(node.get("function_name", ""), set())
            if node["class"] == "FUNCTION" and "volatile" in kinds:
                raise self.shop.unsupported(f"{node['function_name']}(), whose result changes from run to run,")
            if node["class"] == "FUNCTION" and "scalar" not in kinds and kinds & {"aggregate", "window", "table"}:
                raise self.shop.unsupported(f"{node['function_name']}() in this place")

    def added(self, trees: list[Tree]) -> tuple["Scope", list[str]]:
        """The scope with a column per resolved expression, and the columns' internal names."""
        todo, places, seen = [], [], dict[str, str]()
        for tree in trees:
            if tree["class"] == "COLUMN_REF" and len(tree["column_names"]) == 1:
                places.append(tree["column_names"][0])
                continue
            text = self.shop.trees.text(tree)
            if text not in seen:
                seen[text] = self.shop.fresh()
                todo.append((seen[text], tree))
            places.append(seen[text])
        if not todo:
            return self, places
        types = self.typed([tree for _, tree in todo])
        columns, foreign = [], []
        for (name, tree), duck in zip(todo, types, strict=True):
            if stored(duck) is None:
                text = self.shop.trees.text(tree)[:100]
                raise self.shop.unsupported(f"a column of type {duck[:60]} ({text})")
            native = self._native(tree, duck)
            if native is None:
                foreign.append((name, tree, duck))
            else:
                columns.append(F.expr(native).alias(name))
        df = self._evaluated(foreign) if foreign else self.df
        df = df.select("*", *columns) if columns else df
        made = {name: duck for (name, _), duck in zip(todo, types, strict=True)}
        return replace(self, df=df, types=self.types | made), places

    def _evaluated(self, foreign: list[tuple[str, Tree, str]]) -> DataFrame:
        """The DataFrame with columns that DuckDB computes in the workers, all in one pass."""
        shop, struct = self.shop, self.shop.fresh()
        names = {n["column_names"][0] for _, tree, _ in foreign for n in walked(tree) if n["class"] == "COLUMN_REF"}
        used = sorted(names & set(self.types)) or [next(iter(self.df.columns))]
        inner = ", ".join(f"{name}::{self.types[name]} as {name}" if name in self.types else name for name in used)
        plain = [found[0] for found in (stored(duck) for *_, duck in foreign) if found]
        outer = ", ".join(f"e{i}::{kind} as e{i}" for i, kind in enumerate(plain))
        query = shop.trees.query([tree for _, tree, _ in foreign], "typed")
        text = f"select {outer} from (with typed as (select {inner} from batch) {query})"
        run = evaluated(text, used, [duck for *_, duck in foreign], shop.time_zone)
        df = self.df.select("*", run(*used).alias(struct))
        fields = [F.col(f"{struct}.e{i}").alias(name) for i, (name, *_) in enumerate(foreign)]
        return df.select(*self.df.columns, *fields)

    def _native(self, tree: Tree, duck: str) -> str | None:
        """Spark SQL of a resolved expression whose meaning cannot differ; None for all others."""
        kind, found = tree["class"], stored(duck)
        if found is None:
            return None
        if kind == "COLUMN_REF" and len(tree["column_names"]) == 1 and tree["column_names"][0] in self.types:
            return str(tree["column_names"][0])
        if kind == "CONSTANT" and duck in ("INTEGER", "BIGINT", "BOOLEAN"):
            return f"cast({constant(tree)} as {found[1].simpleString()})"
        if kind == "CAST" and not tree["try_cast"]:
            return self._widened(tree["child"], duck)
        if tree["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            child = self._native(tree["children"][0], self.typed(tree["children"])[0])
            return child and f"{child} is {'not ' if 'NOT' in tree['type'] else ''}null"
        if tree["type"] == "OPERATOR_COALESCE":
            parts = [self._widened(child, duck) for child in tree["children"]]
            return None if None in parts else f"coalesce({', '.join(str(part) for part in parts)})"
        return None

    def _widened(self, tree: Tree, duck: str) -> str | None:
        """An expression as a type that holds every value of its own type, or rounds as IEEE 754 says."""
        given = self.typed([tree])[0]
        inner, found = self._native(tree, given), stored(duck)
        if inner is None or found is None or not (given == duck or duck in _WIDER.get(given, "").split()):
            return None
        return inner if given == duck else f"cast({inner} as {found[1].simpleString()})"

    def ordered(self, trees: list[Tree]) -> tuple["Scope", list[str]]:
        """``added`` for keys of an order.

        Raises:
            Unsupported: a list, whose order is not known to be the same.
        """
        scope, columns = self.added(trees)
        for name in columns:
            if scope.types[name].endswith("]"):
                raise self.shop.unsupported(f"an order of {scope.types[name][:60]}")
        return scope, columns

    def filtered(self, tree: Tree) -> "Scope":
        """The rows for which a resolved predicate is true."""
        kept = self.added([cast_to_boolean(tree)])
        return replace(kept[0], df=kept[0].df.where(F.col(kept[1][0])))

    def output(self, columns: list[tuple[str, str]]) -> "Scope":
        """Only these columns, as ``(name, internal)``, each on its own."""
        named = [F.col(internal).alias(f"o{i}") for i, (_, internal) in enumerate(columns)]
        df = self.df.select(named + [name for name in self.df.columns if name in PLACE])
        return Scope.of(self.shop, df, [(name, self.types[internal]) for name, internal in columns])


def cast_to_boolean(tree: Tree) -> Tree:
    """A predicate; DuckDB takes numbers for one as well."""
    node = {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", "alias": "", "query_location": 0}
    true = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0}
    true |= {"query_location_length": 0, "literal": {"kind": "BOOLEAN", "text": "true"}}
    return node | {"query_location_length": 0, "children": [tree | {"alias": ""}, true]}
