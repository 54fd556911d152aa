"""GROUP BY on Spark, with the aggregates whose result does not depend on the order of the rows.

``sum`` is for integers: a sum of floats depends on the order in which they are added. ``list`` needs an ``order by``.
"""

from dataclasses import replace

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import INTEGERS, stored
from recd_dist.etl.spark.sql.tree import Tree, column, constant, replaced, same, walked

_SAME = {"min": "min", "max": "max", "count": "count", "bool_and": "bool_and", "bool_or": "bool_or", "sum": "sum"}


def is_aggregate(scope: Scope, tree: Tree) -> bool:
    """Whether a node calls an aggregate function."""
    kinds = scope.shop.kinds.get(tree.get("function_name", ""), set())
    return tree["class"] == "FUNCTION" and "aggregate" in kinds and "scalar" not in kinds


def grouped(
    scope: Scope, node: Tree, trees: list[Tree], aliases: dict[str, Tree], num_items: int
) -> tuple[Scope, list[Tree]]:
    """The groups of a SELECT.

    Args:
        scope: rows after WHERE.
        node: the SELECT.
        trees: resolved select list, HAVING and QUALIFY.
        aliases: resolved expressions by alias.
        num_items: how many of ``trees`` are the select list.

    Returns:
        A row per group, and the trees over its columns; both as they were where nothing is grouped.
    """
    items = trees[:num_items]
    calls = {same(n): n for tree in trees for n in walked(tree) if is_aggregate(scope, n)}
    keys = [_key(scope, key, items, aliases) for key in node["group_expressions"]]
    if node["aggregate_handling"] == "FORCE_AGGREGATES":
        keys = [tree for tree in items if not any(is_aggregate(scope, n) for n in walked(tree))]
    if not keys and not calls:
        return scope, trees
    scope.shop.check_unplaced("GROUP BY")
    if len(node["group_sets"]) > 1:
        raise scope.shop.unsupported("GROUPING SETS, ROLLUP or CUBE")
    scope, key_columns = scope.added(keys)
    places, types, made = {}, {name: scope.types[name] for name in key_columns}, []
    for text, call in calls.items():
        scope, sql, duck = _aggregate(scope, call)
        places[text] = scope.shop.fresh()
        types[places[text]] = duck
        made.append(F.expr(sql).alias(places[text]))
    keyed = scope.df.groupBy(*dict.fromkeys(key_columns))
    df = keyed.agg(*made) if made else scope.df.select(*dict.fromkeys(key_columns)).distinct()
    places = {same(key): name for key, name in zip(keys, key_columns, strict=True)} | places

    def change(tree: Tree) -> Tree | None:
        place = places.get(same(tree))
        return column(place) if place else None

    after: list[Tree] = replaced(trees, change)
    return replace(scope, df=df, names=[n for n in scope.names if n.internal in types], types=types), after


def _key(scope: Scope, key: Tree, items: list[Tree], aliases: dict[str, Tree]) -> Tree:
    number = constant(key)
    if number is not None and number.isdigit():
        return items[int(number) - 1] | {"alias": ""}
    return scope.resolved(key, aliases) | {"alias": ""}


def _aggregate(scope: Scope, call: Tree) -> tuple[Scope, str, str]:
    """The scope with the arguments as columns, Spark SQL of an aggregate over them, and its DuckDB type."""
    name, args = call["function_name"], [argument["expression"] for argument in call["arguments"]]
    duck = scope.typed([call | {"alias": ""}], of_one_row=False)[0]
    scope, columns = scope.added(args)
    only = ""
    if call["filter"]:
        scope, kept = scope.added([call["filter"]])
        only = f" filter (where {kept[0]})"
    orders = call["order_bys"]["orders"]
    if name in ("list", "array_agg") and orders and not call["distinct"]:
        return _list(scope, columns[0], orders, only, duck)
    sql = summary(scope, name, columns, call["distinct"], duck)
    return scope, f"cast({sql}{only} as {_spark(scope, name, duck)})", duck


def summary(scope: Scope, name: str, columns: list[str], distinct: bool, duck: str) -> str:
    """Spark SQL of an aggregate that means the same on both engines."""
    if name == "count_star" or (name == "count" and not columns):
        return "count(1)"
    spark = _SAME.get(name)
    if spark is None or len(columns) != 1 or duck.endswith("]"):
        raise scope.shop.unsupported(f"the aggregate {name}({', '.join(columns and ['...'])})")
    if name == "sum" and scope.types[columns[0]] not in INTEGERS:
        raise scope.shop.unsupported(f"a sum of {scope.types[columns[0]]}, which depends on the order of the rows,")
    value = f"cast({columns[0]} as bigint)" if name == "sum" else columns[0]
    return f"{spark}({'distinct ' if distinct else ''}{value})"


def _spark(scope: Scope, name: str, duck: str) -> str:
    found = stored(duck)
    if found is None:
        raise scope.shop.unsupported(f"the aggregate {name}() of type {duck[:60]}")
    return found[1].simpleString()


def _list(scope: Scope, value: str, orders: list[Tree], only: str, duck: str) -> tuple[Scope, str, str]:
    """``list(x order by a, b)``: structs sorted; NULLs last, NULL when there is no row."""
    if any(order["type"] == "DESCENDING" or order["null_order"] == "ORDER_NULLS_FIRST" for order in orders):
        raise scope.shop.unsupported("list(... order by ... desc)")
    scope, columns = scope.ordered([order["expression"] for order in orders])
    parts = [f"{c} is null as n{i}, {c} as k{i}" for i, c in enumerate(columns)]
    rows = f"collect_list(struct({', '.join(parts)}, {value} as x)){only}"
    sql = f"case when count(1){only} = 0 then null else transform(array_sort({rows}), r -> r.x) end"
    return scope, sql, duck
