"""``sketches.parquet`` in a table's directory: which ids each embedding table has seen, so that an append can go on.

One row per embedding table: ``table``, ``min_id``, ``max_id``, ``registers`` (HyperLogLog, 16,384 bytes) and ``exact``
(the distinct ids, ascending, where they are at most 65,536; null beyond).
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


def save_sketches(place: Path, ids: Mapping[str, DistinctIds]) -> None:
    """Writes the sketches of all embedding tables.

    Args:
        place: a file, written whole or not at all.
        ids: per embedding table.
    """
    exact = {name: distinct.exact_ids for name, distinct in ids.items()}
    rows = [
        {
            "table": name,
            "min_id": distinct.min_id,
            "max_id": distinct.max_id,
            "registers": distinct.registers.tobytes(),
            "exact": exact[name],
        }
        for name, distinct in ids.items()
    ]
    table = pa.Table.from_pylist(rows, _SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    write_whole(place, sink.getvalue().to_pybytes(), durable=True)


def load_sketches(place: Path) -> dict[str, DistinctIds]:
    """What ``save_sketches`` wrote.

    Args:
        place: a file.

    Raises:
        DataError: no such file, or not one of sketches.
    """
    try:
        table = pq.read_table(place)
        return {row["table"]: _distinct(row) for row in table.to_pylist()}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{place}: no readable sketches of ids ({str(error).splitlines()[0]}); make the table again with `recd etl`"
        ) from error


def _distinct(row: Mapping[str, object]) -> DistinctIds:
    registers = np.frombuffer(row["registers"], np.uint8)  # type: ignore[call-overload]
    if len(registers) != len(DistinctIds().registers):
        raise ValueError(f"{len(registers)} registers")
    exact = None if row["exact"] is None else np.asarray(row["exact"], np.int64)
    return DistinctIds.restore(exact, registers, int(row["min_id"]), int(row["max_id"]))  # type: ignore[call-overload]
