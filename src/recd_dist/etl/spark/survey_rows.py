"""A survey of a shard as Arrow rows, the form in which a worker sends it to the driver.

::

    shard piece split partition start session samples  kept
      3     0     1      0        0      0      420             counts of a part
      3     0    -1      0      17e14   881      12             a session, where the split is a share of the sessions
      3    -1    -1     -1       -1     -1      -1     {...}    last row: what policies kept
"""

import json

import numpy as np
import pyarrow as pa

from recd_dist.etl.deal.plan_parts import Survey

SURVEY_SCHEMA = pa.schema(
    [(name, pa.int64()) for name in ("shard", "piece", "split", "partition", "start", "session", "samples")]
    + [("kept", pa.string())]
)
SURVEY_COLUMNS = ", ".join(f"{f.name} {'string' if f.name == 'kept' else 'bigint'}" for f in SURVEY_SCHEMA)
"""The same columns in Spark SQL."""


def survey_to_rows(shard: int, survey: Survey) -> pa.RecordBatch:
    """The rows of a survey; ``survey_from_rows`` is the inverse.

    Args:
        shard: number of the shard.
        survey: what its keys say.

    Returns:
        Rows of ``SURVEY_SCHEMA``.
    """
    counts = [(shard, piece, split, number, 0, 0, n) for (piece, split, number), n in survey.counts.items()]
    columns = np.array(counts, np.int64).reshape(-1, 7).T
    piece, partition, start, session = survey.sessions
    shards, no_split = np.full(len(piece), shard), np.full(len(piece), -1)
    sessions = np.stack([shards, piece, no_split, partition, start, session, survey.samples])
    columns = np.concatenate([columns, sessions, np.array([[shard], *[[-1]] * 6])], axis=1)
    no_text = pa.nulls(columns.shape[1] - 1, pa.string())
    kept = pa.concat_arrays([no_text, pa.array([json.dumps(survey.kept)])])
    return pa.RecordBatch.from_arrays([*(pa.array(column) for column in columns), kept], schema=SURVEY_SCHEMA)


def survey_from_rows(rows: pa.Table) -> Survey:
    """The survey of one shard from its rows, which may come in any order."""
    is_last = rows["kept"].is_valid().to_numpy()
    values = np.stack([rows[name].to_numpy() for name in SURVEY_SCHEMA.names[:-1]])
    kept = json.loads(rows["kept"].drop_null()[0].as_py())
    counted, of_sessions = values[:, (values[2] >= 0) & ~is_last], values[:, (values[2] < 0) & ~is_last]
    counts = {(int(p), int(s), int(n)): int(c) for p, s, n, c in zip(*counted[[1, 2, 3, 6]], strict=True)}
    order = np.lexsort(of_sessions[[5, 4, 3, 1]])
    return Survey(counts, kept, of_sessions[[1, 3, 4, 5]][:, order], of_sessions[6][order])
