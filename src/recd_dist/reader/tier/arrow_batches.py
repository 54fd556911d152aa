"""A batch as one Arrow record batch, and back.

::

    column       values             lengths       inverse       labels ...     one row; a list a tensor
    row 0        [7 8 9 1 5 ...]    [2 1 1 ...]   [0 0 1 ...]   [...]
    beside it    the layout as JSON: groups, shapes, where each tensor lies in a block

The columns are the tensors' own memory: nothing is copied before Arrow hands it to the network. What arrives lies in
buffers of the network library, aligned to nothing, so that it is copied once, into a block that is.
"""

import numpy as np
import pyarrow as pa
from torch import Tensor

from recd_dist.reader.transport import BatchLayout, tensors_of
from recd_dist.tensors.batch import Batch

MAX_BYTES = (1 << 31) - (1 << 20)
"""Of a batch: a message of gRPC has less than 2 GiB."""


def to_arrow(batch: Batch) -> pa.RecordBatch:
    """The tensors of a batch as columns of one row, without a copy; the record batch keeps them alive."""
    columns = {name: _to_column(tensor) for name, tensor in tensors_of(batch).items()}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _to_column(tensor: Tensor) -> pa.Array:
    """A tensor as one list."""
    flat = tensor.contiguous().numpy().reshape(-1)
    values = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), flat.size, [None, pa.py_buffer(flat)])
    offsets = pa.py_buffer(np.array([0, flat.size], np.int64))
    return pa.Array.from_buffers(pa.large_list(values.type), 1, [None, offsets], children=[values])


def fill_block(block: Tensor, layout: BatchLayout, record: pa.RecordBatch) -> None:
    """Copies the tensors of a batch to where its layout says.

    Args:
        block: uint8 [at least layout.num_bytes].
        layout: that of the batch.
        record: what ``to_arrow`` made.

    Raises:
        ValueError: they are not of one batch.
    """
    if record.num_columns != len(layout.tensors) or record.num_rows != 1:
        raise ValueError(f"{record.num_columns} columns of {record.num_rows} rows for {len(layout.tensors)} tensors")
    target = block.numpy()
    for place, name, column in zip(layout.tensors, record.schema.names, record.columns, strict=True):
        values = column.values
        flat = np.frombuffer(values.buffers()[1] or b"", np.uint8)
        itemsize = values.type.bit_width // 8
        found = flat[values.offset * itemsize : (values.offset + len(values)) * itemsize]
        if (name, len(found)) != (place.name, place.num_bytes) or not 0 <= place.start <= place.end <= len(target):
            raise ValueError(f"column '{name}' of {len(found)} bytes for tensor '{place.name}' of {place.num_bytes}")
        np.copyto(target[place.start : place.start + place.num_bytes], found)


def empty_arrow() -> pa.RecordBatch:
    """What stands beside a message that has no batch."""
    return pa.RecordBatch.from_arrays([], schema=pa.schema([]))


def count_bytes(batch: Batch) -> int:
    """Bytes of the tensors of a batch."""
    return sum(tensor.nbytes for tensor in tensors_of(batch).values())
