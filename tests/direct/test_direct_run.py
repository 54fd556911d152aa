"""`recd train`, `recd evaluate` and `recd predict` on flat files, as people type them."""

import json

import pyarrow.parquet as pq
import pytest
from tests.direct.conftest import KEYS, samples

from recd_dist.cli import main


@pytest.mark.usefixtures("own_logging")
def test_a_run_without_an_etl(write, tmp_path, capsys):
    rows = samples(150)
    path, run = write(rows, row_group_size=100), tmp_path / "run"
    data = ["data=parquet", f"data.path={path}", "data.reader=direct", *KEYS]
    assert main(["train", *data, "batch_size=128", f"run_dir={run}", "record_samples=true"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    num_test = len(rows) - summary["samples"]
    assert summary["auc"] > 0
    assert 0 < num_test < 0.2 * len(rows)
    assert main(["seen", str(run)]) == 0
    assert main(["predict", str(run), "columns=[item]"]) == 0
    scores = pq.read_table(run / "scores/test")
    assert scores["item"].to_pylist() == [row["item"] for row in rows[-num_test:]]
    assert main(["evaluate", str(run), f"data.path={path}", "split=all"]) == 0
    assert f"{len(rows):,}" in capsys.readouterr().out
    assert main(["stats", *data]) == 2
