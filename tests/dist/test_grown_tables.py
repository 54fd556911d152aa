"""Tables that grow from run to run, plain and mapped ones, under every sharding type: rows move and lose no bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.state import initialize_state
from recd_dist.checkpoint.stored_tensors import StoredTensors
from recd_dist.embedding.ids.kept_ids import NEVER
from recd_dist.embedding.tables import portable_name
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.ranks.process_group import Ranks
from recd_dist.train.mapped_ids import MappedIds
from recd_dist.train.run import resume
from recd_dist.train.training import shard_model, train

TYPES = ("table_wise", "row_wise", "column_wise", "table_column_wise", "table_row_wise", "grid_shard", "data_parallel")
SMALL = ["data.tables.item={mapped: true, num_embeddings: 250, admit_after: 2}"]
LARGE = [SMALL[0].replace("250", "2600"), "data.tables.region.num_embeddings=70"]
WEIGHT = "model/embeddings.tables.{}.weight"


def _train(ranks: Ranks, overrides: list[str]) -> dict[str, Any]:
    return train(load("train", overrides), ranks)


def _begin(ranks: Ranks, overrides: list[str], directory: Path) -> None:
    """Begins a run, and saves what it begins with."""
    job = check(load("train", overrides), ranks.world_size)
    model, optimizer, _ = shard_model(job, ranks)
    initialize_state(optimizer)
    MappedIds(job, ranks, model, optimizer)
    resume(job, ranks, model, optimizer)
    checkpoint.save(directory, 1, model, optimizer, job.schema, rename=portable_name)


@pytest.fixture(scope="module")
def first(two_ranks, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A run of two ranks, and the options that a run from it has."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    common = [*tiny, "model=dlrm", "model.dim=32", "batch_size=64", "evaluate.split=null"]
    two_ranks(_train, [*common, *SMALL, "plan=row_wise", "max_steps=8", f"run_dir={run_dir}"])
    return common, run_dir


def _rows(tensors: StoredTensors, table: str, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and states; of a table in columns the states of each, side by side."""
    state = tensors.read(next(name for name in tensors.kinds if name.endswith(f"{table}.weight/{table}.momentum1")))
    return tensors.read(WEIGHT.format(table)), state.reshape(-1, num_rows).T


@pytest.mark.parametrize("sharding", TYPES)
def test_rows_are_where_their_ids_are(two_ranks, first, tmp_path: Path, sharding: str) -> None:
    common, run_dir = first
    own = [*common, *LARGE, f"plan.sharding={sharding}", f"run_dir={tmp_path / 'run'}", f"run_from={run_dir}"]
    two_ranks(_begin, own, tmp_path / "begun")
    was, now = StoredTensors(run_dir / "checkpoints/step-00000008"), StoredTensors(tmp_path / "begun/step-00000001")
    _assert_moved(was, now)
    region, states = _rows(was, "region", 30)
    grown, grown_states = _rows(now, "region", 70)
    assert torch.equal(grown[:30], region)
    assert all(torch.equal(column, states[:, 0]) for column in grown_states[:30].T)
    assert grown[30:].abs().max() <= 70**-0.5
    assert not grown_states[30:].any()


def _assert_moved(was: StoredTensors, now: StoredTensors) -> None:
    """Every id has the vector and the states that it had, in another row; free rows are as in a new run."""
    ids, seen = (was.read(f"model/ids.item.{name}").numpy() for name in ("row_ids", "row_seen"))
    new_ids, new_seen = (now.read(f"model/ids.item.{name}").numpy() for name in ("row_ids", "row_seen"))
    old = {int(ids[row]): row for row in np.flatnonzero(seen != NEVER)}
    new = {int(new_ids[row]): row for row in np.flatnonzero(new_seen != NEVER)}
    assert old.keys() == new.keys()
    assert len(old) > 200
    assert all(seen[old[number]] == new_seen[new[number]] for number in old)
    rows, moved = [0, *old.values()], [0, *(new[number] for number in old)]
    (weights, states), (new_weights, new_states) = _rows(was, "item", 250), _rows(now, "item", 2600)
    assert torch.equal(new_weights[moved], weights[rows])
    assert all(torch.equal(column, states[rows][:, 0]) for column in new_states[moved].T)
    free = np.setdiff1d(np.arange(2600), moved)
    assert new_weights[free].abs().max() <= 2600**-0.5
    assert not new_states[free].any()
    assert len(new_weights[free].unique()) > 10_000


def test_new_ids_get_the_new_rows(two_ranks, first, tmp_path: Path) -> None:
    """No id loses its row any more, and more ids have one than the small table has rows."""
    common, run_dir = first
    own = [*common, *LARGE, "max_steps=6", f"run_from={run_dir}"]
    summary = two_ranks(_train, [*own, f"run_dir={tmp_path / 'two'}"])[0]["ids"]["item"]
    assert summary["rows_used"] > 260
    assert summary["evicted"] == 0
    seen = StoredTensors(tmp_path / "two/checkpoints/step-00000006").read("model/ids.item.row_seen")
    assert seen.max() == 8 + 6  # what the run before has seen is older than any step of this one
