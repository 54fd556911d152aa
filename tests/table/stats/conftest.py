"""A small clustered table, written by hand."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.table.manifest import FeatureStats, FileEntry, Manifest, Part
from recd_dist.table.schema import Feature, Kind, Schema


def required(**columns: pa.Array) -> pa.Table:
    return pa.table(list(columns.values()), schema=pa.schema([pa.field(k, v.type, False) for k, v in columns.items()]))


def ids(rows: list[list[int]]) -> pa.Array:
    return pa.array(rows, pa.list_(pa.field("item", pa.int32(), False)))


def write(table: Path, name: str, part: int, rows: pa.Table) -> FileEntry:
    path = table / name / f"part-{part:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return FileEntry(f"{name}/{path.name}", (rows.num_rows,), path.stat().st_size, 0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six samples of three sessions in two parts.

    ::

        part      0          1
        session   5 5 5 9 |  3 3      time   10 30 50 20 | 40 60
        clicks    A A B B |  A A      A = [1, 2], B = [7]; session 9 begins with the row that 5 ended with
        candidate 1 2 3 4 |  5 6
    """
    table = tmp_path / "hand" / "train"
    part = 1 << 40
    history = [
        required(row=pa.array([0, 1]), clicks=ids([[1, 2], [7]])),
        required(row=pa.array([part]), clicks=ids([[1, 2]])),
    ]
    samples = [
        required(
            sample_id=pa.array([0, 1, 2, 3]),
            session_id=pa.array([5, 5, 5, 9]),
            request_id=pa.array([1, 1, 2, 3]),
            timestamp=pa.array([10, 30, 50, 20]),
            label=pa.array([1.0, 0.0, 0.0, 1.0], pa.float32()),
            candidate=pa.array([1, 2, 3, 4]),
            history_row=pa.array([0, 0, 1, 1]),
        ),
        required(
            sample_id=pa.array([4, 5]),
            session_id=pa.array([3, 3]),
            request_id=pa.array([4, 4]),
            timestamp=pa.array([40, 60]),
            label=pa.array([0.0, 1.0], pa.float32()),
            candidate=pa.array([5, 6]),
            history_row=pa.array([part, part]),
        ),
    ]
    parts = tuple(
        Part(write(table, "samples", i, samples[i]), {"history": write(table, "history", i, history[i])})
        for i in range(2)
    )
    manifest = Manifest(
        name="hand",
        split="train",
        schema=Schema((Feature("clicks", Kind.ids, "history", "item"), Feature("candidate", Kind.id, table="item"))),
        num_samples=6,
        num_sessions=3,
        num_requests=4,
        group_rows={"history": 3},
        features={"clicks": FeatureStats(5, 10, 2, 2 / 3), "candidate": FeatureStats(6, 6, 1, 0.0)},
        ids={},
        parts=parts,
        source={"path": str(tmp_path / "raw")},
    )
    manifest.save(table)
    return table
