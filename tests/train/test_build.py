"""Overrides of five kinds, seen in the parts that are built and not in what is printed."""

import pytest
import torch

from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.model.dlrm import DLRM
from recd_dist.model.transformer import Transformer
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.manifest import Manifest
from recd_dist.train import build, planning
from recd_dist.train.trained_run import require_same_features

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


def test_model_width(checked) -> None:
    model = build.build_model(checked("model.dim=8", "model.over=[24, 12]"), dedup=True)
    head = model.head.model.head

    assert {name: table.dim for name, table in model.embeddings.tables.items()} == dict.fromkeys(
        ["item", "category", "region", "device", "position"], 8
    )
    assert next(m for m in head.over.modules() if isinstance(m, torch.nn.Linear)).in_features == 24
    assert head.logit.in_features == 12


def test_model_class(checked) -> None:
    assert isinstance(build.build_model(checked(), dedup=True).head.model, DLRM)
    assert isinstance(build.build_model(checked("model=sequence"), dedup=True).head.model, Transformer)


def test_batch_size(checked) -> None:
    resolved = checked("batch_size=100", "reader.shuffle=false")
    loader = build.build_loader(resolved, ALONE, resolved.transforms.fit(resolved.table))
    sizes = [batch.batch_size for batch in loader]

    assert len(sizes) == -(-resolved.manifest.num_samples // 100)
    assert max(sizes) <= 100
    assert sum(sizes) == resolved.manifest.num_samples


def test_a_manifest_is_read_once(checked, monkeypatch: pytest.MonkeyPatch) -> None:
    read, load = [], Manifest.load
    monkeypatch.setattr(Manifest, "load", lambda path: (read.append(path.name), load(path))[1])
    job = checked("data.features.score.transforms=[log, standardize]")
    planning.count_rows(job)
    for table in (None, job.evaluation):
        build.build_loader(job, ALONE, job.transforms.fit(job.table), table=table).close()
    require_same_features(job.schema, job.evaluation)

    assert read == ["train", "test"]


@pytest.mark.parametrize(
    ("overrides", "kinds"),
    [
        ([], {"item": "TW", "region": "TW"}),
        (["plan=row_wise"], {"item": "RW", "region": "RW"}),
        (["plan.tables.item=row_wise"], {"item": "RW", "region": "TW"}),
        (["plan=row_wise", "plan.tables.region=TW"], {"item": "RW", "region": "TW"}),
    ],
)
def test_plan(checked, overrides: list[str], kinds: dict[str, str]) -> None:
    resolved = checked(*overrides)
    embeddings = build.build_model(resolved, dedup=True).embeddings
    placed = read_placement(place_tables(embeddings, World.of_one_host(2), planning.wanted_sharding(resolved)))

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
def test_optimizer(checked, overrides: list[str], optimizer: type, options: dict[str, float]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    built = build.build_dense_optimizer(parameters, checked(*overrides).config.optim.dense)

    assert type(built) is optimizer
    assert {name: built.defaults[name] for name in options} == options


def test_a_dropped_feature_is_neither_read_nor_embedded(checked) -> None:
    resolved = checked("data.drop=[position, price]")
    batch = next(iter(build.build_loader(resolved, ALONE, resolved.transforms.fit(resolved.table))))

    assert "position" not in resolved.schema
    assert "position" not in resolved.tables
    assert "position" not in [key for group in batch.sparse.groups for key in group.keys]
    assert batch.dense["sample"].shape[1] == 2  # freshness, score


def test_a_transform_reaches_the_batch(checked) -> None:
    cut = checked("data.features.history_item.transforms=[{first_x: 3}]")
    batch = next(iter(build.build_loader(cut, ALONE, cut.transforms.fit(cut.table))))

    assert int(batch.sparse.lengths_of("history_item").max()) == 3
    assert int(batch.sparse.lengths_of("history_category").max()) == 20


def test_dense_weights_follow_from_the_seed(checked) -> None:
    def weights(*overrides: str) -> torch.Tensor:
        chosen = checked(*overrides)
        with build.seeded(chosen):
            return build.build_model(chosen, dedup=True).head.model.head.logit.weight

    before = torch.get_rng_state()
    assert torch.equal(weights(), weights())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(weights(), weights("seed=1"))
