"""The columns that an expression sees, and how expressions become columns.

::

    names         user_id, t.user_id  ->  c17      what a query may call a column, and what Spark calls it here
    types         c17: UINTEGER                    DuckDB's type of it
    add_columns   [len(l) + 1, user_id::bigint]    DuckDB computes the first in a worker, Spark itself the second

Columns in Spark have internal names (``c1``, ``c2``, ...), so that no two columns of a query share a name. A resolved
expression is one that refers to columns by these internal names.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recd_dist.errors import DataError
from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.spark.sql.duckdb_in_workers import duckdb_function
from recd_dist.etl.spark.sql.native_sql import native_sql
from recd_dist.etl.spark.sql.query_context import QueryContext
from recd_dist.etl.spark.sql.row_place import PLACE
from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import Tree, replace_nodes, spark_identifier, walk, without_alias


@dataclass(frozen=True)
class Name:
    """A column as a query may call it.

    Attributes:
        qualifiers: names of the tables that may stand before it.
        name: the column's name in the query.
        internal: the column's name in Spark.
    """

    qualifiers: tuple[str, ...]
    name: str
    internal: str


@dataclass
class Scope:
    """A DataFrame, and the names and types of its columns.

    Attributes:
        context: what all steps of the query share.
        df: the rows.
        names: what the query may call the columns, in order.
        types: internal name -> DuckDB type of each column.
    """

    context: QueryContext
    df: DataFrame
    names: list[Name]
    types: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(context: QueryContext, df: DataFrame, columns: list[tuple[str, str]], qualifier: str = "") -> "Scope":
        """A scope over all columns of a DataFrame in their order, each under a new internal name.

        Args:
            context: what all steps of the query share.
            df: the rows; each column has the Spark type in which Spark holds its DuckDB type.
            columns: name and DuckDB type of each column.
            qualifier: what the query calls the table; empty for nothing.
        """
        internal = [context.new_name() for _ in columns]
        present = [name for name in df.columns if name not in PLACE]
        renamed = [F.col(spark_identifier(a)).alias(b) for a, b in zip(present, internal, strict=True)]
        df = df.select(renamed + [name for name in df.columns if name in PLACE])
        qualifiers = (qualifier,) if qualifier else ()
        names = [Name(qualifiers, name, own) for (name, _), own in zip(columns, internal, strict=True)]
        return Scope(context, df, names, {own: duck for own, (_, duck) in zip(internal, columns, strict=True)})

    def with_qualifier(self, qualifier: str) -> "Scope":
        """The same columns under another name of their table."""
        return replace(self, names=[replace(name, qualifiers=(qualifier,)) for name in self.names])

    def find_column(self, path: list[str]) -> tuple[str, list[str]] | None:
        """Finds the column that ``[table.]column[.field...]`` names.

        Args:
            path: the names between the dots.

        Returns:
            The column's internal name and the names of fields that remain; None where no column fits.

        Raises:
            DataError: several columns fit.
        """
        plain, qualified = self._named(path[0], None), self._named(path[1], path[0]) if path[1:] else []
        for num_used, names in ((1, plain), (2, qualified)):
            internal = {name.internal for name in names}
            if len(internal) > 1:
                raise DataError(f"column '{'.'.join(path)}' is ambiguous; name its table too")
            if internal:
                return internal.pop(), path[num_used:]
        return None

    def _named(self, name: str, qualifier: str | None) -> list[Name]:
        names = [n for n in self.names if n.name.lower() == name.lower()]
        if qualifier is None:
            return names
        return [n for n in names if qualifier.lower() in (q.lower() for q in n.qualifiers)]

    def resolve(self, tree: Tree, aliases: dict[str, Tree] | None = None) -> Tree:
        """Copies an expression and puts internal names in the place of the names that the query uses.

        Args:
            tree: the expression.
            aliases: lower-case alias -> resolved expression, for names that no column has.

        Raises:
            Unsupported: a subquery, or a name that stands for nothing here.
            DataError: a name that several columns have.
        """

        def resolve_inside(bound: frozenset[str], tree: Tree) -> Tree:
            def change(node: Tree) -> Tree | None:
                if node["class"] == "COLUMN_REF":
                    return self._resolve_reference(node, bound, aliases or {})
                if node["class"] == "SUBQUERY":
                    raise self.context.unsupported("a subquery inside an expression")
                if node["class"] == "LAMBDA":
                    params = {str(n["column_names"][0]).lower() for n in walk(node["lhs"]) if "column_names" in n}
                    return node | {"expr": resolve_inside(bound | params, node["expr"])}
                return None

            copied: Tree = replace_nodes(tree, change)
            return copied

        return resolve_inside(frozenset(), tree)

    def _resolve_reference(self, node: Tree, bound: frozenset[str], aliases: dict[str, Tree]) -> Tree:
        path = node["column_names"]
        if path[0].lower() in bound:
            return node
        if (column := self.find_column(path)) is not None:
            return node | {"column_names": [column[0], *column[1]]}
        if len(path) == 1 and (alias := aliases.get(path[0].lower())) is not None:
            return alias
        raise self.context.unsupported(f"the reference '{'.'.join(path)}'")

    def infer_types(self, trees: list[Tree]) -> list[str]:
        """Asks DuckDB for the types of resolved expressions, each a function of one row.

        Raises:
            Unsupported: an expression that is no function of one row.
            DataError: DuckDB refuses an expression.
        """
        if not trees:
            return []
        self._check_row_functions(trees)
        query = self._query_of_no_row(trees)
        types = self._ask_duckdb(f"describe {query}")
        if self._ask_duckdb(query):  # only an aggregate makes a row of none
            raise self.context.unsupported(f"an aggregate inside {self.context.trees.to_sql(trees[0])[:100]}")
        return [row[1] for row in types]

    def infer_call_type(self, call: Tree) -> str:
        """Asks DuckDB for the type of one call of an aggregate, a window function or UNNEST.

        Raises:
            DataError: DuckDB refuses the call.
        """
        types = self._ask_duckdb(f"describe {self._query_of_no_row([without_alias(call)])}")
        return str(types[0][1])

    def _query_of_no_row(self, trees: list[Tree]) -> str:
        """SQL that selects expressions from a table without rows, whose columns have their types."""
        query = self.context.trees.to_query(trees, "stub")
        used = {n["column_names"][0] for tree in trees for n in walk(tree) if n["class"] == "COLUMN_REF"}
        stub = ", ".join(f"null::{self.types[c]} as {c}" for c in sorted(used & set(self.types))) or "null as none"
        return f"with stub as (select {stub} where false) {query}"

    def _ask_duckdb(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self.context.connection.execute(query).fetchall()
        except duckdb.Error as error:
            raise DataError(f"query: {engine.short_message(error)}") from error

    def _check_row_functions(self, trees: list[Tree]) -> None:
        for node in (node for tree in trees for node in walk(tree)):
            if node["class"] in ("WINDOW", "PARAMETER", "POSITIONAL_REFERENCE", "DEFAULT", "STAR"):
                raise self.context.unsupported(f"a {node['class'].lower().replace('_', ' ')} in this place")
            kinds = self.context.function_kinds.get(node.get("function_name", ""), set())
            if node["class"] == "FUNCTION" and "volatile" in kinds:
                raise self.context.unsupported(f"{node['function_name']}(), whose result changes from run to run,")
            if node["class"] == "FUNCTION" and "scalar" not in kinds and kinds & {"aggregate", "window", "table"}:
                raise self.context.unsupported(f"{node['function_name']}() in this place")

    def add_columns(self, trees: list[Tree]) -> tuple["Scope", list[str]]:
        """Adds a column for each resolved expression that is no column yet.

        Returns:
            The scope with the new columns, and the internal name of each expression's column.

        Raises:
            Unsupported: an expression that is no function of one row, or whose type Spark does not hold.
            DataError: DuckDB refuses an expression.
        """
        new, columns, name_of = list[tuple[str, Tree]](), list[str](), dict[str, str]()
        for tree in trees:
            if tree["class"] == "COLUMN_REF" and len(tree["column_names"]) == 1:
                columns.append(tree["column_names"][0])
                continue
            text = self.context.trees.to_sql(tree)
            if text not in name_of:
                name_of[text] = self.context.new_name()
                new.append((name_of[text], tree))
            columns.append(name_of[text])
        if not new:
            return self, columns
        types = self.infer_types([tree for _, tree in new])
        native, foreign = [], []
        for (name, tree), duck in zip(new, types, strict=True):
            if stored_type(duck) is None:
                text = self.context.trees.to_sql(tree)[:100]
                raise self.context.unsupported(f"a column of type {duck[:60]} ({text})")
            sql = native_sql(tree, duck, self.types, lambda child: self.infer_types([child])[0])
            if sql is None:
                foreign.append((name, tree, duck))
            else:
                native.append(F.expr(sql).alias(name))
        df = self._add_by_duckdb(foreign) if foreign else self.df
        df = df.select("*", *native) if native else df
        added = {name: duck for (name, _), duck in zip(new, types, strict=True)}
        return replace(self, df=df, types=self.types | added), columns

    def _add_by_duckdb(self, foreign: list[tuple[str, Tree, str]]) -> DataFrame:
        """The DataFrame with columns that DuckDB computes in the workers, all in one pass over the rows.

        Args:
            foreign: new internal name, resolved expression and DuckDB type of each column.
        """
        context, struct = self.context, self.context.new_name()
        names = {n["column_names"][0] for _, tree, _ in foreign for n in walk(tree) if n["class"] == "COLUMN_REF"}
        used = sorted(names & set(self.types)) or [next(iter(self.df.columns))]
        inner = ", ".join(f"{name}::{self.types[name]} as {name}" if name in self.types else name for name in used)
        held_as = [stored[0] for stored in (stored_type(duck) for *_, duck in foreign) if stored]
        outer = ", ".join(f"e{i}::{kind} as e{i}" for i, kind in enumerate(held_as))
        query = context.trees.to_query([tree for _, tree, _ in foreign], "typed")
        text = f"select {outer} from (with typed as (select {inner} from batch) {query})"
        run = duckdb_function(text, used, [duck for *_, duck in foreign], context.time_zone)
        df = self.df.select("*", run(*used).alias(struct))
        fields = [F.col(f"{struct}.e{i}").alias(name) for i, (name, *_) in enumerate(foreign)]
        return df.select(*self.df.columns, *fields)

    def add_order_keys(self, trees: list[Tree]) -> tuple["Scope", list[str]]:
        """Adds columns as ``add_columns`` does, for keys by which rows are ordered.

        Raises:
            Unsupported: a key that is a list, since the engines may order lists differently.
        """
        scope, columns = self.add_columns(trees)
        for name in columns:
            if scope.types[name].endswith("]"):
                raise self.context.unsupported(f"an order of {scope.types[name][:60]}")
        return scope, columns

    def filter_rows(self, tree: Tree) -> "Scope":
        """Keeps the rows for which a resolved predicate is true."""
        scope, (column,) = self.add_columns([cast_to_boolean(tree)])
        return replace(scope, df=scope.df.where(F.col(column)))

    def select_columns(self, columns: list[tuple[str, str]]) -> "Scope":
        """Keeps some columns only, each as a column of its own even where two are the same.

        Args:
            columns: new name and internal name of each column.
        """
        kept = [F.col(internal).alias(f"o{i}") for i, (_, internal) in enumerate(columns)]
        df = self.df.select(kept + [name for name in self.df.columns if name in PLACE])
        return Scope.of(self.context, df, [(name, self.types[internal]) for name, internal in columns])


def cast_to_boolean(tree: Tree) -> Tree:
    """The predicate ``tree and true``, which is a truth value also where the query gives a number."""
    node = {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", "alias": "", "query_location": 0}
    true = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0}
    true |= {"query_location_length": 0, "literal": {"kind": "BOOLEAN", "text": "true"}}
    return node | {"query_location_length": 0, "children": [without_alias(tree), true]}
