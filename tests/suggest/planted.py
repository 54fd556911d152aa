"""Flat tables whose groups are known, for the tests of group discovery."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.raw import duckdb_sql as engine
from recd_dist.etl.source.inspection import inspect
from recd_dist.etl.source.source import Source
from recd_dist.suggest.features import SampledFeature, measure_features
from recd_dist.suggest.sample import SessionSample, read_sample
from recd_dist.suggest.sample_columns import SampleColumns


def plant_table(path: Path, groups: dict[str, tuple[float, int]], num_samples: int = 6000, seed: int = 0) -> pa.Table:
    """A table in order of time: ``groups`` maps a name to its stay rate and number of list features.

    Samples of about 12 a session are interleaved; ``item`` and ``price`` change with every sample.
    """
    rng = np.random.default_rng(seed)
    num_sessions = num_samples // 12
    session = rng.integers(0, num_sessions, num_samples)
    time = np.sort(rng.integers(0, 10**9, num_samples))
    order = np.lexsort((time, session))
    first = np.append(True, session[order][1:] != session[order][:-1])
    columns = {
        "visit": pa.array(session * 7919 + 13),
        "time": pa.array(time + 1_700_000_000_000_000).cast(pa.timestamp("us")),
    }
    for name, (stay, num_features) in groups.items():
        changed = first | (rng.random(num_samples) >= stay)
        row = np.empty(num_samples, np.int64)
        row[order] = np.cumsum(changed) - 1
        for i in range(num_features):
            lists = rng.integers(0, 1 << 40, (int(changed.sum()), 16))
            columns[f"{name}_{'abcdef'[i]}"] = pa.array(list(lists[row]))
    columns["item"] = pa.array(rng.integers(0, 10**6, num_samples))
    columns["price"] = pa.array(rng.random(num_samples).astype(np.float32))
    columns["clicked"] = pa.array((rng.random(num_samples) < 0.1).astype(np.int8))
    table = pa.table(columns)
    pq.write_table(table, path)
    return table


def source(path: Path, **options: object) -> Source:
    described = {"name": "mine", "path": str(path), "keys": {"session": "visit", "timestamp": "time"}}
    return Source.from_dict(described | {"labels": ["clicked"]} | options)


def flat_source(path: Path, **columns: object) -> Source:
    pq.write_table(pa.table(columns), path)
    return Source("mine", str(path), labels=())


def sample_of(described: Source, **options: int) -> SessionSample:
    with engine.connect() as connection:
        return read_sample(described, inspect(described, connection), connection, **options)


def features_of(path: Path, **columns: object) -> list[SampledFeature]:
    """The features of a flat table whose session is ``visit``."""
    flat_source(path, **columns, clicked=[0] * len(columns["visit"]))
    described = Source("mine", str(path), keys={"session": "visit"}, labels=("clicked",))
    with engine.connect() as connection:
        inspection = inspect(described, connection)
        return list(measure_features(SampleColumns(inspection, read_sample(described, inspection, connection))))
