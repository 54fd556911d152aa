"""Joins on Spark: by columns of one name, or by equality of two expressions."""

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.query_context import QueryContext
from recd_dist.etl.spark.sql.scope import Name, Scope
from recd_dist.etl.spark.sql.spark_types import INTEGERS
from recd_dist.etl.spark.sql.tree import Tree, column, walk

_HOW = {"INNER": "inner", "LEFT": "left", "RIGHT": "right", "OUTER": "full", "FULL": "full", "SEMI": "left_semi"}
_HOW |= {"ANTI": "left_anti"}


def join_scopes(context: QueryContext, join: Tree, left: Scope, right: Scope) -> Scope:
    """The rows of ``left join right``.

    Args:
        context: what all steps of the query share.
        join: node of the join in FROM.
        left: the rows of its left side.
        right: the rows of its right side.

    Raises:
        Unsupported: a join by anything but equality, or of columns of different types.
    """
    context.refuse_where_order_counts("a join")
    if join["ref_type"] == "CROSS":
        return _combine(left, right, left.df.crossJoin(right.df))
    how = _HOW.get(join["join_type"])
    if join["ref_type"] != "REGULAR" or how is None:
        kind = join["join_type"] if join["ref_type"] == "REGULAR" else join["ref_type"]
        raise context.unsupported(f"a {kind} join")
    if using := join["using_columns"]:
        pairs = [(left.resolve(column(name)), right.resolve(column(name))) for name in using]
    else:
        pairs = [_resolve_equality(context, tree, left, right) for tree in _conjuncts(join["condition"])]
    left, left_keys = left.add_columns([pair[0] for pair in pairs])
    right, right_keys = right.add_columns([pair[1] for pair in pairs])
    for one, other in zip(left_keys, right_keys, strict=True):
        types = left.types[one], right.types[other]
        if types[0] != types[1] and not set(types) <= set(INTEGERS):
            raise context.unsupported(f"a join of {types[0]} with {types[1]} (cast one to the other's type, or it)")
    conditions = [F.col(a) == F.col(b) for a, b in zip(left_keys, right_keys, strict=True)]
    df = left.df.join(right.df, conditions, how)
    if how in ("left_semi", "left_anti"):
        return replace(left, df=df)
    scope = _combine(left, right, df)
    for name, one, other in zip(using, left_keys, right_keys, strict=True) if using else ():
        scope = _merge_using(scope, name, one, other, how)
    return scope


def _combine(left: Scope, right: Scope, df: DataFrame) -> Scope:
    """The columns of both sides over the rows of their join."""
    return replace(left, df=df, names=[*left.names, *right.names], types=left.types | right.types)


def _merge_using(scope: Scope, name: str, one: str, other: str, how: str) -> Scope:
    """Makes one column of the two columns that USING names.

    Args:
        scope: the columns of both sides.
        name: the column's name in USING.
        one: its internal name on the left side.
        other: its internal name on the right side.
        how: Spark's name of the kind of join.
    """
    kept = {"right": other, "full": scope.context.new_name()}.get(how, one)
    if how == "full":
        if scope.types[one] != scope.types[other]:
            raise scope.context.unsupported("a FULL JOIN of columns of different types (cast them, or it)")
        scope = replace(scope, df=scope.df.select("*", F.coalesce(one, other).alias(kept)))
        scope.types[kept] = scope.types[one]
    pair = [i for i, n in enumerate(scope.names) if n.internal in (one, other) and n.name.lower() == name.lower()]
    qualifiers = tuple(q for i in pair for q in scope.names[i].qualifiers)
    names = [Name(qualifiers, n.name, kept) if i == pair[0] else n for i, n in enumerate(scope.names)]
    return replace(scope, names=[n for i, n in enumerate(names) if i not in pair[1:]])


def _conjuncts(condition: Tree) -> list[Tree]:
    """The conditions that AND combines."""
    if condition["type"] == "CONJUNCTION_AND":
        return [tree for child in condition["children"] for tree in _conjuncts(child)]
    return [condition]


def _resolve_equality(context: QueryContext, tree: Tree, left: Scope, right: Scope) -> tuple[Tree, Tree]:
    """The resolved expressions that an equality compares: over the left side's columns, and over the right side's."""
    if tree["type"] != "COMPARE_EQUAL":
        raise context.unsupported("a join by anything but equality")
    one, other = tree["left"], tree["right"]
    if not (_uses_only(one, left) and _uses_only(other, right)):
        one, other = other, one
    if not (_uses_only(one, left) and _uses_only(other, right)) or (_uses_only(one, right) and _uses_only(other, left)):
        raise context.unsupported("a join whose equality does not compare one side's columns with the other's")
    return left.resolve(one), right.resolve(other)


def _uses_only(tree: Tree, scope: Scope) -> bool:
    """Whether a scope has every column that an expression refers to."""
    references = (node for node in walk(tree) if node["class"] == "COLUMN_REF")
    return all(scope.find_column(node["column_names"]) is not None for node in references)
