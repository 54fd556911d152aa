"""What an IKJT refuses: tensors that do not fit its layout, and windows that do not fit what is stored."""

import numpy as np
import torch

from recd_dist.table.schema import SAMPLE
from recd_dist.tensors.host_side import is_on_host
from recd_dist.tensors.keyed_rows import KeyedRows
from recd_dist.tensors.row_windows import find_fault


def check_layout(batch: KeyedRows) -> None:
    """Refuses tensors that do not fit the layout.

    Raises:
        ValueError: the message names the tensor or group, what was found and what is needed.
    """
    keys = batch.keys
    if len(set(keys)) != len(keys):
        raise ValueError(f"IKJT: keys must differ, found {keys}")
    if batch.windows != tuple(k for k in keys if k in batch.windows):
        raise ValueError(f"IKJT: windows are {batch.windows}, wanted some of the keys {keys} in their order")
    shapes = {
        "value_offsets": (len(batch.value_offsets), len(keys) + 1),
        "values": (tuple(batch.values.shape), (batch.value_offsets[-1] if batch.value_offsets else 0,)),
        "lengths": (tuple(batch.lengths.shape), (sum(len(g.keys) * g.num_rows for g in batch.groups),)),
        "inverse": (tuple(batch.inverse.shape), (len(batch.dedup_groups) * batch.batch_size,)),
    }
    if batch.weights is not None:
        shapes["weights"] = (tuple(batch.weights.shape), tuple(batch.values.shape))
    if batch.windows or batch.starts is not None:
        found = None if batch.starts is None else tuple(batch.starts.shape)
        shapes["starts"] = (found, (sum(batch.num_rows(batch.group_of(k)) for k in batch.windows),))
    for name, (shape, needed) in shapes.items():
        if shape != needed:
            raise ValueError(f"IKJT: {name} has shape {shape}, the layout {batch.groups} wants {needed}")
    if batch.values.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"IKJT: values are {batch.values.dtype}, wanted int32 or int64")
    for name in ("lengths", "inverse", "starts"):
        tensor = getattr(batch, name)
        if tensor is not None and tensor.dtype != torch.int32:
            raise ValueError(f"IKJT: {name} are {tensor.dtype}, wanted int32")
    for g in batch.groups:
        if g.name == SAMPLE and g.num_rows != batch.batch_size:
            raise ValueError(f"IKJT: group 'sample' has {g.num_rows} rows, wanted one per sample: {batch.batch_size}")
        if g.num_rows == 0 and batch.batch_size > 0:
            raise ValueError(f"IKJT: group '{g.name}' has no rows for {batch.batch_size} samples, wanted at least 1")


def check_windows(batch: KeyedRows) -> None:
    """Refuses windows that leave what is stored of their key, and stored ids that lie in no row.

    On a device they are not looked at, since the host would wait; they were when the batch was made.

    Raises:
        ValueError: the message names the key, what was found and what is needed.
    """
    if batch.starts is None or not batch.windows or not is_on_host(batch.starts):
        return
    rows = np.array([batch.row_bounds_of(k) for k in batch.windows], np.int64)
    number, row, place = find_fault(batch.starts.numpy(), batch.lengths.numpy(), rows)
    if number < 0:
        return
    key, size = batch.windows[number], int(rows[number, 2])
    starts = batch.starts_of(key)
    if row >= 0 and starts is not None:
        start, length = int(starts[row]), int(batch.lengths_of(key)[row])
        raise ValueError(
            f"IKJT: row {row} of key '{key}' is {length} ids from {start}, wanted a window of {size} stored ids"
        )
    raise ValueError(f"IKJT: stored id {place} of {size} of key '{key}' lies in no row, wanted only ids of rows")
