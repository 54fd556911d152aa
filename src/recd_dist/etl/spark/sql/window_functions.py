"""Window functions on Spark whose result does not depend on the order of equal rows.

Frames are ranges of integers. Timestamps are ordered as microseconds, so that both ends of a frame have one unit.
"""

from dataclasses import replace

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.aggregate import aggregate_sql
from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import INTEGERS
from recd_dist.etl.spark.sql.tree import Tree, fingerprint, replace_by_columns, walk

_RANKS = {"WINDOW_RANK": "rank()", "WINDOW_RANK_DENSE": "dense_rank()"}
_BOUNDS = {
    "UNBOUNDED_PRECEDING": "unbounded preceding",
    "CURRENT_ROW_RANGE": "current row",
    "UNBOUNDED_FOLLOWING": "unbounded following",
    "EXPR_PRECEDING_RANGE": "{} preceding",
    "EXPR_FOLLOWING_RANGE": "{} following",
}


def apply_windows(scope: Scope, trees: list[Tree]) -> tuple[Scope, list[Tree]]:
    """Adds a column for each window function of the trees.

    Args:
        scope: the rows.
        trees: resolved expressions.

    Returns:
        The scope with the new columns, and the trees over these columns.

    Raises:
        Unsupported: a window function or a frame that may give another result on Spark.
    """
    calls = {fingerprint(node): node for tree in trees for node in walk(tree) if node["class"] == "WINDOW"}
    if not calls:
        return scope, trees
    scope.context.refuse_where_order_counts("a window function")
    column_of, windows, types = {}, [], {}
    for text, call in calls.items():
        scope, sql, duck = _translate_call(scope, call)
        column_of[text] = scope.context.new_name()
        types[column_of[text]] = duck
        windows.append(F.expr(sql).alias(column_of[text]))
    scope = replace(scope, df=scope.df.select("*", *windows), types=scope.types | types)
    return scope, replace_by_columns(trees, column_of)


def _translate_call(scope: Scope, call: Tree) -> tuple[Scope, str, str]:
    """The scope with the columns that a window needs, Spark SQL of the call, and its DuckDB type."""
    name, context = call["function_name"], scope.context
    if call["exclude_clause"] != "NO_OTHER" or call["ignore_nulls"] or call["arg_orders"] or call["filter_expr"]:
        raise context.unsupported(
            f"the window function {name}() with FILTER, EXCLUDE, IGNORE NULLS or an inner ORDER BY"
        )
    if call["type"] not in (*_RANKS, "WINDOW_AGGREGATE"):
        raise context.unsupported(f"the window function {name}(), which depends on the order of equal rows,")
    duck = scope.infer_call_type(call)
    scope, columns = scope.add_columns([argument["expression"] for argument in call["arguments"]])
    rank = _RANKS.get(call["type"])
    sql = rank or aggregate_sql(scope, name, columns, call["distinct"], duck)
    scope, partitions = scope.add_columns(call["partitions"])
    scope, orders = scope.add_order_keys([order["expression"] for order in call["orders"]])
    keys = [_order_key(order, column) for order, column in zip(call["orders"], orders, strict=True)]
    frame = ""
    if rank is None and keys:
        scope, keys, frame = _translate_frame(scope, call, orders, keys)
    over = [f"partition by {', '.join(partitions)}"] if partitions else []
    over += [f"order by {', '.join(keys)}"] if keys else []
    kind = context.spark_type(duck, f"the window function {name}()")
    return scope, f"cast({sql} over ({' '.join([*over, frame])}) as {kind})", duck


def _order_key(order: Tree, column: str) -> str:
    nulls = "first" if order["null_order"] == "ORDER_NULLS_FIRST" else "last"
    return f"{column} {'desc' if order['type'] == 'DESCENDING' else 'asc'} nulls {nulls}"


def _translate_frame(scope: Scope, call: Tree, orders: list[str], keys: list[str]) -> tuple[Scope, list[str], str]:
    """Spark SQL of the frame of an aggregate over a window.

    Args:
        scope: the rows.
        call: the window function.
        orders: columns of its ORDER BY.
        keys: Spark SQL of its ORDER BY, an item per column.

    Returns:
        The scope; the ORDER BY, as one integer where the frame counts in its unit; and the frame.
    """
    context = scope.context
    if not {call["start"], call["end"]} <= set(_BOUNDS):
        raise context.unsupported("a window frame of ROWS or GROUPS (RANGE is known)")
    if not (call["start_expr"] or call["end_expr"]):
        return scope, keys, f"range between {_BOUNDS[call['start']]} and {_BOUNDS[call['end']]}"
    duck = scope.types[orders[0]]
    if len(orders) > 1 or keys[0] != f"{orders[0]} asc nulls last" or duck not in (*INTEGERS, "TIMESTAMP"):
        raise context.unsupported("a window frame of RANGE over anything but one ascending integer or timestamp")
    order = orders[0]
    if duck == "TIMESTAMP":
        order = context.new_name()
        micros = F.expr(f"unix_micros(cast({orders[0]} as timestamp))").alias(order)
        scope = replace(scope, df=scope.df.select("*", micros))
    bounds = [
        _BOUNDS[call[end]].format(_offset(scope, call[f"{end}_expr"], duck) if call[f"{end}_expr"] else "")
        for end in ("start", "end")
    ]
    return scope, [f"cast({order} as bigint) asc nulls last"], f"range between {bounds[0]} and {bounds[1]}"


def _offset(scope: Scope, tree: Tree, duck: str) -> int:
    """The distance of a frame's end from the current row: microseconds for a timestamp, else the integer itself."""
    context = scope.context
    if any(node["class"] == "COLUMN_REF" for node in walk(tree)):
        raise context.unsupported("a window frame whose size differs from row to row")
    text = context.trees.to_sql(tree)
    if duck != "TIMESTAMP":
        return int(context.connection.execute(f"select ({text})::bigint").fetchall()[0][0])
    # A distance in months or years has another length at another date.
    query = f"select epoch_us(timestamp '2001-01-01' + {text}) - epoch_us(timestamp '2001-01-01'), epoch_us("
    query += f"timestamp '2004-02-01' + {text}) - epoch_us(timestamp '2004-02-01')"
    micros = context.connection.execute(query).fetchall()[0]
    if micros[0] != micros[1]:
        raise context.unsupported("a window frame of months or years")
    return int(micros[0])
