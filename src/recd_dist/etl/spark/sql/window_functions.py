"""Window functions on Spark whose result does not depend on the order of equal rows, and UNNEST.

Frames are ranges of integers; timestamps are ordered as microseconds, so that the two ends of a frame have one unit.
"""

from dataclasses import replace

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.aggregate import summary
from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import INTEGERS, element, stored
from recd_dist.etl.spark.sql.tree import Tree, cast, column, constant, replaced, same, walked

_RANKS = {"WINDOW_RANK": "rank()", "WINDOW_RANK_DENSE": "dense_rank()"}
_ENDS = {
    "UNBOUNDED_PRECEDING": "unbounded preceding",
    "CURRENT_ROW_RANGE": "current row",
    "UNBOUNDED_FOLLOWING": "unbounded following",
    "EXPR_PRECEDING_RANGE": "{} preceding",
    "EXPR_FOLLOWING_RANGE": "{} following",
}


def windowed(scope: Scope, trees: list[Tree]) -> tuple[Scope, list[Tree]]:
    """The scope with a column per window function of the trees, and the trees over these columns."""
    calls = {same(n): n for tree in trees for n in walked(tree) if n["class"] == "WINDOW"}
    if not calls:
        return scope, trees
    scope.shop.check_unplaced("a window function")
    places, made, types = {}, [], {}
    for text, call in calls.items():
        scope, sql, duck = _window(scope, call)
        places[text] = scope.shop.fresh()
        types[places[text]] = duck
        made.append(F.expr(sql).alias(places[text]))
    scope = replace(scope, df=scope.df.select("*", *made), types=scope.types | types)

    def change(tree: Tree) -> Tree | None:
        place = places.get(same(tree)) if tree["class"] == "WINDOW" else None
        return column(place) if place else None

    after: list[Tree] = replaced(trees, change)
    return scope, after


def _window(scope: Scope, call: Tree) -> tuple[Scope, str, str]:
    name, shop = call["function_name"], scope.shop
    if call["exclude_clause"] != "NO_OTHER" or call["ignore_nulls"] or call["arg_orders"] or call["filter_expr"]:
        raise shop.unsupported(f"the window function {name}() with FILTER, EXCLUDE, IGNORE NULLS or an inner ORDER BY")
    if call["type"] not in (*_RANKS, "WINDOW_AGGREGATE"):
        raise shop.unsupported(f"the window function {name}(), which depends on the order of equal rows,")
    duck = scope.typed([call | {"alias": ""}], of_one_row=False)[0]
    scope, columns = scope.added([argument["expression"] for argument in call["arguments"]])
    rank = _RANKS.get(call["type"])
    sql = rank or summary(scope, name, columns, call["distinct"], duck)
    scope, partitions = scope.added(call["partitions"])
    scope, orders = scope.ordered([order["expression"] for order in call["orders"]])
    keys = [_order(order, key) for order, key in zip(call["orders"], orders, strict=True)]
    frame = ""
    if rank is None and keys:
        scope, keys, frame = _framed(scope, call, orders, keys)
    over = [f"partition by {', '.join(partitions)}"] if partitions else []
    over += [f"order by {', '.join(keys)}"] if keys else []
    found = stored(duck)
    if found is None:
        raise shop.unsupported(f"the window function {name}() of type {duck[:60]}")
    return scope, f"cast({sql} over ({' '.join([*over, frame])}) as {found[1].simpleString()})", duck


def _order(order: Tree, key: str) -> str:
    nulls = "first" if order["null_order"] == "ORDER_NULLS_FIRST" else "last"
    return f"{key} {'desc' if order['type'] == 'DESCENDING' else 'asc'} nulls {nulls}"


def _framed(scope: Scope, call: Tree, orders: list[str], keys: list[str]) -> tuple[Scope, list[str], str]:
    """The frame of an aggregate over a window, its order key as an integer where the frame counts in it."""
    shop = scope.shop
    if not {call["start"], call["end"]} <= set(_ENDS):
        raise shop.unsupported("a window frame of ROWS or GROUPS (RANGE is known)")
    bounds = [bound for bound in (call["start_expr"], call["end_expr"]) if bound]
    if not bounds:
        return scope, keys, f"range between {_ENDS[call['start']]} and {_ENDS[call['end']]}"
    duck = scope.types[orders[0]]
    if len(orders) > 1 or keys[0] != f"{orders[0]} asc nulls last" or duck not in (*INTEGERS, "TIMESTAMP"):
        raise shop.unsupported("a window frame of RANGE over anything but one ascending integer or timestamp")
    order = orders[0]
    if duck == "TIMESTAMP":
        order = shop.fresh()
        micros = F.expr(f"unix_micros(cast({orders[0]} as timestamp))").alias(order)
        scope = replace(scope, df=scope.df.select("*", micros))
    ends = [
        _ENDS[call[end]].format(_offset(scope, call[f"{end}_expr"], duck) if call[f"{end}_expr"] else "")
        for end in ("start", "end")
    ]
    return scope, [f"cast({order} as bigint) asc nulls last"], f"range between {ends[0]} and {ends[1]}"


def _offset(scope: Scope, tree: Tree, duck: str) -> int:
    """A bound of a frame in the unit of the order key."""
    if any(node["class"] == "COLUMN_REF" for node in walked(tree)):
        raise scope.shop.unsupported("a window frame whose size differs from row to row")
    text = scope.shop.trees.text(tree)
    if duck != "TIMESTAMP":
        return int(scope.shop.connection.execute(f"select ({text})::bigint").fetchall()[0][0])
    query = f"select epoch_us(timestamp '2001-01-01' + {text}) - epoch_us(timestamp '2001-01-01'), epoch_us("
    query += f"timestamp '2004-02-01' + {text}) - epoch_us(timestamp '2004-02-01')"
    micros = scope.shop.connection.execute(query).fetchall()[0]
    if micros[0] != micros[1]:
        raise scope.shop.unsupported("a window frame of months or years")
    return int(micros[0])


def unnested(scope: Scope, trees: list[Tree]) -> tuple[Scope, list[Tree]]:
    """A row per element of the lists that the trees unnest, side by side, and the trees over the elements."""
    calls = {same(n): n for tree in trees for n in walked(tree) if _unnests(n)}
    if not calls:
        return scope, trees
    places, ready, types = {}, [], {}
    for text, call in calls.items():
        lists = [argument["expression"] for argument in call["arguments"]]
        subscripts = call["function_name"] == "generate_subscripts"
        if len(lists) != 1 + subscripts or (subscripts and constant(lists[1]) != "1"):
            raise scope.shop.unsupported("unnest with options, or subscripts of inner lists")
        scope, (name,) = scope.added(lists[:1])
        duck = scope.types[name]
        if not duck.endswith("]"):
            raise scope.shop.unsupported(f"unnest of {duck[:60]}")
        places[text] = scope.shop.fresh()
        types[places[text]] = "BIGINT" if subscripts else element(duck)
        numbers = f"if(size({name}) > 0, sequence(1L, cast(size({name}) as bigint)), cast(array() as array<bigint>))"
        value = numbers if subscripts else f"coalesce({name}, cast(array() as {_array(scope, duck)}))"
        ready.append(F.expr(value).alias(places[text]))
    pairs, row = scope.df.select("*", *ready), scope.shop.fresh()
    others = [F.col(name) for name in scope.df.columns]
    df = pairs.select(*others, F.explode(F.arrays_zip(*places.values())).alias(row))
    df = df.select(*others, *[F.col(f"{row}.{place}").alias(place) for place in places.values()])

    def change(tree: Tree) -> Tree | None:
        if not _unnests(tree):
            return None
        place = column(places[same(tree)])
        duck = scope.typed([place_of(tree)], of_one_row=False)[0]
        return place if duck == types[places[same(tree)]] else cast(place, scope.shop.trees, duck)

    after: list[Tree] = replaced(trees, change)
    return replace(scope, df=df, types=scope.types | types), after


def place_of(tree: Tree) -> Tree:
    """A node without its name in the select list."""
    return tree | {"alias": ""}


def _unnests(tree: Tree) -> bool:
    return tree["class"] == "FUNCTION" and tree["function_name"] in ("unnest", "unlist", "generate_subscripts")


def _array(scope: Scope, duck: str) -> str:
    found = stored(duck)
    if found is None:
        raise scope.shop.unsupported(f"unnest of {duck[:60]}")
    return found[1].simpleString()
