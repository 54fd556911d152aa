"""A small training on two or four ranks, and its judge: the same training in float64 on one process."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import ShardedModule
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.optim.keyed import KeyedOptimizerWrapper
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from recd_dist.checkpoint import checkpoint
from recd_dist.embedding.distribute import TableOptimizer, combine_optimizers, dense_parameters, shard
from recd_dist.embedding.initial_weights import initialize_tables, local_shards
from recd_dist.embedding.lookup.row_lookup import RowLookup
from recd_dist.embedding.tables import Embeddings, portable_name, table_weights
from recd_dist.embedding.vocabulary.names import LookupKernel
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.deduplicate import deduplicate
from recd_dist.tensors.find_windows import find_windows
from recd_dist.tensors.grouped import Embedded, Grouped

GROUPS = {"user": ["history", "city", "clicks"], "request": ["device", "flag", "tags", "more_tags"]}
SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),  # a table shared by two groups, pooled
        Feature("city", Kind.id, "user", "city"),
        Feature("clicks", Kind.ids, "user", "article"),  # un-pooled, its table shared with a pooled feature
        Feature("device", Kind.id, "request", "device"),
        Feature("flag", Kind.ids, "request", "flag"),  # fewer rows than ranks
        Feature("tags", Kind.ids, "request", "tag"),  # two features of one group in one table
        Feature("more_tags", Kind.ids, "request", "tag"),
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
    "tag": Table("tag", 12, 16),
    "place": Table("place", 17, 12),
}
WEIGHTED = ("history", "clicks", "tags", "place")
"""Features that have weights if a test asks for them. Every table of theirs but the last has a feature without."""
KEYS = [f.name for f in SCHEMA.sparse]
LR = {"sgd": 0.05, "rowwise_adagrad": 0.1, "adagrad": 0.1}
HEAD_LR = 0.05
STEPS = 20


class Model(nn.Module):
    """Embeddings, then a head, as in ``train/build.py``: the pipeline's tracer does not look inside the head."""

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
        full = embedded.expand()
        parts = {k: g[k] for g in full.pooled.values() for k in g.keys}
        parts |= {f: s.pool().values for f, s in full.sequences.items()}
        joined = torch.cat([parts[k] for k in KEYS], 1)
        logits = self.layer(joined).squeeze(1)
        if joined.shape[0] == 0:
            return logits.sum(), (joined.detach(), logits.detach())
        loss = nn.functional.mse_loss(logits, batch.labels[:, 0].to(logits.dtype))
        return loss, (joined.detach(), loss.detach())


def schema_of(weighted: bool) -> Schema:
    """The schema; with ``weighted`` the features of ``WEIGHTED`` have weights."""
    weights = {name: f"{name}_weights" for name in WEIGHTED if weighted}
    return Schema(tuple(replace(f, weights=weights.get(f.name)) for f in SCHEMA.features))


def batches(
    rank: int,
    num_steps: int,
    size: int,
    longest: int | tuple[int, ...] = 4,
    weighted: bool = False,
    shifting: bool = False,
) -> list[Batch]:
    """A rank's batches, whose sizes and numbers of unique rows differ between ranks and steps.

    With ``shifting`` each row of a list begins one id later than the one before.
    """
    longest = longest[rank] if isinstance(longest, tuple) else longest
    random, drawn = np.random.default_rng(100 + rank), np.random.default_rng(200 + rank)
    out = []
    for step in range(num_steps):
        num_samples = size + (step % 4 if size else 0)
        users = np.sort(random.integers(0, 3 + 2 * rank, num_samples))
        requests = users * 3 + random.integers(0, 2, num_samples)
        lists, weights = {f: [] for f in KEYS}, []
        for f in SCHEMA.sparse:
            owner = {"user": users, "request": requests, "sample": np.arange(num_samples)}[f.group]
            owners, high = sorted(set(owner.tolist())), TABLES[f.table].num_embeddings
            rows = {
                o: random.integers(0, high, random.integers(0, longest + 1) if f.kind == Kind.ids else 1)
                for o in owners
            }
            stream = random.integers(0, high, len(owners) + longest) if shifting and f.kind == Kind.ids else None
            if stream is not None:
                rows = {o: stream[n : n + len(ids)] for n, (o, ids) in enumerate(rows.items())}
            lists[f.name] = [rows[o].tolist() for o in owner.tolist()]
            one = f.name not in WEIGHTED
            of_rows = {o: np.ones(len(ids)) if one else drawn.uniform(-1, 2, len(ids)) for o, ids in rows.items()}
            if stream is not None and not one:
                of_stream = drawn.uniform(-1, 2, len(stream))
                of_rows = {o: of_stream[n : n + len(ids)] for n, (o, ids) in enumerate(rows.items())}
            weights += [of_rows[o] for o in owner.tolist()]
        flat = [row for k in KEYS for row in lists[k]]
        kjt = KeyedJaggedTensor(
            KEYS,
            torch.tensor([i for row in flat for i in row], dtype=torch.int32),
            weights=torch.tensor([w for row in weights for w in row], dtype=torch.float32) if weighted else None,
            lengths=torch.tensor([len(row) for row in flat], dtype=torch.int32),
        )
        labels = torch.tensor(random.normal(size=(num_samples, 1)), dtype=torch.float32)
        ids = torch.arange(num_samples)
        out.append(Batch(deduplicate(kjt, GROUPS), {}, labels, ids, ids))
    return out


# --- our training, on every rank -------------------------------------------------------------------------------------


def build_model(
    ranks: Ranks,
    dedup: bool,
    sharding: object,
    optimizer: str,
    options: dict[str, object],
    weighted: bool = False,
    kernel: LookupKernel = "auto",
) -> tuple[nn.Module, object]:
    embeddings = Embeddings(schema_of(weighted), TABLES, dedup=dedup, device="meta", **options)
    plan = place_tables(embeddings, World(ranks.world_size, ranks.local_world_size), sharding)
    tables = TableOptimizer(optimizer, lr=LR[optimizer], kernel=kernel)
    model = shard(Model(embeddings), plan, ranks, tables)
    initialize_tables(model, seed=1)
    dense = KeyedOptimizerWrapper(dense_parameters(model), lambda params: torch.optim.SGD(params, lr=HEAD_LR))
    return model, combine_optimizers(model, dense, tables)


def weight_parts(tensors: dict[str, Tensor]) -> list[tuple[str, int, int, np.ndarray]]:
    return [
        (name, row, column, part.numpy().copy())
        for name, tensor in tensors.items()
        for part, row, column in local_shards(tensor)
    ]


def optimizer_states(model: nn.Module, optimizer: object) -> list[tuple[str, int, int, np.ndarray]]:
    """The optimizer state of the tables in the shape of the weights: the state of a row stands in all its columns."""
    weights, shards = table_weights(model), []
    for name, state in optimizer.state_dict()["state"].items():
        if portable_name(name) == name:
            continue
        table = portable_name(name).split(".")[-2]
        (value,) = [v for k, v in state.items() if k.rpartition(".")[2] in ("momentum1", "sum")] or [None]
        if value is None:
            continue
        own = [s.tensor for s in value.local_shards()] if isinstance(value, ShardedTensor) else [value]
        for (weight, row, column), part in zip(local_shards(weights[table]), own, strict=True):
            shaped = part.detach().reshape(len(weight), -1).expand(weight.shape)
            shards.append((table, row, column, shaped.numpy().copy()))
    return shards


def train(
    ranks: Ranks,
    dedup: bool,
    sharding: object,
    optimizer: str,
    num_steps: int = STEPS,
    sizes: tuple[int, ...] = (9, 14, 5, 8),
    options: dict[str, object] | None = None,
    pipelined: bool = False,
    longest: int | tuple[int, ...] = 4,
) -> dict[str, object]:
    """Trains a few steps and returns outputs, losses, weights and optimizer states of this rank."""
    options = {"sequence_features": ["clicks"], **(options or {})}
    weighted, histories = bool(options.pop("weighted", False)), options.pop("histories", None)
    model, optimizer_ = build_model(ranks, dedup, sharding, optimizer, options, weighted)
    before = weight_parts(table_weights(model))
    data = batches(ranks.rank, num_steps, sizes[ranks.rank], longest, weighted, histories is not None)
    if histories == "windows":
        data = [replace(b, sparse=find_windows(b.sparse)) for b in data]
    data = data if dedup else [b.expand() for b in data]
    outputs, num_pipelined = [], 0
    num_sharded = sum(isinstance(m, ShardedModule) for m in model.module.embeddings.modules())
    if pipelined:
        Pipelineable.register(Batch)
        pipeline = TrainPipelineSparseDist(model, optimizer_, ranks.device, pipeline_postproc=True)
        stream = iter(data)
        outputs = [pipeline.progress(stream) for _ in data]
        num_pipelined = len(pipeline._pipelined_modules)
    else:
        for batch in data:
            optimizer_.zero_grad()
            loss, output = model(batch)
            loss.backward()
            optimizer_.step()
            outputs.append(output)
    return {
        "outputs": [o.numpy() for o, _ in outputs], "losses": [float(v) if v.numel() == 1 else 0.0 for _, v in outputs],
        "before": before, "after": weight_parts(table_weights(model)), "states": optimizer_states(model, optimizer_),
        "head": model.module.head.layer.weight.detach().numpy().copy(),
        "pipelined": num_pipelined, "sharded": num_sharded,
    }  # fmt: skip


def train_by_turns(
    ranks: Ranks, directory: Path, kernels: list[LookupKernel], sharding: object, optimizer: str, weighted: bool
) -> dict[str, object]:
    """Trains six steps with each kernel, from the checkpoint of the one before."""
    data, losses, used = batches(ranks.rank, 6 * len(kernels), 9 + 5 * ranks.rank, weighted=weighted), [], []
    schema = schema_of(weighted)
    for turn, kernel in enumerate(kernels):
        options = {"sequence_features": ["clicks"]}
        model, states = build_model(ranks, True, sharding, optimizer, options, weighted, kernel)
        used.append({type(k) is RowLookup for u, k in model.module.embeddings._kernels.items() if u[1] != "DP"})
        if turn:
            checkpoint.load(directory / f"step-{turn:08d}", model, states, schema, rename=portable_name)
        for batch in data[6 * turn : 6 * turn + 6]:
            states.zero_grad()
            loss, _ = model(batch)
            loss.backward()
            states.step()
            losses.append(float(loss.detach()))
        checkpoint.save(directory, turn + 1, model, states, schema, rename=portable_name)
    tables = weight_parts(table_weights(model))
    return {"losses": losses, "after": tables, "states": optimizer_states(model, states), "ours": used}


def join_parts(results: list[dict[str, object]], what: str) -> dict[str, np.ndarray]:
    """Joins the shards of all ranks to whole tables."""
    tables = {t.name: np.full((t.num_embeddings, t.dim), np.nan) for t in TABLES.values()}
    for result in results:
        for name, row, column, part in result[what]:
            tables[name][row : row + part.shape[0], column : column + part.shape[1]] = part
    return tables


# --- the judge -------------------------------------------------------------------------------------------------------


class JudgeModel(nn.Module):
    """The judge's model: torch's own embedding_bag sums each sample's own copy of its rows, in float64."""

    def __init__(self, weights: dict[str, Tensor], mean: bool, splits: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        chunks = {name: w.double().split(splits.get(name, w.shape[1]), dim=1) for name, w in weights.items()}
        self.shards = nn.ModuleDict(
            {n: nn.ParameterList(nn.Parameter(c.clone()) for c in cs) for n, cs in chunks.items()}
        )
        self.head = Head().double()
        self.mean = mean

    def forward(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        sparse, pooled, tables = batch.sparse.expand(), {}, self.weights()
        for f in SCHEMA.sparse:
            lengths, weights = sparse.lengths_of(f.name).long(), sparse.weights_of(f.name)
            weights = None if weights is None else weights.double()
            bags = [sparse.values_of(f.name).long(), tables[f.table], torch.cumsum(lengths, 0) - lengths]
            pooled[f.name] = nn.functional.embedding_bag(*bags, mode="sum", per_sample_weights=weights)
            if self.mean and f.name != "clicks":  # the head sums what comes un-pooled
                pooled[f.name] = pooled[f.name] / lengths.clamp(min=1)[:, None]
        joined = Grouped(torch.cat([pooled[k] for k in KEYS], 1), None, tuple(KEYS), tuple(map(dim, KEYS)))
        return self.head(Embedded({"sample": joined}, {}), batch)

    def weights(self) -> dict[str, Tensor]:
        return {name: torch.cat(list(shards), 1) for name, shards in self.shards.items()}


def dim(feature: str) -> int:
    return TABLES[SCHEMA[feature].table].dim


@cache
def run_judge(
    optimizer: str,
    num_steps: int,
    sizes: tuple[int, ...],
    pooling: str,
    weighted: bool,
    longest: int | tuple[int, ...],
    splits: tuple[tuple[str, tuple[int, ...]], ...],
) -> dict[str, object]:
    """Runs the same training in float64 on one process, every sample with its own copy of its rows.

    ``splits`` has the widths of each table's column shards, because row-wise Adagrad keeps a state for each row of a
    shard.
    """
    embeddings = Embeddings(SCHEMA, TABLES)
    initialize_tables(embeddings, seed=1)
    weights = {n: w.detach().clone() for n, w in table_weights(embeddings).items()}
    model = JudgeModel(weights, pooling == "mean", dict(splits))
    tables = list(model.shards.parameters())
    classes = {
        "sgd": lambda: torch.optim.SGD(tables, lr=LR["sgd"]),
        "adagrad": lambda: torch.optim.Adagrad(tables, lr=LR["adagrad"], eps=1e-8),
        "rowwise_adagrad": lambda: RowWiseAdagrad(tables, lr=LR["rowwise_adagrad"], eps=1e-8),
    }
    steppers = [classes[optimizer](), torch.optim.SGD(model.head.parameters(), lr=HEAD_LR)]
    data = [batches(r, num_steps, s, longest, weighted) for r, s in enumerate(sizes)]
    outputs = [[] for _ in sizes]
    losses = [[] for _ in sizes]
    for step in range(num_steps):
        for each in steppers:
            each.zero_grad()
        for rank in range(len(sizes)):
            loss, (joined, _) = model(data[rank][step])
            (loss / len(sizes)).backward()
            outputs[rank].append(joined.numpy())
            losses[rank].append(float(loss.detach()))
        for each in steppers:
            each.step()
    after = {n: w.detach().numpy() for n, w in model.weights().items()}
    state = {}
    for name, shards in model.shards.items() if optimizer != "sgd" else ():
        sums = [steppers[0].state[p]["sum"].reshape(len(p), -1).expand(p.shape) for p in shards]
        state[name] = torch.cat(sums, 1).numpy()
    before = {n: w.numpy() for n, w in weights.items()}
    return {"before": before, "after": after, "outputs": outputs, "losses": losses, "states": state}


def assert_judged(
    results: list[dict[str, object]],
    optimizer: str,
    num_steps: int = STEPS,
    sizes: tuple[int, ...] = (9, 14),
    pooling: str = "sum",
    weighted: bool = False,
    longest: int | tuple[int, ...] = 4,
    tolerance: float = 1e-5,
    sharding: object = "TW",
) -> None:
    """Asserts that outputs, losses, weights and optimizer states are the judge's, and that every table has moved."""
    splits = column_shards(sharding, len(sizes)) if optimizer == "rowwise_adagrad" else ()
    want = run_judge(optimizer, num_steps, sizes, pooling, weighted, longest, splits)
    for name, weight in join_parts(results, "before").items():
        np.testing.assert_array_equal(weight, want["before"][name], err_msg=name)
    for result, outputs, losses in zip(results, want["outputs"], want["losses"], strict=True):
        for step, (x, y) in enumerate(zip(result["outputs"], outputs, strict=True)):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"step {step}")
        np.testing.assert_allclose(result["losses"], losses, rtol=10 * tolerance, atol=tolerance)
    for name, weight in join_parts(results, "after").items():
        np.testing.assert_allclose(weight, want["after"][name], rtol=tolerance, atol=tolerance, err_msg=name)
        if num_steps >= STEPS:
            assert np.abs(weight - want["before"][name]).max() > 1e-3, f"{name} did not move"
    for name, state in join_parts(results, "states").items() if optimizer != "sgd" else ():
        np.testing.assert_allclose(state, want["states"][name], rtol=10 * tolerance, atol=tolerance, err_msg=name)


def column_shards(sharding: object, world_size: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The widths of the column shards of each table."""
    embeddings = Embeddings(SCHEMA, TABLES, sequence_features=["clicks"], device="meta")
    placement = read_placement(place_tables(embeddings, World(world_size, 2), sharding))
    spans = {t: dict(sorted({(s.column, s.num_columns) for s in p.shards})) for t, p in placement.items()}
    return tuple((t, tuple(columns.values()) or (TABLES[t].dim,)) for t, columns in spans.items())
