"""A DuckDB query on Spark: its relational steps, one after another, on DataFrames.

::

    with impressions as (...)              a scope per name
    select *, sum(n) over w, unnest(l)     from, where -> groups -> windows -> unnest -> expressions -> distinct
    from candidates join users using (u)

A step that could give other rows than DuckDB gives raises ``Unsupported`` instead. An ``order by`` without a limit has
no meaning for a set of rows and is left out.
"""

import re
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.aggregate import apply_group_by
from recd_dist.etl.spark.sql.join import join_scopes
from recd_dist.etl.spark.sql.query_context import QueryContext
from recd_dist.etl.spark.sql.read_files import read_table
from recd_dist.etl.spark.sql.row_place import PLACE
from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import stored_type
from recd_dist.etl.spark.sql.tree import Tree, column, fingerprint, literal_text, replace_nodes, walk
from recd_dist.etl.spark.sql.unnest import apply_unnest
from recd_dist.etl.spark.sql.window_functions import apply_windows

Tables = dict[str, Scope]
"""What a query may name in FROM beside files: its common table expressions, by lower-case name."""


def translate_query(context: QueryContext, node: Tree, tables: Tables) -> Scope:
    """The rows of a query; Spark computes nothing yet.

    Args:
        context: what all steps of the query share.
        node: a SELECT or a UNION.
        tables: tables that the query may name in FROM.

    Raises:
        Unsupported: a construct that is not known to mean the same on Spark.
        DataError: a file or an expression that is wrong.
    """
    tables = dict(tables)
    for entry in node["cte_map"]["map"]:
        table = translate_query(context, entry["value"]["query_node"], tables)
        tables[entry["key"].lower()] = _rename_columns(table, entry["value"]["aliases"])
    if node["type"] == "SELECT_NODE":
        return _apply_modifiers(context, node, _translate_select(context, node, tables))
    if node["type"] == "SET_OPERATION_NODE":
        return _apply_modifiers(context, node, _translate_union(context, node, tables))
    raise context.unsupported(f"a {node['type'].removesuffix('_NODE').lower().replace('_', ' ')}")


def to_data_frame(scope: Scope) -> DataFrame:
    """The rows with the query's names of the columns, each with the Spark type in which its DuckDB type is held.

    Raises:
        Unsupported: a column of a type that Spark does not hold.
    """
    columns = []
    for name in scope.names:
        stored = stored_type(scope.types[name.internal])
        if stored is None:
            raise scope.context.unsupported(f"column '{name.name}' of type {scope.types[name.internal][:60]}")
        columns.append(F.col(name.internal).cast(stored[1]).alias(name.name))
    return scope.df.select(columns + [name for name in scope.df.columns if name in PLACE])


def _translate_select(context: QueryContext, node: Tree, tables: Tables) -> Scope:
    if node["sample"]:
        raise context.unsupported("a random sample")
    scope = _translate_from(context, node["from_table"], tables)
    items = _expand_stars(scope, node["select_list"])
    aliases: dict[str, Tree] = {}
    trees = []
    for item in items:
        tree = scope.resolve(item, aliases)
        trees.append(tree)
        if item["alias"]:
            aliases.setdefault(item["alias"].lower(), tree)
    if node["where_clause"]:
        scope = scope.filter_rows(scope.resolve(node["where_clause"], aliases))
    names = [_item_name(context, item) for item in items]
    having = scope.resolve(node["having"], aliases) if node["having"] else None
    qualify = scope.resolve(node["qualify"], aliases) if node["qualify"] else None
    conditions = [tree for tree in (having, qualify) if tree is not None]
    scope, all_trees = apply_group_by(scope, node, [*trees, *conditions], aliases, len(trees))
    trees, conditions = all_trees[: len(trees)], all_trees[len(trees) :]
    if having is not None:
        scope = scope.filter_rows(conditions.pop(0))
    scope, all_trees = apply_windows(scope, [*trees, *conditions])
    trees, conditions = all_trees[: len(trees)], all_trees[len(trees) :]
    if qualify is not None:
        scope = scope.filter_rows(conditions.pop(0))
    scope, trees = apply_unnest(scope, trees)
    scope, columns = scope.add_columns(trees)
    return scope.select_columns(list(zip(names, columns, strict=True)))


def _translate_from(context: QueryContext, table: Tree, tables: Tables) -> Scope:
    if table.get("sample"):
        raise context.unsupported("a random sample")
    kind, alias = table["type"], table.get("alias") or ""
    if kind == "EMPTY":
        return Scope(context, context.spark.range(1).toDF(context.new_name()), [])
    if kind == "SUBQUERY":
        scope = translate_query(context, table["subquery"]["node"], tables)
    elif kind == "BASE_TABLE" and table["table_name"].lower() in tables:
        scope = tables[table["table_name"].lower()]
        alias = alias or table["table_name"]
        # New internal names, so that a query may join the table with itself.
        scope = Scope.of(context, scope.df, [(n.name, scope.types[n.internal]) for n in scope.names])
    elif kind in ("BASE_TABLE", "TABLE_FUNCTION"):
        scope = read_table(context, table)
    elif kind == "JOIN":
        left, right = (_translate_from(context, table[side], tables) for side in ("left", "right"))
        return join_scopes(context, table, left, right)
    else:
        raise context.unsupported(f"a {kind.lower().replace('_', ' ')} in FROM")
    return _rename_columns(scope, table.get("column_name_alias") or []).with_qualifier(alias)


def _rename_columns(scope: Scope, aliases: list[str]) -> Scope:
    """Gives new names to the first columns, as many as there are aliases."""
    names = [replace(name, name=alias) for name, alias in zip(scope.names, aliases, strict=False)]
    return replace(scope, names=[*names, *scope.names[len(names) :]])


def _translate_union(context: QueryContext, node: Tree, tables: Tables) -> Scope:
    context.refuse_where_order_counts("a UNION")
    if node["setop_type"] != "UNION":
        raise context.unsupported(f"{node['setop_type'].replace('_', ' ')}")
    nodes = node["children"] or [node["left"], node["right"]]
    first, *others = [translate_query(context, child, tables) for child in nodes]
    types = [first.types[name.internal] for name in first.names]
    df = first.df
    for other in others:
        if [other.types[name.internal] for name in other.names] != types:
            raise context.unsupported("a UNION of columns of different types (cast them to the same type, or it)")
        df = df.union(other.df)
    df = df if node["setop_all"] else df.distinct()
    return Scope.of(context, df, [(name.name, duck) for name, duck in zip(first.names, types, strict=True)])


def _apply_modifiers(context: QueryContext, node: Tree, scope: Scope) -> Scope:
    """Applies what follows a SELECT: DISTINCT and ORDER BY."""
    for modifier in node["modifiers"]:
        context.refuse_where_order_counts(modifier["type"].removesuffix("_MODIFIER"))
        if modifier["type"] == "DISTINCT_MODIFIER" and not modifier["distinct_on_targets"]:
            scope = replace(scope, df=scope.df.distinct())
        elif modifier["type"] != "ORDER_MODIFIER":
            what = {"LIMIT_MODIFIER": "LIMIT", "LIMIT_PERCENT_MODIFIER": "LIMIT", "DISTINCT_MODIFIER": "DISTINCT ON"}
            name = what.get(modifier["type"], modifier["type"])
            raise context.unsupported(f"{name}, which keeps rows by their order,")
    return scope


def _expand_stars(scope: Scope, items: list[Tree]) -> list[Tree]:
    """The select list with an item for each column that ``*`` and ``columns('pattern')`` stand for."""
    expanded = []
    for item in items:
        stars = [node for node in walk(item) if node["class"] == "STAR"]
        if not stars:
            expanded.append(item)
        elif item["class"] == "STAR" and not item["columns"]:
            expanded += _expand_star(scope, item)
        else:
            expanded += _expand_pattern(scope, item, stars)
    return expanded


def _expand_star(scope: Scope, star: Tree) -> list[Tree]:
    if star["qualified_exclude_list"] or star["rename_list"]:
        raise scope.context.unsupported("* with RENAME or a qualified EXCLUDE")
    excluded = {name.lower() for name in star["exclude_list"]}
    replacements = {entry["key"].lower(): entry["value"] for entry in star["replace_list"]}
    table = star["relation_name"].lower()
    items = []
    for name in scope.names:
        if name.name.lower() in excluded or (table and table not in (q.lower() for q in name.qualifiers)):
            continue
        path = [name.qualifiers[0], name.name] if table else [name.name]
        reference = column(name.name) | {"column_names": path}
        items.append(replacements.get(name.name.lower(), reference) | {"alias": name.name})
    return items


def _expand_pattern(scope: Scope, item: Tree, stars: list[Tree]) -> list[Tree]:
    """One item of the select list for each column whose name matches the pattern inside the item."""
    star = stars[0]
    pattern = literal_text(star["expr"]) if star["columns"] and star["expr"] else None
    if pattern is None or any(fingerprint(other) != fingerprint(star) for other in stars[1:]):
        raise scope.context.unsupported("COLUMNS with more than one pattern in an expression")
    items = []
    for name in (n.name for n in scope.names):
        if (match := re.search(pattern, name)) is None:
            continue

        def change(node: Tree, name: str = name) -> Tree | None:
            return column(name) if node["class"] == "STAR" else None

        alias = match.expand(item["alias"].replace("\\0", "\\g<0>"))
        items.append(replace_nodes(item, change) | {"alias": alias or name})
    return items


def _item_name(context: QueryContext, item: Tree) -> str:
    """What DuckDB calls a column of the select list."""
    if item["alias"]:
        return str(item["alias"])
    return str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else context.trees.to_sql(item)
