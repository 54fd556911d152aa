"""Training and serving: what a service answers is what ``recd predict`` writes, and what evaluation computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.serve.fake_service import service

from recd_dist.exported.exported_model import ExportedModel
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks
from recd_dist.serve import service_run
from recd_dist.serve.client import ScoringClient
from recd_dist.train.prediction import predict_run
from recd_dist.train.requests_of_samples import sample_requests
from recd_dist.train.trained_run import logits_of, open_run

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]

RUN = (
    "model=transformer",
    "data.features.price.transforms=[{clamp: {min: -1, max: 1}}, standardize]",
    "data.features.history_item.transforms=[{last_x: 9}]",
    "data.features.both={transforms: [{cross: {of: [region, candidate_category], n: 50}}]}",
    "data.tables.item.hashed=true",
    "data.tables.item.num_embeddings=700",
)
"""Transforms of a number, of a list, of two features, and ids that are hashed."""


@pytest.mark.parametrize("rows", ["fp32", "int8"])
def test_served_predicted_and_evaluated_scores_are_one(
    rows: str, exported: Any, trained: Any, alone: Ranks, tmp_path: Path
) -> None:
    run_dir, export = trained(*RUN), exported(*RUN, rows=rows)
    opened = open_run(load("evaluate", [f"run_dir={run_dir}"]), alone)
    with opened.open_batches(alone) as batches:
        logits = np.concatenate([logits_of(opened.model, b, alone.device).numpy() for b in opened.ids.known(batches)])
    evaluated = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))

    predict_run(load("predict", [f"run_dir={run_dir}", f"out={tmp_path / 'scores'}"]), alone)
    predicted = pq.read_table(tmp_path / "scores")["score_label"].to_numpy()
    np.testing.assert_allclose(predicted, evaluated, atol=1e-6)

    description = ExportedModel.load(export).description
    served = np.full(len(predicted), np.nan, np.float32)
    arguments = ("watch_s=null", "spare=false", "threads=1")
    with (
        service(tmp_path / "service", *arguments, model=export, command=service_run.WORKER) as running,
        ScoringClient(running.url) as client,
    ):
        for request in sample_requests(opened.job.table, description.stored, most=50):
            found = client.score(request.user, request.candidates)
            served[request.start : request.end] = found["label"]
    assert predicted.std() > 1e-3
    np.testing.assert_allclose(served, predicted, atol={"fp32": 1e-6, "int8": 0.02}[rows])
    assert (np.abs(served - predicted).max() > 1e-5) == (rows == "int8")
