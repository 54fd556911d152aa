"""Joins: by columns of the same name, or by equalities of an expression on each side."""

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recd_dist.etl.spark.sql.scope import Name, Scope, Workshop
from recd_dist.etl.spark.sql.spark_types import INTEGERS
from recd_dist.etl.spark.sql.tree import Tree, column, walked

_HOW = {"INNER": "inner", "LEFT": "left", "RIGHT": "right", "OUTER": "full", "FULL": "full", "SEMI": "left_semi"}
_HOW |= {"ANTI": "left_anti"}


def joined(shop: Workshop, table: Tree, left: Scope, right: Scope) -> Scope:
    """The rows of ``left join right``.

    Raises:
        Unsupported: a join by anything but equality.
    """
    shop.check_unplaced("a join")
    if table["ref_type"] == "CROSS":
        return _both(left, right, left.df.crossJoin(right.df))
    how = _HOW.get(table["join_type"])
    if table["ref_type"] != "REGULAR" or how is None:
        kind = table["join_type"] if table["ref_type"] == "REGULAR" else table["ref_type"]
        raise shop.unsupported(f"a {kind} join")
    if using := table["using_columns"]:
        pairs = [(left.resolved(column(name)), right.resolved(column(name))) for name in using]
    else:
        pairs = [_pair(shop, part, left, right) for part in _parts(table["condition"])]
    left, left_keys = left.added([pair[0] for pair in pairs])
    right, right_keys = right.added([pair[1] for pair in pairs])
    for one, other in zip(left_keys, right_keys, strict=True):
        types = left.types[one], right.types[other]
        if types[0] != types[1] and not set(types) <= set(INTEGERS):
            raise shop.unsupported(f"a join of {types[0]} with {types[1]} (cast one to the other's type, or it)")
    conditions = [F.col(a) == F.col(b) for a, b in zip(left_keys, right_keys, strict=True)]
    df = left.df.join(right.df, conditions, how)
    if how in ("left_semi", "left_anti"):
        return replace(left, df=df)
    made = _both(left, right, df)
    for name, one, other in zip(using, left_keys, right_keys, strict=bool(using)) if using else ():
        made = _merged(made, name, one, other, how)
    return made


def _both(left: Scope, right: Scope, df: DataFrame) -> Scope:
    return replace(left, df=df, names=[*left.names, *right.names], types=left.types | right.types)


def _merged(scope: Scope, name: str, one: str, other: str, how: str) -> Scope:
    """The single column that USING makes of two."""
    kept = {"right": other, "full": scope.shop.fresh()}.get(how, one)
    if how == "full":
        if scope.types[one] != scope.types[other]:
            raise scope.shop.unsupported("a FULL JOIN of columns of different types (cast them, or it)")
        scope = replace(scope, df=scope.df.select("*", F.coalesce(one, other).alias(kept)))
        scope.types[kept] = scope.types[one]
    pair = [i for i, n in enumerate(scope.names) if n.internal in (one, other) and n.name.lower() == name.lower()]
    qualifiers = tuple(q for i in pair for q in scope.names[i].qualifiers)
    names = [Name(qualifiers, n.name, kept) if i == pair[0] else n for i, n in enumerate(scope.names)]
    return replace(scope, names=[n for i, n in enumerate(names) if i not in pair[1:]])


def _parts(condition: Tree) -> list[Tree]:
    if condition["type"] == "CONJUNCTION_AND":
        return [part for child in condition["children"] for part in _parts(child)]
    return [condition]


def _pair(shop: Workshop, part: Tree, left: Scope, right: Scope) -> tuple[Tree, Tree]:
    if part["type"] != "COMPARE_EQUAL":
        raise shop.unsupported("a join by anything but equality")
    one, other = part["left"], part["right"]
    if not (_of(one, left) and _of(other, right)):
        one, other = other, one
    if not (_of(one, left) and _of(other, right)) or (_of(one, right) and _of(other, left)):
        raise shop.unsupported("a join whose equality does not compare one side's columns with the other's")
    return left.resolved(one), right.resolved(other)


def _of(tree: Tree, scope: Scope) -> bool:
    return all(scope.found(n["column_names"]) is not None for n in walked(tree) if n["class"] == "COLUMN_REF")
