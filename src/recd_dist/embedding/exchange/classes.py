"""Sorts tables into classes, each of which is looked up in one call.

fbgemm's kernels take tables with as many rows for each key, which is called the stride. So tables are sorted into
classes by the groups of the features that look them up. Take a group ``user`` with U = 2 rows, B = 3 samples, and one
table for ``history`` (of the group user) and ``candidate`` (of the group sample)::

    history    [7, 8]  [9]              class user-sample, stride U + B = 5, one key:
    candidate  [5]     [6]  [7]         item:  [7, 8]  [9]  [5]  [6]  [7]
                                               -- user --   -- sample --

Every table is in one class, so that a step has one lookup and one exact optimizer update for it. Tables of which a
feature has weights are in classes apart from the others, because only their lookups take a weight for each id; if
another feature of such a table has no weights, its weights are 1. A table whose distinct ids are sent (``ids``) is a
class of its own. Its rows are its ids, one id each: the sum over one id is its vector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recd_dist.embedding.vocabulary.names import Send
from recd_dist.table.schema import Schema
from recd_dist.tensors.ikjt import IKJT
from recd_dist.tensors.row_windows import lay_out


@dataclass(frozen=True)
class TableClass:
    """Tables that have the same number of rows in every batch.

    Attributes:
        name: names of the groups, joined by hyphens, with ``:weighted`` behind them if ids have weights;
            ``<table>:ids`` for a table whose ids are sent.
        send: what travels of the tables.
        stacks: for each key the features whose rows stand one after the other.
        tables: for each table its keys. Features of different groups share a key; features of one group have one each.
        pooled: True if a row is a list of ids whose vectors are summed up, False if every id is a row.
        weighted: True if ids travel with their weights, and vectors are multiplied by them before they are summed up.
            It is never True if every id is a row, because then a vector is multiplied where it arrives.
    """

    name: str
    send: Send
    stacks: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[str, ...]]
    pooled: bool = True
    weighted: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The features of all keys, key after key."""
        return tuple(f for stack in self.stacks.values() for f in stack)


def table_classes(
    schema: Schema, send: Mapping[str, Send], sequence_tables: Mapping[str, tuple[str, ...]]
) -> tuple[TableClass, ...]:
    """Sorts the tables of a schema into classes, in the order of their first use; tables that send ids come last.

    Args:
        schema: features, groups and tables.
        send: what travels of each table.
        sequence_tables: the un-pooled tables and their features; each table is a class of its own.
    """
    order = {g: n for n, g in enumerate(schema.groups)}
    classes: dict[tuple[tuple[str, ...], bool], TableClass] = {}
    alone = []
    for table in schema.tables:
        features = sorted((f for f in schema.sparse if f.table == table), key=lambda f: order[f.group])
        if send[table] == "ids" or table in sequence_tables:
            stacks = {table: tuple(f.name for f in features)}
            alone.append(TableClass(f"{table}:ids", send[table], stacks, {table: (table,)}, pooled=False))
            continue
        by_group = [[f.name for f in features if f.group == g] for g in dict.fromkeys(f.group for f in features)]
        even = len({len(names) for names in by_group}) == 1
        stacks = {s[0]: s for s in (zip(*by_group, strict=True) if even else [tuple(f.name for f in features)])}
        groups = tuple(schema[name].group for name in next(iter(stacks.values())))
        weighted = any(f.weights for f in features)
        name = "-".join(groups) + (":weighted" if weighted else "")
        known = classes.get((groups, weighted), TableClass(name, "rows", {}, {}, weighted=weighted))
        tables = {**known.tables, table: tuple(stacks)}
        classes[groups, weighted] = replace(known, stacks={**known.stacks, **stacks}, tables=tables)
    return (*classes.values(), *alone)


def shared_features(classes: Iterable[TableClass]) -> frozenset[str]:
    """The features of which a batch gains by windows: rows share the ids that are looked up, and their vectors.

    Of tables that pool where they lie lists are sent. Their lists may as well be made where they are read, unless
    batches come over a network, which windows spare a quarter of the bytes (rm1).

    Args:
        classes: the classes of the tables.
    """
    return frozenset(f for each in classes if not each.pooled for f in each.features)


@dataclass(frozen=True, eq=False)
class ClassRows:
    """The rows of one class in one batch.

    Attributes:
        num_rows: number of rows of each key; the number of ids if the class is not pooled.
        values: the ids [N], key after key, row after row; int32 or int64, as in the batch. If the class is not pooled,
            they are the ids that the batch stores, so that rows which are windows share theirs.
        lengths: number of ids of each row, int32 [keys * num_rows]; None if every row is one id.
        weights: weight of each id, float32 [N]; None if the class takes none.
    """

    num_rows: int
    values: Tensor
    lengths: Tensor | None = None
    weights: Tensor | None = None


def class_rows(sparse: IKJT, table_class: TableClass) -> ClassRows:
    """The rows of a class in a batch: for each key the rows of its features, one after the other.

    The tensors are views if the features stand side by side in the batch, as they do for a class of a single group, and
    no row of a pooled class is a window: of windows lists are made, which the lookup sums up.

    Args:
        sparse: the deduplicated batch.
        table_class: one of the classes that ``table_classes`` made.
    """
    features = table_class.features
    if not table_class.pooled:
        values = join_tensors([sparse.values_of(f) for f in features])
        return ClassRows(len(values), values)
    stack = next(iter(table_class.stacks.values()))
    num_rows = sum(sparse.num_rows(sparse.group_of(f)) for f in stack)
    first = sparse.keys.index(features[0])
    if sparse.keys[first : first + len(features)] == features and sparse.windows_among(features) == ():
        row = sum(sparse.num_rows(sparse.group_of(k)) for k in sparse.keys[:first])
        ids = slice(sparse.value_offsets[first], sparse.value_offsets[first + len(features)])
        lengths = sparse.lengths[row : row + num_rows * len(table_class.stacks)]
        weights = sparse.weights[ids] if table_class.weighted and sparse.weights is not None else None
        return ClassRows(num_rows, sparse.values[ids], lengths, weights)
    weighted = [(f, w) for f in features if table_class.weighted and (w := sparse.weights_of(f)) is not None]
    return ClassRows(
        num_rows,
        lay_out([sparse.column(f, sparse.values_of(f)) for f in features]),
        torch.cat([sparse.lengths_of(f) for f in features]),
        lay_out([sparse.column(f, w) for f, w in weighted]) if weighted else None,
    )


def join_tensors(tensors: list[Tensor]) -> Tensor:
    """Concatenates tensors; a single tensor is returned as it is, without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
