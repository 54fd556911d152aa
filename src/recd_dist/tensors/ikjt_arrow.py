"""IKJT to and from Arrow, the memory of the files and of the wire.

A group becomes a record batch with one ``list<item: int not null> not null`` column per key; the inverses stand as
int32 columns ``<group>_row`` in the batch ``sample``. Ids are handed over by reference.
"""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import pyarrow as pa
import torch

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.ikjt import IKJT, GroupLayout

ROW_SUFFIX = "_row"


def to_arrow(ikjt: IKJT) -> dict[str, pa.RecordBatch]:
    """See ``IKJT.to_arrow``. Weights stand as float32 list columns ``<key>_weights``."""
    ikjt = ikjt.to(torch.device("cpu"))
    batches = {}
    for group in ikjt.groups:
        columns = {key: _list_array(ikjt.values_of(key), ikjt.lengths_of(key)) for key in group.keys}
        for key in group.keys:
            weights = ikjt.weights_of(key)
            if weights is not None:
                columns[f"{key}_weights"] = _list_array(weights, ikjt.lengths_of(key))
        if group.name == SAMPLE:
            columns |= _inverse_columns(ikjt)
        batches[group.name] = _record_batch(columns, group.num_rows)
    if SAMPLE not in batches:
        batches[SAMPLE] = _record_batch(_inverse_columns(ikjt), ikjt.batch_size)
    return batches


def _inverse_columns(ikjt: IKJT) -> dict[str, pa.Array]:
    return {f"{g}{ROW_SUFFIX}": pa.array(ikjt.inverse_of(g).numpy()) for g in ikjt.dedup_groups}  # type: ignore[union-attr]


def _list_array(values: torch.Tensor, lengths: torch.Tensor) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths.numpy(), out=offsets[1:])
    flat = pa.array(values.contiguous().numpy())
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=pa.list_(pa.field("item", flat.type, nullable=False)))


def _record_batch(columns: Mapping[str, pa.Array], num_rows: int) -> pa.RecordBatch:
    """Columns as a record batch; without columns it still knows its number of rows."""
    if not columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * num_rows, pa.struct([])))
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))


def from_arrow(groups: Mapping[str, pa.RecordBatch]) -> IKJT:
    """See ``IKJT.from_arrow``."""
    if SAMPLE not in groups:
        raise ValueError("IKJT.from_arrow: no record batch 'sample', it holds the <group>_row columns")
    sample = groups[SAMPLE]
    ordered = {g: b for g, b in groups.items() if g != SAMPLE} | {SAMPLE: sample}
    row_columns = {f"{g}{ROW_SUFFIX}" for g in ordered if g != SAMPLE}
    layouts, values, lengths, weights = [], [], [], []
    for name, batch in ordered.items():
        named = [c for c in batch.schema.names if not (name == SAMPLE and c in row_columns)]
        keys = [c for c in named if not _is_weights(batch.schema.field(c), named)]
        for key in keys:
            ids, sizes = _jagged(batch.column(key), name, key)
            values.append(ids)
            lengths.append(sizes)
            if f"{key}_weights" in named and f"{key}_weights" not in keys:
                weights.append(_jagged(batch.column(f"{key}_weights"), name, key)[0].astype(np.float32, copy=False))
        layouts.append(GroupLayout(name, tuple(keys), batch.num_rows))
    if weights and sum(map(len, weights)) != sum(map(len, values)):
        raise ValueError("IKJT.from_arrow: weights must be given for every key or for none")
    inverse = [_inverse(sample, g, ordered[g].num_rows) for g in ordered if g != SAMPLE]
    return IKJT(
        groups=tuple(layouts),
        batch_size=sample.num_rows,
        values=torch.from_numpy(np.concatenate(values) if values else np.zeros(0, np.int64)),
        lengths=torch.from_numpy(np.concatenate(lengths) if lengths else np.zeros(0, np.int32)),
        inverse=torch.from_numpy(np.concatenate(inverse) if inverse else np.zeros(0, np.int32)),
        value_offsets=tuple(accumulate(map(len, values), initial=0)),
        weights=torch.from_numpy(np.concatenate(weights)) if weights else None,
    )


def _is_weights(column: pa.Field, names: list[str]) -> bool:
    """Whether a column holds the weights of another; ids may be called so too, and are integers."""
    holds = column.type.value_type if pa.types.is_list(column.type) else column.type
    return (
        column.name.endswith("_weights")
        and column.name.removesuffix("_weights") in names
        and pa.types.is_floating(holds)
    )


def _jagged(column: pa.Array, group: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    if column.null_count:
        raise ValueError(
            f"IKJT.from_arrow: column '{key}' of group '{group}' has {column.null_count} nulls, wanted none"
        )
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        flat, sizes = column.flatten(), np.diff(column.offsets.to_numpy())
    else:
        flat, sizes = column, np.ones(len(column))
    if flat.null_count:
        raise ValueError(
            f"IKJT.from_arrow: lists of '{key}' in group '{group}' hold {flat.null_count} nulls, wanted none"
        )
    return flat.to_numpy(zero_copy_only=False), sizes.astype(np.int32)


def _inverse(sample: pa.RecordBatch, group: str, num_rows: int) -> np.ndarray:
    name = f"{group}{ROW_SUFFIX}"
    if name not in sample.schema.names:
        raise ValueError(f"IKJT.from_arrow: batch 'sample' has no column '{name}', wanted int32 row numbers")
    rows = sample.column(name).to_numpy(zero_copy_only=False)
    if len(rows) and (rows.min() < 0 or rows.max() >= num_rows):
        raise ValueError(f"IKJT.from_arrow: '{name}' goes from {rows.min()} to {rows.max()}, group has {num_rows} rows")
    return rows.astype(np.int32)
