"""Overrides of five kinds, seen in the parts that are built and not in what is printed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recd_dist import assembly, preflight
from recd_dist.config import load
from recd_dist.distributed import Ranks
from recd_dist.embedding.floor import StepRows
from recd_dist.embedding.plan import plan
from recd_dist.embedding.shards import placement
from recd_dist.job import Job
from recd_dist.model import DLRM, SequenceModel

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"), "gloo")


@pytest.fixture
def job(tiny: list[str], tmp_path: Path):
    def resolved(*overrides: str) -> Job:
        return preflight.check(load("train", [*tiny, f"run_dir={tmp_path / 'run'}", *overrides]), world_size=1)

    return resolved


def test_model_width(job) -> None:
    model = assembly.train_model(job("model.dim=8", "model.over=[24, 12]"), dedup=True)
    head = model.head.model.head

    assert {name: table.dim for name, table in model.embeddings.tables.items()} == dict.fromkeys(
        ["item", "category", "region", "device", "position"], 8
    )
    assert next(m for m in head.over.modules() if isinstance(m, torch.nn.Linear)).in_features == 24
    assert head.logit.in_features == 12


def test_model_class(job) -> None:
    assert isinstance(assembly.train_model(job(), dedup=True).head.model, DLRM)
    assert isinstance(assembly.train_model(job("model=sequence"), dedup=True).head.model, SequenceModel)


def test_batch_size(job) -> None:
    resolved = job("batch_size=100", "reader.shuffle=false")
    loader = assembly.loader(resolved, ALONE, resolved.transforms.fitted(resolved.table))
    sizes = [batch.batch_size for batch in loader]

    assert len(sizes) == -(-resolved.manifest.num_samples // 100)
    assert max(sizes) <= 100
    assert sum(sizes) == resolved.manifest.num_samples


@pytest.mark.parametrize(
    ("overrides", "kinds"),
    [
        ([], {"item": "TW", "region": "TW"}),
        (["plan=row_wise"], {"item": "RW", "region": "RW"}),
        (["plan.tables.item=row_wise"], {"item": "RW", "region": "TW"}),
        (["plan=row_wise", "plan.tables.region=TW"], {"item": "RW", "region": "TW"}),
    ],
)
def test_plan(job, overrides: list[str], kinds: dict[str, str]) -> None:
    resolved = job(*overrides)
    embeddings = assembly.train_model(resolved, dedup=True).embeddings
    placed = placement(plan(embeddings, 2, assembly.sharding(resolved)))

    assert {name: placed[name].sharding for name in kinds} == kinds


@pytest.mark.parametrize(
    ("overrides", "optimizer", "options"),
    [
        ([], torch.optim.Adagrad, {"lr": 0.01, "eps": 1e-8}),
        (["optim=adam", "optim.dense.weight_decay=0.1"], torch.optim.Adam, {"lr": 0.001, "weight_decay": 0.1}),
        (["optim.dense.name=adamw"], torch.optim.AdamW, {"lr": 0.01}),
        (["optim=sgd", "optim.dense.lr=3"], torch.optim.SGD, {"lr": 3.0}),
    ],
)
def test_optimizer(job, overrides: list[str], optimizer: type, options: dict[str, float]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    built = assembly.dense_optimizer(parameters, job(*overrides).config.optim.dense)

    assert type(built) is optimizer
    assert {name: built.defaults[name] for name in options} == options


def test_a_dropped_feature_is_neither_read_nor_embedded(job) -> None:
    resolved = job("data.drop=[position, price]")
    batch = next(iter(assembly.loader(resolved, ALONE, resolved.transforms.fitted(resolved.table))))

    assert "position" not in resolved.schema
    assert "position" not in resolved.tables
    assert "position" not in [key for group in batch.sparse.groups for key in group.keys]
    assert batch.dense["sample"].shape[1] == 2  # freshness, score


def test_a_transform_reaches_the_batch(job) -> None:
    cut = job("data.features.history_item.transforms=[{first_x: 3}]")
    batch = next(iter(assembly.loader(cut, ALONE, cut.transforms.fitted(cut.table))))

    assert int(batch.sparse.lengths_of("history_item").max()) == 3
    assert int(batch.sparse.lengths_of("history_category").max()) == 20


def test_dense_weights_follow_from_the_seed(job) -> None:
    def weights(*overrides: str) -> torch.Tensor:
        return assembly.train_model(job(*overrides), dedup=True).head.model.head.logit.weight

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights("seed=1"))


def test_rows_and_ids_are_counted_in_batches(job) -> None:
    """The manifest cannot know how many distinct ids a batch has; for the rest the two must agree roughly."""
    resolved = job("batch_size=500")
    counted, known = assembly.step_rows(resolved), StepRows.of_table(resolved.manifest, resolved.schema, 500)

    assert counted == assembly.step_rows(resolved)
    assert counted.batch_size == pytest.approx(500, rel=0.1)
    assert counted.expanded_ids["history_item"] == pytest.approx(known.expanded_ids["history_item"], rel=0.3)
    assert counted.unique_ids["history_item"] == pytest.approx(known.unique_ids["history_item"], rel=0.5)
    assert 0 < counted.distinct_ids["item"] < counted.unique_ids["history_item"] + counted.unique_ids["candidate_item"]


def test_without_files_the_manifest_must_do(job, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = job()
    broken = replace(resolved, table=resolved.table / "moved")

    assert assembly.step_rows(broken) == StepRows.of_table(resolved.manifest, resolved.schema, 1024)


def test_places_are_left_out_for_another_world(job) -> None:
    pinned = job("plan.tables.item={type: TW, ranks: [0]}")

    assert assembly.sharding(pinned)["item"] == {"type": "TW", "ranks": [0]}
    assert assembly.sharding(pinned, places=False)["item"] == "TW"
