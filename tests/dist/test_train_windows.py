"""A whole job on two ranks whose batches hold windows, against the same job with lists: the same checkpoints.

Windows come from the reader, which keeps those of tables whose ids travel, and of all where servers are far, or from
``find_windows``, for every feature.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from recd_dist.checkpoint.stored_tensors import StoredTensors, compare
from recd_dist.job.config import load
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.loader import Loader
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.find_windows import find_windows
from recd_dist.train import build
from recd_dist.train.training import train

EXACT = {
    "sequence": ["model=sequence"],
    "transformer": ["model=transformer", "model.beside={history_item: [history_category]}"],
    "dlrm, pooled at home": ["model=dlrm"],
    "dlrm, from far servers": ["model=dlrm"],
    "mapped": ["model=sequence", "data.tables.item={mapped: true, num_embeddings: 250, admit_after: 5}"],
    "without deduplication": ["model=sequence", "dedup=off"],
}
NEARLY = {
    "dlrm, ids": ["model=dlrm", "plan.send.item=ids"],
    "hstu, rows": ["model=hstu", "model.beside={history_item: [history_category]}", "plan.send.item=rows"],
    "sequence, expanded": ["model=sequence", "plan.expand=[history]", "plan.send.item=rows"],
    "two towers": [
        "model=two_tower",
        "model.item=[candidate_item]",
        "model.query=[history_item,history_category,region]",
        "tasks.label.loss=in_batch",
    ],
}


FAR = "dlrm, from far servers"
FROM_READER = (FAR, "sequence", "transformer", "mapped", "dlrm, ids", "hstu, rows", "sequence, expanded")


def _train(ranks: Ranks, overrides: list[str], everywhere: bool, far: bool) -> dict[str, Any]:
    taken, stored = Loader._take_batch, list[int]()

    def with_windows(loader: Loader, result: Any) -> Batch:
        batch = taken(loader, result)
        sparse = find_windows(batch.sparse.lists()) if everywhere else batch.sparse
        stored.append(sum(sparse.num_list_values(k) - sparse.num_values(k) for k in sparse.windows))
        return Batch(**{**vars(batch), "sparse": sparse})

    with patch.object(Loader, "_take_batch", with_windows), patch(f"{build.__name__}.has_far_servers", lambda _: far):
        summary = train(load("train", overrides), ranks)
    return {**summary, "shared": sum(stored)}


SLOW = ("transformer", "without deduplication", "dlrm, ids", "sequence, expanded")
CASES = [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in (*EXACT, *NEARLY)]


@pytest.mark.parametrize("name", CASES)
def test_checkpoints_are_alike(two_ranks, tiny: list[str], tmp_path: Path, name: str) -> None:
    # Adagrad would make a whole step of the rounding of a gradient near 0, unless eps is above it.
    common = [*tiny, *(EXACT.get(name) or NEARLY[name]), "batch_size=64", "max_steps=8", "checkpoint.every=4"]
    common += ["plan.sharding=row_wise", "optim.dense.eps=1e-4", "optim.tables.eps=1e-4"]
    of_reader = name in FROM_READER
    windows, lists = (
        two_ranks(
            _train,
            [*common, f"run_dir={tmp_path / str(on)}", f"reader.windows={str(on and of_reader).lower()}"],
            on and not of_reader,
            name == FAR,
        )[0]
        for on in (True, False)
    )
    assert windows["shared"] > 1000
    assert lists["shared"] == 0
    assert windows["dedup_factor"] == lists["dedup_factor"]
    assert windows.get("ids") == lists.get("ids")
    if name in EXACT:
        assert windows["ne"] == lists["ne"]
    if "off" not in str(common):
        assert windows["sent_bytes"] == pytest.approx(windows["unique_bytes_by_formula"], rel=0.05)
    one, other, first = (
        StoredTensors(tmp_path / run / f"checkpoints/step-{step:08d}")
        for run, step in (("True", 8), ("False", 8), ("True", 4))
    )
    differing = {what: gap for what, words, gap in compare(one, other) if words}
    assert max(differing.values(), default=0) <= (0 if name in EXACT else 1e-4), differing
    tables = [n for n in one.kinds if n.startswith("model/") and ".tables." in n and n.endswith(".weight")]
    assert len(tables) >= 2
    for table in tables:
        assert (one.read(table) - first.read(table)).abs().max() > 1e-3, f"{table} did not move"
    assert not any(torch.isnan(one.read(table)).any() for table in tables)
