"""Before and after the all-to-all: which KeyedJaggedTensors are sent, and how what comes back becomes grouped tensors.

TorchRec's variable-batch KeyedJaggedTensor is emulated on CPU and expands right after the exchange. Plain ones of a
single stride are exact and fast everywhere, so that tables are sorted into stride classes. Group ``user`` with U = 2
rows, B = 3 samples, one table for ``history`` (user) and ``candidate`` (sample)::

    history    [7, 8]  [9]              class user-sample, stride U + B = 5, one key:
    candidate  [5]     [6]  [7]         item:  [7, 8]  [9]  [5]  [6]  [7]
                                               -- user --   -- sample --
    out [5, D] -> rows 0..1 are the group user's, rows 2..4 the group sample's: slices, nothing is copied

A table lies in one plain EmbeddingBagCollection: one lookup, one exact optimizer update a step. Every class costs its
own collectives (about 2 ms a step on two gloo ranks: eight classes of one group each were 3.8 times slower than one).
So classes whose strides are near are merged, the shorter padded with empty rows, for at most PADDING of the bytes.
Un-pooled tables need no rows at all: one key a table, stride 1, all its ids in one list.

The modules here hold no parameters and are leaves for torch.fx, so that TrainPipelineSparseDist runs ``Rows`` (a
"postproc" in its words) and the input exchange of the next batch while this one computes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from recd_dist.grouped import Embedded, Grouped, GroupedJagged
from recd_dist.ikjt import IKJT
from recd_dist.schema import SAMPLE, Schema

SEQUENCES = ":sequences"
"""Key of the un-pooled tables' KeyedJaggedTensor; no group can have this name."""

INVERSE = ":inverse"
"""Key of the dict that maps a table to the place of each of its ids among the unique ids that were sent."""


PADDING = 0.03
"""Share of a step's pooled rows x width that merging classes may add."""


@dataclass(frozen=True)
class StrideClass:
    """Pooled tables that are sent with the same number of rows, in one module.

    Attributes:
        name: the groups, joined; the classes that were merged joined by ``+``.
        stacks: by key of the KeyedJaggedTensor the features whose rows stand one after the other.
        tables: for each table its keys: one for features of different groups, one per feature of one group.
    """

    name: str
    stacks: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, tuple[str, ...]]


def stride_classes(
    schema: Schema,
    dims: Mapping[str, int],
    sequence_tables: Collection[str] = (),
    group_rows: Mapping[str, float] | None = None,
) -> tuple[StrideClass, ...]:
    """Sorts the pooled tables of a schema into stride classes, in order of first use.

    Args:
        schema: features, groups and tables.
        dims: width of each table.
        sequence_tables: tables that are not pooled by TorchRec.
        group_rows: expected unique rows of each group in a batch; None merges nothing.
    """
    order = {g: n for n, g in enumerate(schema.groups)}
    classes: dict[tuple[str, ...], StrideClass] = {}
    for table in schema.tables:
        if table in sequence_tables:
            continue
        features = sorted((f for f in schema.sparse if f.table == table), key=lambda f: order[f.group])
        by_group = [[f.name for f in features if f.group == g] for g in dict.fromkeys(f.group for f in features)]
        even = len({len(names) for names in by_group}) == 1
        stacks = list(zip(*by_group, strict=True)) if even else [tuple(f.name for f in features)]
        groups = tuple(schema[name].group for name in stacks[0])
        found = classes.get(groups, StrideClass("-".join(groups), {}, {}))
        keys = {stack[0]: stack for stack in stacks}
        tables = {**found.tables, table: tuple(keys)}
        classes[groups] = StrideClass(found.name, {**found.stacks, **keys}, tables)
    found_classes = list(classes.values())
    if group_rows is None:
        return tuple(found_classes)
    return tuple(_merged(found_classes, schema, dims, group_rows))


def _merged(
    classes: list[StrideClass], schema: Schema, dims: Mapping[str, int], group_rows: Mapping[str, float]
) -> list[StrideClass]:
    """Merges the cheapest pair of classes until the padding would exceed its share."""

    def stride(each: StrideClass) -> float:
        return max(sum(group_rows[schema[f].group] for f in stack) for stack in each.stacks.values())

    def width(each: StrideClass) -> int:
        return sum(dims[t] * len(keys) for t, keys in each.tables.items())

    budget = PADDING * sum(stride(c) * width(c) for c in classes)
    while len(classes) > 1:
        pairs = [(a, b) for a in classes for b in classes if a is not b and stride(a) >= stride(b)]
        cost, large, small = min(
            (((stride(a) - stride(b)) * width(b), a, b) for a, b in pairs), key=lambda found: found[0]
        )
        if cost > budget:
            break
        budget -= cost
        both = StrideClass(
            f"{large.name}+{small.name}", {**large.stacks, **small.stacks}, {**large.tables, **small.tables}
        )
        classes = [both if c is large else c for c in classes if c is not small]
    return classes


class UniqueRows(nn.Module):
    """IKJT -> what each TorchRec module is sent: a plain KeyedJaggedTensor per stride class and one for sequences.

    Args:
        classes: the stride classes of the pooled tables.
        sequence_tables: features of each un-pooled table.
        unique_ids: send each distinct id of an un-pooled table once and gather its vector afterwards.
    """

    def __init__(
        self, classes: Sequence[StrideClass], sequence_tables: Mapping[str, tuple[str, ...]], unique_ids: bool
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.sequence_tables = dict(sequence_tables)
        self.unique_ids = unique_ids

    def forward(self, sparse: IKJT) -> dict[str, Any]:
        """By class name the KeyedJaggedTensor of its module; under SEQUENCES that of the un-pooled tables."""
        _refuse_weights(sparse)
        sent: dict[str, Any] = {c.name: _rows_of_class(sparse, c) for c in self.classes}
        if self.sequence_tables:
            sent[SEQUENCES], sent[INVERSE] = self._ids(sparse)
        return sent

    def _ids(self, sparse: IKJT) -> tuple[KeyedJaggedTensor, dict[str, Tensor]]:
        """All ids of each un-pooled table as one list (stride 1), and the inverse of its unique ids."""
        tables, inverses = list(self.sequence_tables), {}
        values = [_joined([sparse.values_of(f) for f in self.sequence_tables[t]]) for t in tables]
        if self.unique_ids:
            for n, table in enumerate(tables):
                values[n], inverses[table] = torch.unique(values[n], return_inverse=True)
        counts = [len(v) for v in values]
        lengths = torch.tensor(counts, dtype=torch.int32).to(sparse.lengths.device, non_blocking=True)
        kjt = KeyedJaggedTensor(tables, _joined(values), lengths=lengths, stride=1, length_per_key=counts)
        return kjt, inverses


class ExpandedRows(nn.Module):
    """IKJT -> the KeyedJaggedTensor that a plain TorchRec job is fed: a row per sample, for every module the same."""

    def __init__(self, modules: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(modules)

    def forward(self, sparse: IKJT) -> dict[str, Any]:
        """The expanded batch, without a copy when it comes expanded, under the name of each module."""
        _refuse_weights(sparse)
        kjt = sparse.to_kjt() if any(g.keys for g in sparse.groups if g.name != SAMPLE) else sparse.rows_as_kjt(SAMPLE)
        return dict.fromkeys(self.names, kjt)


class Assemble(nn.Module):
    """What came back -> grouped tensors: slices per feature, laid side by side per group in schema order.

    Args:
        schema: features and groups.
        classes: the stride classes of the pooled tables; empty when nothing is deduplicated.
        sequence_tables: features of each un-pooled table.
        sequence_features: features whose vectors are handed on un-pooled; others of these tables are pooled here.
        mean: divide a row's sum by its number of ids.
        dedup: what was sent were unique rows.
    """

    def __init__(
        self,
        schema: Schema,
        classes: Sequence[StrideClass],
        sequence_tables: Mapping[str, tuple[str, ...]],
        sequence_features: frozenset[str],
        mean: bool,
        dedup: bool,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.sequence_tables = dict(sequence_tables)
        self.sequence_features = sequence_features
        self.mean = mean
        self.dedup = dedup
        features = {g: [f for f in schema.sparse_of(g) if f not in sequence_features] for g in schema.groups}
        everything = [f.name for f in schema.sparse if f.name not in sequence_features]
        wanted = features if dedup else {SAMPLE: everything}
        self.pooled_features = {g: fs for g, fs in wanted.items() if fs}

    def forward(self, sparse: IKJT, sent: Mapping[str, Any], pooled: Sequence[KeyedTensor], sequences: Any) -> Embedded:
        """Embedded rows per group, and vectors per un-pooled feature.

        Args:
            sparse: the batch; gives lengths and inverses.
            sent: what ``UniqueRows`` or ``ExpandedRows`` made of it.
            pooled: output of each pooled module, float [stride, sum of dims].
            sequences: output of the un-pooled module by key, or None.
        """
        inverse_of = sparse.inverse_of if self.dedup else _no_inverse
        vectors: dict[str, GroupedJagged] = {}
        if sequences is not None:
            vectors = self._split_tables(sparse, sent, sequences) if self.dedup else self._split_features(sequences)
        if self.dedup:
            found = [b for c, out in zip(self.classes, pooled, strict=True) for b in _row_blocks(sparse, c, out)]
        else:
            found = [Block(tuple(out.keys()), tuple(out.length_per_key()), out.values()) for out in pooled]
        for name, jagged in vectors.items():
            if name not in self.sequence_features:
                rows = jagged.pool().values
                found.append(Block((name,), (rows.shape[1],), rows))
        if self.mean:
            lengths = _lengths_by_feature(sparse, sent, self.dedup)
            found = [b.divided(lengths) for b in found]
        groups = {g: _side_by_side(fs, found, inverse_of(g)) for g, fs in self.pooled_features.items()}
        return Embedded(groups, {f: vectors[f] for f in vectors if f in self.sequence_features})

    def _split_tables(
        self, sparse: IKJT, sent: Mapping[str, Any], sequences: Mapping[str, JaggedTensor]
    ) -> dict[str, GroupedJagged]:
        """Vectors of each un-pooled table -> of its features, with the rows and inverse kept here."""
        vectors = {}
        for table, features in self.sequence_tables.items():
            found = sequences[table].values()
            if table in sent[INVERSE]:
                found = found.index_select(0, sent[INVERSE][table])
            pieces = found.split([sparse.num_values(f) for f in features])
            for name, piece in zip(features, pieces, strict=True):
                vectors[name] = GroupedJagged(piece, sparse.lengths_of(name), sparse.inverse_of(sparse.group_of(name)))
        return vectors

    def _split_features(self, sequences: Mapping[str, JaggedTensor]) -> dict[str, GroupedJagged]:
        """Vectors of each un-pooled feature, a list per sample."""
        names = [f for features in self.sequence_tables.values() for f in features]
        return {f: GroupedJagged(sequences[f].values(), sequences[f].lengths().to(torch.int32)) for f in names}


def _no_inverse(group: str) -> None:
    """The inverse where nothing is deduplicated."""
    del group


def _refuse_weights(sparse: IKJT) -> None:
    if sparse.weights is not None:
        raise ValueError(
            "Embeddings: this batch carries weights, which the tables do not take; drop them in the reader"
        )


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenation; a single tensor is handed on as it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _rows_of_class(sparse: IKJT, stride_class: StrideClass) -> KeyedJaggedTensor:
    """A class's rows: per key the rows of its features one after the other, then empty rows up to the stride.

    A view where the features stand side by side in the batch, as they do for a class of a single group.
    """
    stacks = stride_class.stacks
    features = [f for stack in stacks.values() for f in stack]
    heights = [_height(sparse, stack) for stack in stacks.values()]
    stride = max(heights)
    first = sparse.keys.index(features[0])
    if sparse.keys[first : first + len(features)] == tuple(features):
        row = sum(sparse.num_rows(sparse.group_of(k)) for k in sparse.keys[:first])
        values = sparse.values[sparse.value_offsets[first] : sparse.value_offsets[first + len(features)]]
        lengths = sparse.lengths[row : row + sum(heights)]
    else:
        values = torch.cat([sparse.values_of(f) for f in features])
        lengths = torch.cat([sparse.lengths_of(f) for f in features])
    if min(heights) < stride:
        empty = lengths.new_zeros(stride)
        pieces = zip(lengths.split(heights), heights, strict=True)
        lengths = torch.cat([part for own, height in pieces for part in (own, empty[height:])])
    return KeyedJaggedTensor(
        keys=list(stacks),
        values=values,
        lengths=lengths,
        stride=stride,
        length_per_key=[sum(sparse.num_values(f) for f in stack) for stack in stacks.values()],
    )


def _height(sparse: IKJT, stack: Sequence[str]) -> int:
    """Rows of some features together."""
    return sum(sparse.num_rows(sparse.group_of(f)) for f in stack)


@dataclass(frozen=True)
class Block:
    """Pooled features side by side as a module handed them over.

    Attributes:
        features: in the order of the columns, which depends on the plan.
        dims: their widths.
        values: float [rows, sum of dims].
    """

    features: tuple[str, ...]
    dims: tuple[int, ...]
    values: Tensor

    def columns(self) -> dict[str, Tensor]:
        """[rows, dim] by feature, views; a split, whose gradient is one concatenation, not a zero matrix a slice."""
        return dict(zip(self.features, self.values.split(self.dims, dim=1), strict=True))

    def divided(self, lengths: Callable[[str], Tensor]) -> "Block":
        """Sums -> means."""
        means = [v / lengths(f).clamp(min=1)[:, None] for f, v in self.columns().items()]
        return Block(self.features, self.dims, torch.cat(means, dim=1))


def _row_blocks(sparse: IKJT, stride_class: StrideClass, out: KeyedTensor) -> list[Block]:
    """A class's output [stride, sum of dims] -> blocks of features of one group, views."""
    names, values, dims = out.keys(), out.values(), tuple(out.length_per_key())
    stacks = [stride_class.stacks[key] for key in names]
    if len({tuple(sparse.group_of(f) for f in stack) for stack in stacks}) == 1:
        blocks = _split_rows(values, [sparse.num_rows(sparse.group_of(f)) for f in stacks[0]])
        return [Block(tuple(stack[n] for stack in stacks), dims, block) for n, block in enumerate(blocks)]
    found = []
    for stack, dim, column in zip(stacks, dims, values.split(dims, dim=1), strict=True):
        blocks = _split_rows(column, [sparse.num_rows(sparse.group_of(f)) for f in stack])
        found += [Block((name,), (dim,), block) for name, block in zip(stack, blocks, strict=True)]
    return found


def _split_rows(values: Tensor, heights: list[int]) -> Sequence[Tensor]:
    """Rows of each feature of a stack; what is left is padding."""
    left = values.shape[0] - sum(heights)
    if left == 0 and len(heights) == 1:
        return [values]  # a split of one piece is a view forward and a copy backward
    return values.split([*heights, left])[: len(heights)]


def _side_by_side(features: Sequence[str], found: Sequence[Block], inverse: Tensor | None) -> Grouped:
    """A group's features as one matrix [U, sum of dims], in the order asked for; no copy where they lie so."""
    own = [b for b in found if b.features[0] in features]
    if len(own) == 1 and own[0].features == tuple(features):
        return Grouped(own[0].values, inverse, own[0].features, own[0].dims)
    columns: dict[str, Tensor] = {}
    for block in own:
        columns.update(block.columns())
    ordered = [columns[f] for f in features]
    return Grouped(torch.cat(ordered, dim=1), inverse, tuple(features), tuple(c.shape[1] for c in ordered))


def _lengths_by_feature(sparse: IKJT, sent: Mapping[str, Any], dedup: bool) -> Callable[[str], Tensor]:
    """A function from a feature to its list lengths, int32 [rows]."""
    if dedup:
        return sparse.lengths_of
    kjt: KeyedJaggedTensor = next(v for k, v in sent.items() if k != INVERSE)
    by_key = kjt.lengths().view(len(kjt.keys()), -1)
    return lambda feature: by_key[kjt.keys().index(feature)]
