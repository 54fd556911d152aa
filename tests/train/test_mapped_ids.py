"""Ids that come and go in a run of one rank: exact though batches are mapped ahead, refused where it cannot be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recd_dist.checkpoint.export import export
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.errors import ConfigError
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run, report
from recd_dist.train.mapped_ids import MappedIds
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import shard_model, start_pipeline, train

pytestmark = [pytest.mark.usefixtures("own_logging"), pytest.mark.filterwarnings("ignore::FutureWarning")]
MAPPED = "data.tables.item={mapped: true, num_embeddings: 150, admit_after: 5}"
NUM_STEPS = 10


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with process_group("cpu") as ranks:
        yield ranks


@pytest.fixture(scope="module")
def first(tiny: list[str], alone: Ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of some steps, and its summary."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    summary = train(load("train", [*tiny, MAPPED, f"run_dir={run_dir}", "batch_size=64", "max_steps=8"]), alone)
    return run_dir, summary


def steps(alone: Ranks, overrides: list[str], pipelined: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and state after some steps."""
    job = check(load("train", overrides))
    model, optimizer, _ = shard_model(job, alone)
    ids, loader = MappedIds(job, alone, model, optimizer), build.build_loader(job, alone, job.transforms.fit(job.table))
    losses = []
    with ids:
        batches = ids.ahead(iter(loader))
        pipeline = start_pipeline(model, optimizer, alone.device)
        for _ in range(NUM_STEPS):
            if pipelined:
                losses.append(float(pipeline.progress(batches).loss))
                continue
            optimizer.zero_grad()
            loss, output = model(next(batches))
            loss.backward()
            optimizer.step()
            losses.append(float(output.loss))
        loader.close()
        assert ids.summary()["ids"]["item"]["evicted"] > 50
        state = {
            name: (value.local_shards()[0].tensor if hasattr(value, "local_shards") else value).clone()
            for name, value in model.state_dict().items()
        }
    return losses, state


@pytest.mark.parametrize("dedup", ["on", "off"])
def test_batches_under_way_change_nothing(alone: Ranks, tiny: list[str], tmp_path: Path, dedup: str) -> None:
    """A pipeline that holds batches ahead trains what one batch after the other does, bit for bit."""
    overrides = [*tiny, MAPPED, f"run_dir={tmp_path / 'run'}", "batch_size=64", f"dedup={dedup}", "model=dlrm"]
    losses, state = steps(alone, overrides, pipelined=True)
    wanted, plain = steps(alone, overrides, pipelined=False)
    assert losses == wanted
    assert state.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in state.items())


def test_evaluation_prediction_and_export_take_the_mapping_along(
    alone: Ranks, first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run_dir, summary = first
    before = (run_dir / "checkpoints/step-00000008/checkpoint.json").read_bytes()
    found = evaluate_run(load("evaluate", [f"run_dir={run_dir}"]), alone)
    assert found["ne"] == pytest.approx(summary["ne"], rel=1e-6)
    assert found["ids"]["item"]["unknown_share_evaluated"] == summary["ids"]["item"]["unknown_share_evaluated"] > 0.1
    assert "unknown ids, item" in {str(cell) for column in report(found).columns for cell in column.cells}

    predict_run(load("predict", [f"run_dir={run_dir}", f"out={tmp_path / 'scores'}"]), alone)
    scores = pq.read_table(tmp_path / "scores")
    assert np.isfinite(scores[scores.column_names[-1]].to_numpy()).all()
    assert (run_dir / "checkpoints/step-00000008/checkpoint.json").read_bytes() == before

    path = run_dir / "checkpoints/step-00000008"
    export(path, tmp_path / "model.safetensors", 10**9)
    from safetensors.torch import load_file

    exported, stored = load_file(tmp_path / "model.safetensors"), StoredTensors(path)
    assert torch.equal(exported["ids.item.row_ids"], stored.read("model/ids.item.row_ids"))
    seen = exported["ids.item.row_seen"]
    assert len(seen) == len(exported["embeddings.tables.item.weight"]) == 150
    assert int((seen >= 0).sum()) == summary["ids"]["item"]["rows_used"]
    assert len(exported["ids.item.row_ids"][seen >= 0].unique()) == summary["ids"]["item"]["rows_used"]


def test_another_run_begins_with_it(alone: Ranks, first, tiny: list[str], tmp_path: Path) -> None:
    run_dir, summary = first
    own = [*tiny, "data.tables.item={mapped: true, admit_after: 9, evict: never}", f"run_from={run_dir}"]
    own += [f"run_dir={tmp_path / 'run'}", "batch_size=64", "max_steps=2"]
    begun = train(load("train", own), alone)
    assert begun["ids"]["item"]["rows"] == 149
    assert begun["ids"]["item"]["evicted"] == 0
    assert begun["ids"]["item"]["rows_used"] >= summary["ids"]["item"]["rows_used"]
    assert begun["ids"]["item"]["unknown_share"] < 0.9


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("{num_embeddings: 1000}", "'item' is mapped there; write data.tables.item.mapped=true, or"),
        ("{mapped: true, num_embeddings: 150}", "rows after 5 lookups there, so that ids wait.*admit_after=5, or"),
        ("{mapped: true, num_embeddings: 100, admit_after: 5}", "num_embeddings=100: run_from=.*write 150 or more"),
    ],
)
def test_another_mapping_is_refused(first, tiny: list[str], tmp_path: Path, tables: str, message: str) -> None:
    given = [*tiny, f"data.tables.item={tables}", "batch_size=64"]
    with pytest.raises(ConfigError, match=message):
        check(load("train", [*given, f"run_from={first[0]}", f"run_dir={tmp_path / 'run'}"]))
    if "run_from" not in message:
        with pytest.raises(ConfigError, match=message + " take another run_dir"):
            check(load("train", [*given, f"run_dir={first[0]}"]))


def test_ids_that_a_model_takes_as_they_are_stay_so(tiny: list[str], tmp_path: Path) -> None:
    overrides = [
        *tiny,
        "model=hstu",
        "model.times={history_item: [history_category, candidate_category]}",
        "data.tables.category.mapped=true",
    ]
    with pytest.raises(ConfigError, match=r"'history_category' is a time .* taken as it is"):
        check(load("train", [*overrides, f"run_dir={tmp_path / 'run'}"]))
