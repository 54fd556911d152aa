"""From the rows of requests to a Batch: transformed and checked as the reader does it, in the groups of the model."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import torch

from recd_dist.reader.prepared_rows import RowPreparation
from recd_dist.reader.row_group_columns import DecodedRowGroup
from recd_dist.table.column import Array, Column, Windows, gather_slices
from recd_dist.table.schema import Feature, Schema
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT, GroupLayout


def build_batch(rows: DecodedRowGroup, schema: Schema, preparation: RowPreparation) -> Batch:
    """Makes a batch of rows, each of which is transformed once.

    Args:
        rows: the rows as the table would store them.
        schema: the features as the model takes them; those of a group that it expands are in ``sample``.
        preparation: of the same features.

    Raises:
        DataError: a value that does not fit its table or is not finite, where the policy is ``error``.
    """
    prepared = {f.name: _prepare(f, rows, preparation) for f in schema.features}
    size = len(rows.sample_ids)
    groups = [GroupLayout(g, schema.sparse_of(g), rows.num_rows.get(g, size)) for g in schema.groups]
    keys = [key for group in groups for key in group.keys]
    columns = [prepared[key] for key in keys]
    values = [column.values for column in columns]
    inverse = [rows.row_of_sample[g] for g in schema.dedup_groups]
    empty = np.zeros(0, np.int32)
    weights = None
    if any(column.weights is not None for column in columns):
        weights = np.concatenate([_weights_of(column) for column in columns])
    sparse = IKJT(
        groups=tuple(groups),
        batch_size=size,
        values=torch.from_numpy(np.concatenate(values) if values else empty.astype(preparation.id_dtype)),
        lengths=torch.from_numpy(_join([column.lengths.astype(np.int32) for column in columns], empty)),
        inverse=torch.from_numpy(_join(inverse, empty)),
        value_offsets=tuple(accumulate(map(len, values), initial=0)),
        weights=None if weights is None else torch.from_numpy(weights),
    )
    return Batch(
        sparse=sparse,
        dense={g: _dense_of(schema, g, prepared) for g in schema.groups if schema.dense_of(g)},
        labels=torch.from_numpy(rows.labels),
        sample_ids=torch.from_numpy(rows.sample_ids),
        request_ids=torch.from_numpy(rows.request_ids),
    )


def _prepare(feature: Feature, rows: DecodedRowGroup, preparation: RowPreparation) -> Column:
    """The rows of a feature after its transforms, with a row for each sample where the model expands its group."""
    origin = rows.origins[feature.home]
    if feature.is_sparse:
        found = preparation.ids(feature, rows, origin)
        column = found.to_lists() if isinstance(found, Windows) else found
    else:
        column = preparation.numbers(feature, rows, origin)
    if feature.expanded_from is None:
        return column
    row = rows.row_of_sample[feature.expanded_from]
    if column.offsets is None:
        return Column(column.values[row])
    return gather_slices(column, np.asarray(column.offsets)[row], column.lengths[row])


def _dense_of(schema: Schema, group: str, prepared: Mapping[str, Column]) -> torch.Tensor:
    """The dense features of a group side by side, float32 [rows, n]."""
    return torch.from_numpy(np.stack([prepared[name].values for name in schema.dense_of(group)], 1))


def _weights_of(column: Column) -> Array:
    return np.ones(len(column.values), np.float32) if column.weights is None else column.weights


def _join(parts: list[Array], empty: Array) -> Array:
    return np.concatenate(parts) if parts else empty
