"""The baseline of the reader's claims: flat Parquet by pyarrow into KeyedJaggedTensors, as fast as we could make it.

Required columns, one decoded row group at a time, one thread of pyarrow, no copy before the one that lays the features
of a batch one after the other. Whoever reads a file in time order well by himself does this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import storage_flat as flat
import torch
from rm1 import Raw
from torch import Tensor

from recd_dist.table.schema import Schema


@dataclass(frozen=True)
class FlatBatch:
    """Samples, each with its own copy of everything.

    Attributes:
        keys: the id features.
        values: int32 [V], feature after feature.
        lengths: int32 [features * B].
        counts: for each feature the number of its values.
        dense: float32 [B, n].
        labels: float32 [B, n].
    """

    keys: tuple[str, ...]
    values: Tensor
    lengths: Tensor
    counts: tuple[int, ...]
    dense: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """B, the number of samples."""
        return len(self.labels)

    def kjt(self) -> Any:
        """The id features as TorchRec takes them; views."""
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        return KeyedJaggedTensor(
            keys=list(self.keys),
            values=self.values,
            lengths=self.lengths,
            stride=self.size,
            length_per_key=list(self.counts),
        )


def write_time_ordered(raw: Raw, path: Path, codec: str, row_group: int = flat.ROW_GROUP) -> Path:
    """Writes the samples flat, in time order, with the encodings that the table's chooser takes, unless it was done.

    Args:
        raw: the logs.
        path: the file.
        codec: ``lz4`` or ``zstd:3``.
        row_group: samples of a row group.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    started, writer = path.with_suffix(".partial"), None
    for rows in flat.in_time_order(raw):
        if writer is None:
            encodings = flat.choose_encodings(rows, row_group, codec, False)
            options = flat.writer_options(rows.schema, encodings, codec) | {"data_page_size": flat.MIB}
            writer = pq.ParquetWriter(str(started), rows.schema, **options)
        writer.write_table(rows, row_group_size=row_group)
    if writer is None:
        raise SystemExit("no samples")
    writer.close()
    started.rename(path)
    return path


def read_batches(
    path: Path, schema: Schema, batch_size: int, row_groups: Sequence[int] | None = None
) -> Iterator[FlatBatch]:
    """Reads a flat file.

    Args:
        path: the file.
        schema: the features to read, in the order of keys and dense columns.
        batch_size: largest batch; a batch lies in one row group.
        row_groups: numbers of the row groups to read; all of them when absent.
    """
    keys = tuple(f.name for f in schema.sparse)
    dense, labels = tuple(f.name for f in schema.dense), schema.labels
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups) if row_groups is None else row_groups:
            rows = file.read_row_group(number, columns=[*keys, *dense, *labels], use_threads=False)
            columns = {name: rows.column(name).chunk(0) for name in rows.column_names}
            for start in range(0, rows.num_rows, batch_size):
                size = min(batch_size, rows.num_rows - start)
                yield batch_of(columns, keys, dense, labels, start, size)


def batch_of(
    columns: dict[str, pa.Array],
    keys: tuple[str, ...],
    dense: tuple[str, ...],
    labels: tuple[str, ...],
    start: int,
    size: int,
) -> FlatBatch:
    """Some rows of a row group."""
    values, lengths, counts = [], [], []
    for key in keys:
        column = columns[key]
        if pa.types.is_list(column.type):
            offsets = column.offsets.to_numpy()[start : start + size + 1]
            values.append(column.values.to_numpy()[offsets[0] : offsets[-1]])
            lengths.append(np.diff(offsets))
        else:
            values.append(column.to_numpy()[start : start + size])
            lengths.append(np.ones(size, np.int32))
        counts.append(len(values[-1]))

    def side_by_side(names: tuple[str, ...]) -> Tensor:
        out = np.empty((size, len(names)), np.float32)
        for n, name in enumerate(names):
            out[:, n] = columns[name].to_numpy()[start : start + size]
        return torch.from_numpy(out)

    return FlatBatch(
        keys,
        torch.from_numpy(np.concatenate(values)),
        torch.from_numpy(np.concatenate(lengths)),
        tuple(counts),
        side_by_side(dense),
        side_by_side(labels),
    )
