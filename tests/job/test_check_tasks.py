"""Labels that training refuses, by the manifest and in tables of older releases."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import DataError
from recd_dist.etl.flow import etl
from recd_dist.etl.source.source import Source
from recd_dist.table.clustered import ClusteredTable


def table(path: Path, labels: list[float]) -> ClusteredTable:
    rows = {"session": [i // 4 for i in range(len(labels))], "item": [i % 7 for i in range(len(labels))], "y": labels}
    pq.write_table(pa.table(rows), path / "raw.parquet")
    named = {"name": "shop", "path": str(path / "raw.parquet"), "keys": {"session": "session"}, "labels": ["y"]}
    etl(Source.from_dict(named), path / "out", progress=False)
    return ClusteredTable.load(path / "out" / "train")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1, 0] * 5, None),
        ([1, 2, 3, 5] * 5, r"label 'y' goes from 1 to 5, training takes 0 and 1 only; .*\(\(y > 3\)::int as y\)"),
        ([-1, 1, 1, -1] * 5, r"from -1 to 1, .*\(\(y > 0\)::int as y\)"),
        ([0, 1, 0.5, 0] * 5, r"from 0 to 1, training takes 0 and 1 only; .*\(\(y > 0.5\)::int as y\)"),
        ([0] * 20, r"label 'y' is 0 in every sample, so there is nothing to learn"),
    ],
)
def test_only_binary_labels_are_trained_on(tmp_path, labels, message, older):
    made = table(tmp_path, labels)
    assert "y" in made.manifest.labels
    if older:
        made = replace(made, manifest=replace(made.manifest, labels={}))
    if message is None:
        check_tasks(job_on(made))
        return
    with pytest.raises(DataError, match=message):
        check_tasks(job_on(made))
