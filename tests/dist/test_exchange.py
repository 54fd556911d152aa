"""dedup=on trains what plain TorchRec trains on the expanded batch, on every sharding type, on two ranks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec.distributed.model_parallel import ShardedModule
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from recd_dist.batch import Batch
from recd_dist.distributed import Ranks
from recd_dist.embedding.init import initialize, local_shards
from recd_dist.embedding.plan import plan
from recd_dist.embedding.shard import TableOptimizer, optimizers, shard
from recd_dist.embedding.tables import Embeddings, table_weights
from recd_dist.grouped import Embedded
from recd_dist.ikjt import IKJT
from recd_dist.schema import Feature, Kind, Schema, Table

GROUPS = {"user": ["history", "city", "clicks"], "request": ["device", "flag"]}
SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),  # a table shared by two groups, pooled
        Feature("city", Kind.id, "user", "city"),
        Feature("clicks", Kind.ids, "user", "article"),  # un-pooled, its table shared with a pooled feature
        Feature("device", Kind.id, "request", "device"),
        Feature("flag", Kind.ids, "request", "flag"),  # fewer rows than ranks
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("target", Kind.id, "sample", "article"),
        Feature("place", Kind.ids, "sample", "place"),
    )
)
TABLES = {
    "item": Table("item", 31, 16),
    "city": Table("city", 5, 8),
    "article": Table("article", 23, 8),
    "device": Table("device", 3, 8),
    "flag": Table("flag", 1, 8),
    "place": Table("place", 17, 8),
}
KEYS = [f.name for f in SCHEMA.sparse]


class Model(nn.Module):
    """The shape that train.py's model has: the embeddings, then a head that is a leaf to the pipeline's tracer."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = Head()

    def forward(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.head(self.embeddings(batch.sparse), batch)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Linear(sum(TABLES[f.table].dim for f in SCHEMA.sparse), 1)

    def forward(self, embedded: Embedded, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        full = embedded.expanded()
        parts = {k: g[k] for g in full.pooled.values() for k in g.keys}
        parts |= {f: s.pool().values for f, s in full.sequences.items()}
        joined = torch.cat([parts[k] for k in KEYS], 1)
        if joined.shape[0] == 0:
            logits = self.layer(joined).squeeze(1)
            return logits.sum(), (joined.detach(), logits.detach())
        logits = self.layer(joined).squeeze(1)
        loss = nn.functional.mse_loss(logits, batch.labels[:, 0])
        return loss, (joined.detach(), logits.detach())


def batches(rank: int, num_steps: int, sizes: tuple[int, int] = (9, 14)) -> list[Batch]:
    """Batches whose size and number of unique rows differ between ranks and steps."""
    random = np.random.default_rng(100 + rank)
    out = []
    for step in range(num_steps):
        size = sizes[rank] + (step if sizes[rank] else 0)
        users = np.sort(random.integers(0, 3 + 2 * rank, size))
        requests = users * 3 + random.integers(0, 2, size)
        lists = {f: [] for f in KEYS}
        for f in SCHEMA.sparse:
            owner = {"user": users, "request": requests, "sample": np.arange(size)}[f.group]
            rows = {
                o: random.integers(
                    0, TABLES[f.table].num_embeddings, random.integers(0, 5) if f.kind == Kind.ids else 1
                )
                for o in sorted(set(owner.tolist()))
            }
            lists[f.name] = [rows[o].tolist() for o in owner.tolist()]
        flat = [row for k in KEYS for row in lists[k]]
        kjt = KeyedJaggedTensor(
            KEYS,
            torch.tensor([i for row in flat for i in row], dtype=torch.int32),
            lengths=torch.tensor([len(row) for row in flat], dtype=torch.int32),
        )
        labels = torch.tensor(random.normal(size=(size, 1)), dtype=torch.float32)
        ids = torch.arange(size)
        out.append(Batch(IKJT.from_kjt(kjt, GROUPS), {}, labels, ids, ids))
    return out


def built(ranks: Ranks, dedup: bool, sharding: object, optimizer: str, **options: object) -> tuple[nn.Module, object]:
    options = {"sequence_features": ["clicks"], **options}
    embeddings = Embeddings(SCHEMA, TABLES, dedup=dedup, device="meta", **options)
    chosen = plan(embeddings, ranks.world_size, sharding)
    tables = TableOptimizer(optimizer, lr=0.3)
    model = shard(Model(embeddings), chosen, ranks, tables)
    initialize(model, seed=1)
    return model, optimizers(model, lambda params: torch.optim.SGD(params, lr=0.1), tables)


def sharded_modules(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, ShardedModule)]


def weights(model: nn.Module) -> list[tuple[str, int, int, np.ndarray]]:
    return [
        (name, row, column, part.numpy().copy())
        for name, weight in table_weights(model).items()
        for part, row, column in local_shards(weight)
    ]


def train(
    ranks: Ranks,
    dedup: bool,
    sharding: object,
    optimizer: str,
    num_steps: int = 4,
    sizes: tuple[int, int] = (9, 14),
    options: dict[str, object] | None = None,
    pipelined: bool = False,
) -> dict[str, object]:
    """Trains a few steps; hands back outputs, losses and weights of this rank before and after."""
    model, optimizer_ = built(ranks, dedup, sharding, optimizer, **(options or {}))
    before = weights(model)
    data = [b if dedup else b.expanded() for b in batches(ranks.rank, num_steps, sizes)]
    outputs, num_pipelined, num_sharded = [], 0, len(sharded_modules(model))
    if pipelined:
        Pipelineable.register(Batch)
        pipeline = TrainPipelineSparseDist(model, optimizer_, ranks.device, pipeline_postproc=True)
        stream = iter(data)
        for _ in data:
            outputs.append(pipeline.progress(stream)[0].numpy())
        num_pipelined = len(pipeline._pipelined_modules)
    else:
        for batch in data:
            optimizer_.zero_grad()
            loss, (joined, _) = model(batch)
            loss.backward()
            optimizer_.step()
            outputs.append(joined.numpy())
    head = model.module.head.layer.weight.detach().numpy().copy()
    return {
        "outputs": outputs, "before": before, "after": weights(model), "head": head,
        "pipelined": num_pipelined, "sharded": num_sharded,
    }  # fmt: skip


def whole(results: list[dict[str, object]], when: str) -> dict[str, np.ndarray]:
    """Tables put together from the shards of all ranks."""
    tables = {t.name: np.full((t.num_embeddings, t.dim), np.nan, np.float32) for t in TABLES.values()}
    for result in results:
        for name, row, column, part in result[when]:
            tables[name][row : row + part.shape[0], column : column + part.shape[1]] = part
    return tables


def assert_same(on: list[dict[str, object]], off: list[dict[str, object]], rtol: float = 2e-5) -> None:
    for name, weight in whole(on, "before").items():
        np.testing.assert_array_equal(weight, whole(off, "before")[name], err_msg=name)
    for a, b in zip(on, off, strict=True):
        for x, y in zip(a["outputs"], b["outputs"], strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-6)
        np.testing.assert_allclose(a["head"], b["head"], rtol=rtol, atol=2e-6)
    first, last, other = whole(on, "before"), whole(on, "after"), whole(off, "after")
    for name in TABLES:
        assert np.isfinite(last[name]).all()
        assert np.abs(last[name] - first[name]).max() > 1e-3, f"{name} did not move"
        np.testing.assert_allclose(last[name], other[name], rtol=rtol, atol=2e-6, err_msg=name)


SHARDINGS = {
    "TW": "TW",
    "RW": "RW",
    "CW": "CW",
    "DP": {"default": "DP", "article": "TW"},
    "mixed": {"default": "TW", "item": "RW", "article": "CW", "device": "DP"},
    "planner": "planner",
}


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad", "adagrad"])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_on_equals_off(two_ranks, sharding: str, optimizer: str) -> None:
    on = two_ranks(train, True, SHARDINGS[sharding], optimizer)
    off = two_ranks(train, False, SHARDINGS[sharding], optimizer)
    assert_same(on, off)


def test_first_weights_do_not_depend_on_the_plan(two_ranks) -> None:
    alone = Embeddings(SCHEMA, TABLES, sequence_features=["clicks"])
    initialize(alone, seed=1)
    for sharding in ("TW", "RW", "CW"):
        found = whole(two_ranks(train, True, sharding, "sgd", 0), "before")
        for name, weight in table_weights(alone).items():
            np.testing.assert_array_equal(found[name], weight.numpy())


@pytest.mark.parametrize("dedup", [True, False])
@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_every_input_exchange_is_pipelined(two_ranks, sharding: str, dedup: bool) -> None:
    piped = two_ranks(train, dedup, sharding, "rowwise_adagrad", 5, (9, 14), None, True)
    for result in piped:
        assert result["pipelined"] == result["sharded"] == (5 if dedup else 2)
    assert_same(piped, two_ranks(train, dedup, sharding, "rowwise_adagrad", 5))


@pytest.mark.parametrize(
    "options", [{"unique_ids": True, "group_rows": {"user": 9, "request": 9, "sample": 9}}, {"pooling": "mean"}]
)
@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_options_change_nothing_but_the_way(two_ranks, sharding: str, options: dict[str, object]) -> None:
    off = {k: v for k, v in options.items() if k == "pooling"}
    assert_same(
        two_ranks(train, True, sharding, "adagrad", 4, (9, 14), options),
        two_ranks(train, False, sharding, "adagrad", 4, (9, 14), off),
    )


@pytest.mark.parametrize("sharding", ["TW", "RW"])
def test_a_rank_without_samples(two_ranks, sharding: str) -> None:
    """Upstream's un-pooled module fails on an empty batch; ours is sent one list of no ids, which it takes."""
    sizes, pooled = (0, 14), {"sequence_features": []}
    args = (sharding, "adagrad", 3, sizes)
    assert_same(two_ranks(train, True, *args, pooled), two_ranks(train, False, *args, pooled))
    assert_same(two_ranks(train, True, *args), two_ranks(train, True, "CW", *args[1:]))
