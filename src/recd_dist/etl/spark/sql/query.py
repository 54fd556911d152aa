"""A DuckDB query on Spark: its relational steps, one after another, on DataFrames.

::

    with impressions as (...)              a scope per name
    select *, sum(n) over w, unnest(l)     from, where -> groups -> windows -> unnest -> expressions -> distinct
    from candidates join users using (u)

A step that could give other rows than DuckDB's raises ``Unsupported`` instead. ``order by`` without a limit has no
meaning for a set of rows and is left out.
"""

import re
from dataclasses import replace
from typing import Any

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.aggregate import grouped
from recd_dist.etl.spark.sql.join import joined
from recd_dist.etl.spark.sql.read_files import opened
from recd_dist.etl.spark.sql.row_place import PLACE
from recd_dist.etl.spark.sql.scope import Scope, Workshop
from recd_dist.etl.spark.sql.spark_types import stored
from recd_dist.etl.spark.sql.tree import Tree, column, constant, replaced, same, walked
from recd_dist.etl.spark.sql.window_functions import unnested, windowed

Named = dict[str, Scope]
"""What a query may name in FROM beside files: common table expressions."""


def compiled(shop: Workshop, node: Tree, named: Named) -> Scope:
    """The rows of a query.

    Args:
        shop: of the query.
        node: a SELECT or a UNION.
        named: tables that it may refer to, by lower-case name.

    Raises:
        Unsupported: a construct that is not known to mean the same on Spark.
        DataError: a file or expression that is wrong.
    """
    named = dict(named)
    for entry in node["cte_map"]["map"]:
        table = compiled(shop, entry["value"]["query_node"], named)
        named[entry["key"].lower()] = _renamed(table, entry["value"]["aliases"])
    if node["type"] == "SELECT_NODE":
        return _modified(shop, node, _selected(shop, node, named))
    if node["type"] == "SET_OPERATION_NODE":
        return _modified(shop, node, _united(shop, node, named))
    raise shop.unsupported(f"a {node['type'].removesuffix('_NODE').lower().replace('_', ' ')}")


def _selected(shop: Workshop, node: Tree, named: Named) -> Scope:
    if node["sample"]:
        raise shop.unsupported("a random sample")
    scope = _from(shop, node["from_table"], named)
    items = _expanded(scope, node["select_list"])
    aliases: dict[str, Tree] = {}
    trees = []
    for item in items:
        tree = scope.resolved(item, aliases)
        trees.append(tree)
        if item["alias"]:
            aliases.setdefault(item["alias"].lower(), tree)
    if node["where_clause"]:
        scope = scope.filtered(scope.resolved(node["where_clause"], aliases))
    names = [_name(shop, item) for item in items]
    having = scope.resolved(node["having"], aliases) if node["having"] else None
    qualify = scope.resolved(node["qualify"], aliases) if node["qualify"] else None
    rest = [tree for tree in (having, qualify) if tree is not None]
    scope, both = grouped(scope, node, [*trees, *rest], aliases, len(trees))
    trees, rest = both[: len(trees)], both[len(trees) :]
    if having is not None:
        scope = scope.filtered(rest.pop(0))
    scope, both = windowed(scope, [*trees, *rest])
    trees, rest = both[: len(trees)], both[len(trees) :]
    if qualify is not None:
        scope = scope.filtered(rest.pop(0))
    scope, trees = unnested(scope, trees)
    scope, columns = scope.added(trees)
    return scope.output(list(zip(names, columns, strict=True)))


def _from(shop: Workshop, table: Tree, named: Named) -> Scope:
    if table.get("sample"):
        raise shop.unsupported("a random sample")
    kind, alias = table["type"], table.get("alias") or ""
    if kind == "EMPTY":
        return Scope(shop, shop.spark.range(1).toDF(shop.fresh()), [])
    if kind == "SUBQUERY":
        scope = compiled(shop, table["subquery"]["node"], named)
    elif kind == "BASE_TABLE" and table["table_name"].lower() in named:
        scope = named[table["table_name"].lower()]
        alias = alias or table["table_name"]
        scope = Scope.of(shop, scope.df, [(n.name, scope.types[n.internal]) for n in scope.names])
    elif kind in ("BASE_TABLE", "TABLE_FUNCTION"):
        scope = opened(shop, table)
    elif kind == "JOIN":
        return joined(shop, table, _from(shop, table["left"], named), _from(shop, table["right"], named))
    else:
        raise shop.unsupported(f"a {kind.lower().replace('_', ' ')} in FROM")
    return _renamed(scope, table.get("column_name_alias") or []).qualified(alias)


def _renamed(scope: Scope, aliases: list[str]) -> Scope:
    names = [replace(name, name=alias) for name, alias in zip(scope.names, aliases, strict=False)]
    return replace(scope, names=[*names, *scope.names[len(names) :]])


def _united(shop: Workshop, node: Tree, named: Named) -> Scope:
    shop.check_unplaced("a UNION")
    if node["setop_type"] != "UNION":
        raise shop.unsupported(f"{node['setop_type'].replace('_', ' ')}")
    first, *others = [compiled(shop, child, named) for child in node["children"] or [node["left"], node["right"]]]
    types = [first.types[name.internal] for name in first.names]
    df = first.df
    for other in others:
        if [other.types[name.internal] for name in other.names] != types:
            raise shop.unsupported("a UNION of columns of different types (cast them to the same type, or it)")
        df = df.union(other.df)
    df = df if node["setop_all"] else df.distinct()
    return Scope.of(shop, df, [(n.name, t) for n, t in zip(first.names, types, strict=True)])


def _modified(shop: Workshop, node: Tree, scope: Scope) -> Scope:
    for modifier in node["modifiers"]:
        shop.check_unplaced(modifier["type"].removesuffix("_MODIFIER"))
        if modifier["type"] == "DISTINCT_MODIFIER" and not modifier["distinct_on_targets"]:
            scope = replace(scope, df=scope.df.distinct())
        elif modifier["type"] != "ORDER_MODIFIER":
            what = {"LIMIT_MODIFIER": "LIMIT", "LIMIT_PERCENT_MODIFIER": "LIMIT", "DISTINCT_MODIFIER": "DISTINCT ON"}
            raise shop.unsupported(f"{what.get(modifier['type'], modifier['type'])}, which keeps rows by their order,")
    return scope


def _expanded(scope: Scope, items: list[Tree]) -> list[Tree]:
    """The select list with a column for each that ``*`` and ``columns('pattern')`` mean."""
    made = []
    for item in items:
        patterns = [n for n in walked(item) if n["class"] == "STAR"]
        if not patterns:
            made.append(item)
        elif item["class"] == "STAR" and not item["columns"]:
            made += _star(scope, item)
        else:
            made += _patterns(scope, item, patterns)
    return made


def _star(scope: Scope, star: Tree) -> list[Tree]:
    if star["qualified_exclude_list"] or star["rename_list"]:
        raise scope.shop.unsupported("* with RENAME or a qualified EXCLUDE")
    left_out = {name.lower() for name in star["exclude_list"]}
    other = {entry["key"].lower(): entry["value"] for entry in star["replace_list"]}
    made = []
    for name in scope.names:
        called = star["relation_name"].lower()
        if name.name.lower() in left_out or (called and called not in (q.lower() for q in name.qualifiers)):
            continue
        path = [name.qualifiers[0], name.name] if called else [name.name]
        reference = column(name.name) | {"column_names": path}
        made.append(other.get(name.name.lower(), reference) | {"alias": name.name})
    return made


def _patterns(scope: Scope, item: Tree, stars: list[Tree]) -> list[Tree]:
    star = stars[0]
    pattern = constant(star["expr"]) if star["columns"] and star["expr"] else None
    if pattern is None or any(same(other) != same(star) for other in stars[1:]):
        raise scope.shop.unsupported("COLUMNS with more than one pattern in an expression")
    made = []
    for name in (n.name for n in scope.names):
        if (match := re.search(pattern, name)) is None:
            continue

        def named(node: Tree, name: str = name) -> Tree | None:
            return column(name) if node["class"] == "STAR" else None

        alias = match.expand(item["alias"].replace("\\0", "\\g<0>"))
        made.append(replaced(item, named) | {"alias": alias or name})
    return made


def _name(shop: Workshop, item: Tree) -> str:
    """What DuckDB calls a column of the select list."""
    if item["alias"]:
        return str(item["alias"])
    return str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else shop.trees.text(item)


def as_stored(scope: Scope) -> Any:
    """A DataFrame whose columns have the query's names, and the Spark types of their DuckDB types."""
    columns = []
    for name in scope.names:
        found = stored(scope.types[name.internal])
        if found is None:
            raise scope.shop.unsupported(f"column '{name.name}' of type {scope.types[name.internal][:60]}")
        columns.append(F.col(name.internal).cast(found[1]).alias(name.name))
    return scope.df.select(columns + [name for name in scope.df.columns if name in PLACE])
