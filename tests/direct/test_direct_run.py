"""`recd train`, `recd evaluate` and `recd predict` on flat files, as people type them."""

import json

import pyarrow.parquet as pq
from tests.direct.conftest import KEYS, recd, samples


def test_a_run_without_an_etl(write, tmp_path):
    rows = samples(150)
    path, run = write(rows, row_group_size=100), tmp_path / "run"
    data = ["data=parquet", f"data.path={path}", "data.reader=direct", *KEYS]
    assert recd("train", *data, "batch_size=128", f"run_dir={run}", "record_samples=true").returncode == 0
    summary = json.loads((run / "summary.json").read_text())
    num_test = len(rows) - summary["samples"]
    assert summary["auc"] > 0
    assert 0 < num_test < 0.2 * len(rows)
    assert recd("seen", str(run)).returncode == 0
    assert recd("predict", str(run), "columns=[item]").returncode == 0
    scores = pq.read_table(run / "scores/test")
    assert scores["item"].to_pylist() == [row["item"] for row in rows[-num_test:]]
    again = recd("evaluate", str(run), f"data.path={path}", "split=all")
    assert f"{len(rows):,}" in again.stdout
    assert "1 of its 1 files are those that the run was trained on" in again.stderr
    other = write(samples(20, seed=1), "other/new.parquet")
    assert "was trained on" not in recd("evaluate", str(run), f"data.path={other}").stderr
    assert recd("train", *data, "reader.whole=sessions", f"run_dir={tmp_path / 'none'}").returncode == 2
    assert not (tmp_path / "none").exists()
    assert recd("stats", *data).returncode == 2
