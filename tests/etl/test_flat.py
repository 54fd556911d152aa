"""Nothing is lost: the table joined back is the flat table that went in, whatever it was."""

import math
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from recd_dist.etl.flat import flat_view
from recd_dist.etl.run import etl
from recd_dist.etl.source import Source

ids = st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1))
sample = st.fixed_dictionaries(
    {
        "session": st.integers(-3, 3),
        "t": st.integers(0, 5),
        "clicked": st.sampled_from([0.0, 1.0]),
        "device": st.one_of(st.none(), st.integers(0, 2)),
        "history": st.one_of(st.none(), st.lists(ids, max_size=3)),
        "price": st.one_of(st.none(), st.floats(width=32)),
        "item": ids,
    }
)
TYPES = pa.schema(
    {
        "session": pa.int64(),
        "t": pa.int64(),
        "clicked": pa.float32(),
        "device": pa.int32(),
        "history": pa.list_(pa.int64()),
        "price": pa.float32(),
        "item": pa.int64(),
        "place": pa.int64(),
    }
)


def expected(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The flat table in the order of its rows, with what is missing filled as documented."""
    has_none = any(row["device"] is None for row in rows)
    return [
        (
            row["session"],
            row["t"],
            row["clicked"],
            ([] if row["device"] is None else [row["device"]]) if has_none else row["device"],
            row["history"] or [],
            row["price"] if row["price"] is not None and math.isfinite(row["price"]) else 0.0,
            row["item"],
        )
        for row in rows
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(sample, min_size=1, max_size=40), st.sampled_from([None, {"a": ["device", "history"], "b": ["price"]}]))
def test_flat_view_equals_the_source(rows, groups):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.parquet"
        pq.write_table(pa.Table.from_pylist([row | {"place": i} for i, row in enumerate(rows)], TYPES), path)
        keys = {"session": "session", "timestamp": "t"}
        source = Source.from_dict({"path": str(path), "keys": keys, "labels": ["clicked"], "groups": groups})
        etl(source, Path(directory) / "out", row_group_samples=4, shard_bytes=300, progress=False)
        view = flat_view(Path(directory) / "out" / "train")
        names = "session_id, timestamp, clicked, device, history, price, item"
        found = duckdb.sql(f"select {names} from ({view}) order by place").fetchall()
    assert found == expected(rows)
    signs = [np.signbit(row[5]) for row in found]
    assert signs == [np.signbit(row[5]) for row in expected(rows)]


def test_the_view_of_a_table_without_groups_is_plain(tmp_path):
    duckdb.sql("select 1 as item, 0 as clicked").write_parquet(str(tmp_path / "x.parquet"))
    source = Source.from_dict({"path": str(tmp_path / "x.parquet"), "labels": ["clicked"], "groups": {}})
    etl(source, tmp_path / "out", progress=False)
    assert duckdb.sql(flat_view(tmp_path / "out" / "train")).fetchall() == [(0, 0, 0, 0, 0.0, 1)]
