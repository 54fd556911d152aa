"""The loss over the items of a batch on several ranks, and whole jobs of two towers, dedup=on against dedup=off."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recd_dist.cli import main
from recd_dist.job.config import load
from recd_dist.job.preflight import check
from recd_dist.model.in_batch import InBatchSoftmax, ItemsAndUsers
from recd_dist.model.loss import TaskLosses
from recd_dist.model.task import Task
from recd_dist.model.towers import Towers
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.train import build
from recd_dist.train.evaluation import evaluate_run
from recd_dist.train.prediction import predict_run
from recd_dist.train.training import shard_model, start_pipeline, train

NUM_STEPS = 20

# --- the loss alone ---


def _rows(rank: int) -> tuple[torch.Tensor, torch.Tensor, ItemsAndUsers, torch.Tensor]:
    """Vectors of eight samples, users of whom some are on several ranks, labels and weights; rank 3 has no positive."""
    random = np.random.default_rng(rank)
    query, item = (torch.from_numpy(random.normal(size=(8, 3))).requires_grad_() for _ in range(2))
    labels = random.choice([1.0, 0.0, math.nan], 8, p=[0.5, 0.4, 0.1]) if rank != 3 else np.zeros(8)
    whose = ItemsAndUsers(random.integers(0, 9, 8), random.integers(0, 5, 8))
    return query, item, whose, torch.from_numpy(np.stack([labels, random.integers(0, 4, 8)], 1)).float()


def _loss(task: Task, query: Any, item: Any, whose: ItemsAndUsers, labels: torch.Tensor) -> torch.Tensor:
    log_q = np.log(np.arange(1, 10) / 45)
    losses = TaskLosses([task], [0], weight=1).double()
    given = {task.name: InBatchSoftmax(task, log_q if task.log_q else None)(Towers(query, item), whose, labels[:, 0])}
    return losses(torch.zeros(len(labels), 1).double(), labels, losses.count(labels), None, given)[0]


def _gradients(ranks: Ranks, task: Task) -> tuple[float, np.ndarray, np.ndarray]:
    query, item, whose, labels = _rows(ranks.rank)
    loss = _loss(task, query, item, whose, labels)
    loss.backward()
    return loss.item(), query.grad.numpy(), item.grad.numpy()


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("options", [{}, {"candidates": "positives", "log_q": False}])
def test_gradients_are_those_of_one_process_with_the_whole_batch(
    request: pytest.FixtureRequest, num_ranks: int, options: dict
) -> None:
    task = Task("bought", "bought", "in_batch", **options)
    found = request.getfixturevalue("two_ranks" if num_ranks == 2 else "four_ranks")(_gradients, task)
    queries, items, whose, labels = zip(*map(_rows, range(num_ranks)), strict=True)
    together = ItemsAndUsers(*(np.concatenate([getattr(w, n) for w in whose]) for n in ("items", "users")))
    whole = _loss(task, torch.cat(queries), torch.cat(items), together, torch.cat(labels))
    wanted = torch.autograd.grad(whole, [*queries, *items])

    assert np.mean([loss for loss, _, _ in found]) == pytest.approx(whole.item(), rel=1e-6)  # sums travel as float32
    for rank, (_, query, item) in enumerate(found):  # as data-parallel training averages them
        np.testing.assert_allclose(query / num_ranks, wanted[rank].numpy(), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(item / num_ranks, wanted[num_ranks + rank].numpy(), rtol=1e-6, atol=1e-12)


def test_negatives_of_the_own_rank_alone(two_ranks) -> None:
    task = Task("bought", "bought", "in_batch", negatives="rank")
    for rank, (_, query, item) in enumerate(two_ranks(_gradients, task)):
        own_query, own_item, whose, labels = _rows(rank)
        alone = InBatchSoftmax(task, np.log(np.arange(1, 10) / 45))(Towers(own_query, own_item), whose, labels[:, 0])
        (alone * labels[:, 1]).sum().backward()
        for found, wanted in ((query, own_query.grad.numpy()), (item, own_item.grad.numpy())):
            np.testing.assert_allclose(found / np.linalg.norm(found), wanted / np.linalg.norm(wanted), rtol=1e-6)


# --- whole jobs ---


def raw_logs(num_sessions: int = 250) -> pa.Table:
    """Sessions of users who like items of one remainder modulo 5, which their history shows."""
    random = np.random.default_rng(0)
    rows = []
    for session in range(num_sessions):
        taste = int(random.integers(0, 5))
        history = (5 * random.integers(0, 12, 6) + taste).tolist()
        for request in range(2):
            for _ in range(3):
                item = int(random.integers(0, 60))
                if random.random() < 0.5:
                    item = item - item % 5 + taste
                rows.append(
                    {
                        "session": session,
                        "request": 2 * session + request,
                        "t": session,
                        "bought": float(item % 5 == taste),
                        "importance": float(random.integers(1, 4)),
                        "history": history,
                        "country": taste % 2,
                        "item": item,
                        "shelf": item % 7,
                        "price": float(random.normal()),
                    }
                )
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("towers")
    pq.write_table(raw_logs(), path / "raw.parquet")
    overrides = [
        "data=parquet",
        f"data.path={path / 'raw.parquet'}",
        f"data.table={path / 'table'}",
        "data.keys={session: session, request: request, timestamp: t}",
        "data.labels=[bought]",
        "data.weight=importance",
        "data.split=0.2",
        "data.groups={user: [history, country]}",
        "data.features={history: {table: item}, country: {kind: id}, item: {kind: id, table: item}, shelf: {kind: id}}",
    ]
    assert main(["etl", *overrides, "row_group_samples=256"]) == 0
    return [*overrides, "model=two_tower", "model.dim=8", "batch_size=96"]


def _train_steps(ranks: Ranks, overrides: list[str]) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    job = check(load("train", overrides), ranks.world_size)
    model, optimizer, _ = shard_model(job, ranks)
    pipeline = start_pipeline(model, optimizer, ranks.device)
    before = _weights(model)
    loader = build.build_loader(job, ranks, job.transforms.fit(job.table))
    losses: list[float] = []
    while len(losses) < NUM_STEPS:
        batches = iter(loader)
        while (output := _step(pipeline, batches)) is not None:
            losses.append(float(output.loss))
        loader.start_epoch(loader.epoch + 1)
    loader.close()
    return losses, before, _weights(model)


def _step(pipeline: Any, batches: Any) -> build.Output | None:
    try:
        return pipeline.progress(batches)
    except StopIteration:
        return None


def _weights(model: Any) -> dict[str, np.ndarray]:
    found = {}
    for name, value in model.state_dict().items():
        if hasattr(value, "local_shards"):
            for shard in value.local_shards():
                found[f"{name.split('.')[-2]}{shard.metadata.shard_offsets}"] = shard.tensor.numpy().copy()
        else:
            found[name] = value.numpy().copy()
    return found


def _alone(overrides: list[str]) -> list[Any]:
    with process_group("cpu") as ranks:
        return [_train_steps(ranks, overrides)]


def _assert_same_weights(runs: list[list[Any]]) -> None:
    for (losses, before, after), (plain, plain_before, plain_after) in zip(*runs, strict=True):
        np.testing.assert_allclose(losses, plain, rtol=1e-4)
        for name, weights in after.items():
            np.testing.assert_array_equal(before[name], plain_before[name], err_msg=name)
            moved = np.abs(weights - before[name]).max()
            assert moved > 1e-5, f"{name} was not trained"
            assert np.abs(weights - plain_after[name]).max() < max(1e-2 * moved, 1e-6), name


@pytest.mark.parametrize(
    ("num_ranks", "options"), [(1, []), (2, []), (2, ["model.item=[item,price]", "optim.ema=0.9"])]
)
def test_dedup_on_equals_off(two_ranks, table: list[str], tmp_path: Path, num_ranks: int, options: list[str]) -> None:
    # Adagrad would make whole steps of the rounding of gradients near 0, so the optimizer is SGD.
    sgd = ["plan=row_wise", "optim=sgd", "optim.tables.lr=2", "optim.dense.lr=0.1", f"run_dir={tmp_path / 'run'}"]
    given = [*table, *sgd, *options]
    runs = [
        two_ranks(_train_steps, [*given, f"dedup={mode}"]) if num_ranks == 2 else _alone([*given, f"dedup={mode}"])
        for mode in ("on", "off")
    ]
    _assert_same_weights(runs)


def test_a_batch_in_parts_trains_the_same(two_ranks, table: list[str], tmp_path: Path) -> None:
    sgd = ["plan=row_wise", "optim=sgd", "optim.tables.lr=2", "optim.dense.lr=0.1", f"run_dir={tmp_path / 'run'}"]
    _assert_same_weights([two_ranks(_train_steps, [*table, *sgd, f"micro_batches={n}"]) for n in (3, 1)])


def _train_and_evaluate(ranks: Ranks, overrides: list[str], run_dir: Path) -> tuple[dict, dict]:
    summary = train(load("train", overrides), ranks)
    predict_run(load("predict", [f"run_dir={run_dir}", "vectors=true", "columns=[item]"]), ranks)
    return summary, evaluate_run(load("evaluate", [f"run_dir={run_dir}", "top=[1,5,12]"]), ranks)


def test_items_are_found(two_ranks, table: list[str], tmp_path: Path) -> None:
    """A user buys each of twelve items out of sixty alike: the best possible recall@12 is near 1."""
    run_dir = tmp_path / "run"
    options = ["epochs=20", f"run_dir={run_dir}", "evaluate.every=40", "evaluate.best=recall@12", "evaluate.top=[5,12]"]
    rates = ["optim.tables.lr=0.1", "optim.dense.lr=0.02", "precision=bf16"]
    (summary, evaluation), (_, other) = two_ranks(_train_and_evaluate, [*table, *options, *rates], run_dir)
    assert summary["best"]["by"] == "recall@12"
    assert summary["recall@12"] > 0.9
    assert summary["best"]["recall@12"] >= summary["recall@12"]
    assert summary["loss"] < math.log(20)  # over 60 items, of which 12 fit
    assert evaluation["recall@12"] == pytest.approx(summary["recall@12"], rel=1e-6)
    assert set(evaluation) >= {"recall@1", "ndcg@5", "num_positives", "num_items", "gauc"}
    assert "recall@12" not in other  # rank 0 has the numbers
    _assert_vectors(pq.read_table(run_dir / "scores" / "test"), evaluation)


def _assert_vectors(scores: pa.Table, evaluation: dict) -> None:
    """The vectors that were written give the scores, and the recall that was measured."""
    query, vectors = (np.stack(scores[name].to_numpy()) for name in ("query_vector", "item_vector"))
    np.testing.assert_allclose((query * vectors).sum(1), scores["score_bought"].to_numpy(), rtol=1e-3, atol=1e-4)
    items, bought = scores["item"].to_numpy(), scores["bought"].to_numpy() == 1
    ids, first = np.unique(items, return_index=True)
    places, asked = query @ vectors[first].T, scores["request_id"].to_numpy()
    hits, seen = [], set()
    for sample in np.flatnonzero(bought):
        if (asked[sample], items[sample]) in seen:
            continue
        seen.add((asked[sample], items[sample]))
        others = set(items[bought & (asked == asked[sample])]) - {items[sample]}
        competing = places[sample][[item not in others for item in ids]]
        own = places[sample][np.searchsorted(ids, items[sample])]
        hits.append((competing > own).sum() < 12)
    assert len(hits) == evaluation["num_positives"]
    assert np.mean(hits) == pytest.approx(evaluation["recall@12"], abs=0.02)  # weighted there
