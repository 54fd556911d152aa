"""UNNEST on Spark: a row for each element of a list.

::

    select i, unnest(l) as x    i  l            i  x
                                1  [4, 5]   ->  1  4
                                2  []           1  5
"""

from dataclasses import replace

from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.scope import Scope
from recd_dist.etl.spark.sql.spark_types import element_type
from recd_dist.etl.spark.sql.tree import Tree, column, fingerprint, literal_text, replace_nodes, walk


def apply_unnest(scope: Scope, trees: list[Tree]) -> tuple[Scope, list[Tree]]:
    """Makes a row for each element of the lists that the trees unnest; several lists are laid side by side.

    Args:
        scope: the rows.
        trees: resolved expressions.

    Returns:
        The scope with a row per element and a column per list, and the trees over these columns.

    Raises:
        Unsupported: options of UNNEST, subscripts of inner lists, or an argument that is no list.
    """
    calls = {fingerprint(node): node for tree in trees for node in walk(tree) if _is_unnest(node)}
    if not calls:
        return scope, trees
    column_of, lists, types = {}, [], {}
    for text, call in calls.items():
        scope, sql, duck = _translate_call(scope, call)
        column_of[text] = scope.context.new_name()
        types[column_of[text]] = duck
        lists.append(F.expr(sql).alias(column_of[text]))
    with_lists, struct = scope.df.select("*", *lists), scope.context.new_name()
    others = [F.col(name) for name in scope.df.columns]
    df = with_lists.select(*others, F.explode(F.arrays_zip(*column_of.values())).alias(struct))
    df = df.select(*others, *[F.col(f"{struct}.{name}").alias(name) for name in column_of.values()])

    def change(tree: Tree) -> Tree | None:
        if not _is_unnest(tree):
            return None
        name = column_of[fingerprint(tree)]
        duck = scope.infer_call_type(tree)
        return column(name) if duck == types[name] else scope.context.trees.cast(column(name), duck)

    copies: list[Tree] = replace_nodes(trees, change)
    return replace(scope, df=df, types=scope.types | types), copies


def _translate_call(scope: Scope, call: Tree) -> tuple[Scope, str, str]:
    """The scope with the list as a column, Spark SQL of the list to unnest, and the DuckDB type of its elements."""
    context, arguments = scope.context, [argument["expression"] for argument in call["arguments"]]
    subscripts = call["function_name"] == "generate_subscripts"
    if len(arguments) != 1 + subscripts or (subscripts and literal_text(arguments[1]) != "1"):
        raise context.unsupported("unnest with options, or subscripts of inner lists")
    scope, (name,) = scope.add_columns(arguments[:1])
    duck = scope.types[name]
    if not duck.endswith("]"):
        raise context.unsupported(f"unnest of {duck[:60]}")
    if subscripts:
        numbers = f"sequence(1L, cast(size({name}) as bigint))"
        return scope, f"if(size({name}) > 0, {numbers}, cast(array() as array<bigint>))", "BIGINT"
    kind = context.spark_type(duck, "unnest of a list")
    return scope, f"coalesce({name}, cast(array() as {kind}))", element_type(duck)


def _is_unnest(tree: Tree) -> bool:
    return tree["class"] == "FUNCTION" and tree["function_name"] in ("unnest", "unlist", "generate_subscripts")
