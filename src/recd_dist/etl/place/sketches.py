"""``sketches.parquet``: which ids each embedding table has, so that more can be added.

The file lies in a table's directory and has one row per embedding table: ``table``, ``min_id``, ``max_id``,
``registers`` (HyperLogLog, 16,384 bytes), and ``exact`` (the distinct ids in ascending order where they are at most
65,536, else null).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.errors import DataError
from recd_dist.etl.write.distinct_ids import DistinctIds
from recd_dist.files.whole_file import write_whole

SKETCHES = "sketches.parquet"
_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("min_id", pa.int64(), nullable=False),
        pa.field("max_id", pa.int64(), nullable=False),
        pa.field("registers", pa.binary(), nullable=False),
        pa.field("exact", pa.list_(pa.field("element", pa.int64(), nullable=False))),
    ]
)


def save_sketches(path: Path, ids: Mapping[str, DistinctIds]) -> None:
    """Writes the sketches of all embedding tables.

    Args:
        path: the file, which is written whole or not at all.
        ids: the distinct ids of each embedding table.
    """
    rows = [
        {
            "table": name,
            "min_id": distinct.min_id,
            "max_id": distinct.max_id,
            "registers": distinct.registers.tobytes(),
            "exact": distinct.exact_ids,
        }
        for name, distinct in ids.items()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink, compression="zstd", store_schema=False)
    write_whole(path, sink.getvalue().to_pybytes(), durable=True)


def load_sketches(path: Path) -> dict[str, DistinctIds]:
    """Reads the sketches that ``save_sketches`` wrote.

    Args:
        path: the file.

    Raises:
        DataError: there is no such file, or it holds no sketches.
    """
    try:
        table = pq.read_table(path)
        return {row["table"]: _restore(row) for row in table.to_pylist()}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: no readable sketches of ids ({str(error).splitlines()[0]}); make the table again with `recd etl`"
        ) from error


def _restore(row: Mapping[str, object]) -> DistinctIds:
    """The distinct ids of one embedding table."""
    registers = np.frombuffer(row["registers"], np.uint8)  # type: ignore[call-overload]
    if len(registers) != len(DistinctIds().registers):
        raise ValueError(f"{len(registers)} registers")
    exact_ids = None if row["exact"] is None else np.asarray(row["exact"], np.int64)
    return DistinctIds.restore(exact_ids, registers, int(row["min_id"]), int(row["max_id"]))  # type: ignore[call-overload]
