"""GROUP BY on Spark, with aggregates whose result does not depend on the order of rows.

``sum`` is for integers: a sum of floats depends on the order in which they are added. ``list`` needs an ``order by``.
"""

from dataclasses import replace

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import INTEGERS
from recd_dist.etl.spark.sql.tree import Tree, fingerprint, literal_text, replace_by_columns, walk, without_alias

_LIKE_DUCKDB = ("min", "max", "count", "bool_and", "bool_or", "sum")
"""Aggregates that have the same name and meaning on both engines."""


def is_aggregate(scope: Scope, tree: Tree) -> bool:
    """Whether an expression calls an aggregate function."""
    kinds = scope.context.function_kinds.get(tree.get("function_name", ""), set())
    return tree["class"] == "FUNCTION" and "aggregate" in kinds and "scalar" not in kinds


def apply_group_by(
    scope: Scope, select: Tree, trees: list[Tree], aliases: dict[str, Tree], num_items: int
) -> tuple[Scope, list[Tree]]:
    """Makes one row of each group of rows, with a column per key and per aggregate.

    Args:
        scope: the rows after WHERE.
        select: node of the SELECT, whose GROUP BY counts.
        trees: resolved expressions of the select list, of HAVING and of QUALIFY.
        aliases: resolved expression of each alias.
        num_items: number of expressions at the front of ``trees`` that are the select list.

    Returns:
        The scope of the groups, and the trees over its columns; both unchanged where nothing is grouped.

    Raises:
        Unsupported: grouping sets, or an aggregate that may give another result on Spark.
    """
    items = trees[:num_items]
    calls = {fingerprint(node): node for tree in trees for node in walk(tree) if is_aggregate(scope, node)}
    keys = [_resolve_key(scope, key, items, aliases) for key in select["group_expressions"]]
    if select["aggregate_handling"] == "FORCE_AGGREGATES":
        keys = [tree for tree in items if not any(is_aggregate(scope, node) for node in walk(tree))]
    if not keys and not calls:
        return scope, trees
    scope.context.refuse_where_order_counts("GROUP BY")
    if len(select["group_sets"]) > 1:
        raise scope.context.unsupported("GROUPING SETS, ROLLUP or CUBE")
    scope, key_columns = scope.add_columns(keys)
    column_of, types, aggregates = {}, {name: scope.types[name] for name in key_columns}, []
    for text, call in calls.items():
        scope, sql, duck = _translate_call(scope, call)
        column_of[text] = scope.context.new_name()
        types[column_of[text]] = duck
        aggregates.append(F.expr(sql).alias(column_of[text]))
    distinct_keys = list(dict.fromkeys(key_columns))
    df = scope.df.groupBy(*distinct_keys).agg(*aggregates) if aggregates else scope.df.select(*distinct_keys).distinct()
    column_of = {fingerprint(key): name for key, name in zip(keys, key_columns, strict=True)} | column_of
    groups = replace(scope, df=df, names=[n for n in scope.names if n.internal in types], types=types)
    return groups, replace_by_columns(trees, column_of)


def _resolve_key(scope: Scope, key: Tree, items: list[Tree], aliases: dict[str, Tree]) -> Tree:
    """The expression of a GROUP BY key; a number stands for that item of the select list."""
    number = literal_text(key)
    if number is not None and number.isdigit():
        return without_alias(items[int(number) - 1])
    return without_alias(scope.resolve(key, aliases))


def _translate_call(scope: Scope, call: Tree) -> tuple[Scope, str, str]:
    """The scope with the arguments as columns, Spark SQL of an aggregate over them, and its DuckDB type."""
    name, arguments = call["function_name"], [argument["expression"] for argument in call["arguments"]]
    duck = scope.infer_call_type(call)
    scope, columns = scope.add_columns(arguments)
    condition = ""
    if call["filter"]:
        scope, kept = scope.add_columns([call["filter"]])
        condition = f" filter (where {kept[0]})"
    orders = call["order_bys"]["orders"]
    if name in ("list", "array_agg") and orders and not call["distinct"]:
        return _translate_list(scope, columns[0], orders, condition, duck)
    sql = aggregate_sql(scope, name, columns, call["distinct"], duck)
    return scope, f"cast({sql}{condition} as {scope.context.spark_type(duck, f'the aggregate {name}()')})", duck


def aggregate_sql(scope: Scope, name: str, columns: list[str], distinct: bool, duck: str) -> str:
    """Spark SQL of an aggregate that means the same on both engines.

    Args:
        scope: the rows.
        name: DuckDB's name of the function.
        columns: internal names of its arguments.
        distinct: whether equal values count once.
        duck: DuckDB type of the result.

    Raises:
        Unsupported: the aggregate may give another result on Spark.
    """
    if name == "count_star" or (name == "count" and not columns):
        return "count(1)"
    if name not in _LIKE_DUCKDB or len(columns) != 1 or duck.endswith("]"):
        raise scope.context.unsupported(f"the aggregate {name}({', '.join(columns and ['...'])})")
    if name == "sum" and scope.types[columns[0]] not in INTEGERS:
        raise scope.context.unsupported(f"a sum of {scope.types[columns[0]]}, which depends on the order of the rows,")
    value = f"cast({columns[0]} as bigint)" if name == "sum" else columns[0]
    return f"{name}({'distinct ' if distinct else ''}{value})"


def _translate_list(scope: Scope, value: str, orders: list[Tree], condition: str, duck: str) -> tuple[Scope, str, str]:
    """``list(x order by a, b)`` as sorted structs: keys that are NULL come last, and no row at all gives NULL."""
    if any(order["type"] == "DESCENDING" or order["null_order"] == "ORDER_NULLS_FIRST" for order in orders):
        raise scope.context.unsupported("list(... order by ... desc)")
    scope, columns = scope.add_order_keys([order["expression"] for order in orders])
    keys = [f"{c} is null as n{i}, {c} as k{i}" for i, c in enumerate(columns)]
    rows = f"collect_list(struct({', '.join(keys)}, {value} as x)){condition}"
    sql = f"case when count(1){condition} = 0 then null else transform(array_sort({rows}), r -> r.x) end"
    return scope, sql, duck
