"""From flat raw logs through the ETL and the reader: what comes out is what went in, sample for sample."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.job.table_sizes import infer_tables
from recd_dist.reader.loader import Loader
from recd_dist.table.clustered import ClusteredTable


def raw_logs(num_samples: int) -> pa.Table:
    """Sessions interleaved in time; a history that grows now and then; `number` tells the samples apart."""
    rng = np.random.default_rng(0)
    session = rng.integers(0, 40, num_samples)
    history = [[int(s) * 3 + i for i in range((k // 50) % 5)] for k, s in enumerate(session)]
    return pa.table(
        {
            "session": session,
            "time": pa.array(np.arange(num_samples) * 1_000_000, pa.timestamp("us")),
            "clicked": rng.integers(0, 2, num_samples).astype(np.float32),
            "history": pa.array(history, pa.list_(pa.int64())),
            "city": [f"city {s % 7}" for s in session],
            "candidate": rng.integers(0, 100, num_samples),
            "number": np.arange(num_samples).astype(np.float32),
        }
    )


def test_every_raw_sample_comes_out_once_with_its_values(tmp_path):
    raw = raw_logs(1500)
    pq.write_table(raw, tmp_path / "raw.parquet")
    source = Source.from_dict(
        {
            "name": "logs",
            "path": str(tmp_path / "raw.parquet"),
            "keys": {"session": "session", "timestamp": "time"},
            "labels": ["clicked"],
            "policy": {"earliest": "1970-01-01"},
            "groups": {"user": {"features": ["history"]}, "place": {"features": ["city"]}},
            "features": {"history": {"table": "item"}, "candidate": {"table": "item"}},
        }
    )
    manifest = etl(source, tmp_path / "table", row_group_samples=200, progress=False)["train"]
    tables = infer_tables(manifest, manifest.schema, {}, dim=4)
    assert tables["city"].hashed
    reader = Loader(ClusteredTable.load(tmp_path / "table/train"), manifest.schema, tables, batch_size=64, window=2)
    rows, seen, cities = raw.to_pylist(), [], {}
    for batch in reader:
        assert batch.sparse.num_rows("user") < batch.batch_size
        flat = batch.expand()
        sparse = flat.sparse
        places = [torch.split(sparse.values_of(k), sparse.lengths_of(k).tolist()) for k in sparse.keys]
        for i, number in enumerate(flat.dense["sample"][:, 0].int().tolist()):
            found = dict(zip(sparse.keys, (p[i].tolist() for p in places), strict=True))
            assert found["history"] == rows[number]["history"]
            assert found["candidate"] == [rows[number]["candidate"]]
            assert batch.labels[i].item() == rows[number]["clicked"]
            cities.setdefault(rows[number]["city"], set()).add(found["city"][0])
            seen.append(number)
    reader.close()
    assert sorted(seen) == list(range(1500))
    assert all(len(c) == 1 for c in cities.values())
