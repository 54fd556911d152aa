"""Table classes: tables that are looked up together, because they are looked up by the same number of rows.

fbgemm's kernels take tables of one stride: as many rows for each key. So tables are sorted by the groups of the
features that look them up. Group ``user`` with U = 2 rows, B = 3 samples, one table for ``history`` (user) and
``candidate`` (sample)::

    history    [7, 8]  [9]              class user-sample, stride U + B = 5, one key:
    candidate  [5]     [6]  [7]         item:  [7, 8]  [9]  [5]  [6]  [7]
                                               -- user --   -- sample --

Every table lies in one class: one lookup and one exact optimizer update a step. A table of which distinct ids are sent
(``ids``) is a class of its own, whose rows are its ids, one id each: a sum over one id is its vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.embedding.names import Send
from recd_dist.table.schema import Schema
from recd_dist.tensors.ikjt import IKJT


@dataclass(frozen=True)
class TableClass:
    """Tables with the same number of rows in every batch.

    Attributes:
        name: the groups, joined; of a table whose ids are sent, ``<table>:ids``.
        send: what travels.
        stacks: by key the features whose rows stand one after the other.
        tables: for each table its keys: one for features of different groups, one per feature of one group.
        pooled: a row is a list that is summed up; False: every id is a row.
    """

    name: str
    send: Send
    stacks: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[str, ...]]
    pooled: bool = True

    @property
    def features(self) -> tuple[str, ...]:
        """All features, key after key."""
        return tuple(f for stack in self.stacks.values() for f in stack)


def table_classes(
    schema: Schema, send: Mapping[str, Send], sequence_tables: Mapping[str, tuple[str, ...]]
) -> tuple[TableClass, ...]:
    """Sorts the tables of a schema into classes, in order of first use; those that send ids come last.

    Args:
        schema: features, groups and tables.
        send: what travels of each table.
        sequence_tables: tables whose vectors are wanted un-pooled; each is a class of its own.
    """
    order = {g: n for n, g in enumerate(schema.groups)}
    classes: dict[tuple[str, ...], TableClass] = {}
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
        found = classes.get(groups, TableClass("-".join(groups), "rows", {}, {}))
        tables = {**found.tables, table: tuple(stacks)}
        classes[groups] = TableClass(found.name, "rows", {**found.stacks, **stacks}, tables)
    return (*classes.values(), *alone)


@dataclass(frozen=True, eq=False)
class ClassRows:
    """A class's rows of one batch.

    Attributes:
        num_rows: rows of each key; of a class that is not pooled, its ids.
        values: ids [N], key after key, row after row.
        lengths: int32 [keys * num_rows], or None where every row is one id.
        weights: float32 [N] or None.
    """

    num_rows: int
    values: Tensor
    lengths: Tensor | None = None
    weights: Tensor | None = None


def class_rows(sparse: IKJT, table_class: TableClass) -> ClassRows:
    """A class's rows: per key the rows of its features one after the other.

    Views where the features stand side by side in the batch, as they do for a class of a single group.

    Args:
        sparse: deduplicated batch.
        table_class: one of ``table_classes``.
    """
    features = table_class.features
    if not table_class.pooled:
        values = joined([sparse.values_of(f) for f in features])
        return ClassRows(len(values), values)
    stack = next(iter(table_class.stacks.values()))
    num_rows = sum(sparse.num_rows(sparse.group_of(f)) for f in stack)
    first = sparse.keys.index(features[0])
    if sparse.keys[first : first + len(features)] == features:
        row = sum(sparse.num_rows(sparse.group_of(k)) for k in sparse.keys[:first])
        ids = slice(sparse.value_offsets[first], sparse.value_offsets[first + len(features)])
        lengths = sparse.lengths[row : row + num_rows * len(table_class.stacks)]
        return ClassRows(num_rows, sparse.values[ids], lengths, None if sparse.weights is None else sparse.weights[ids])
    weights = [w for f in features if (w := sparse.weights_of(f)) is not None]
    return ClassRows(
        num_rows,
        torch.cat([sparse.values_of(f) for f in features]),
        torch.cat([sparse.lengths_of(f) for f in features]),
        torch.cat(weights) if weights else None,
    )


def joined(tensors: list[Tensor]) -> Tensor:
    """Concatenation; a single tensor is handed on as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
