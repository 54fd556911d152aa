"""The embedding part of a training step in three modes, on the same batches, from the same first weights.

::

    kjt   expanded KeyedJaggedTensor -> one EmbeddingBagCollection, sharded             -> [B, F * D]
    vbe   KJT of unique rows with inverse_indices -> the same module, which expands      -> [B, F * D]
    ours  IKJT -> Embeddings, sharded -> unique rows -> expand() of every group          -> [B, width] a group

A step is what a trainer pays for its tables: input exchange, lookup, output exchange, expansion, the backward pass and
the fused update. The loss is the sum of the outputs times fixed random numbers. The backward pass takes these numbers
as the gradient, so that no time goes into the loss. Tables are not split. The first ones lie on rank 0 and the next
ones on rank 1, in the order of the keys, so that TorchRec has nothing to permute.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed import sharding_plan
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.distribute import TableOptimizer, shard
from recd_dist.embedding.initial_weights import draw_weights, initialize_tables, local_shards
from recd_dist.embedding.tables import Embeddings
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.table.schema import SAMPLE, Feature, Kind, Schema, Table
from recd_dist.tensors.ikjt import IKJT, GroupLayout

SEED = 1
OPTIMIZER = TableOptimizer("rowwise_adagrad", lr=0.02)


@dataclass(frozen=True)
class Workload:
    """Tables and batches.

    Attributes:
        samples_per_session: the number of samples that share every list of the session's features.
        num_plain: the number of tables whose feature never repeats; they are spread over the ranks.
        num_tables: the number of tables; each has one feature.
        num_embeddings: the number of rows of each table.
        dim: the width of each table.
        batch_size: B, the number of samples in a rank's batch.
        num_ids: the number of ids in every list.
    """

    samples_per_session: int
    num_plain: int = 0
    num_tables: int = 8
    num_embeddings: int = 100_000
    dim: int = 64
    batch_size: int = 2048
    num_ids: int = 40

    @property
    def groups(self) -> dict[str, str]:
        """The group of each feature, in the order of the keys."""
        spacing = self.num_tables // self.num_plain if self.num_plain else 0
        plain = {n * spacing + spacing - 1 for n in range(self.num_plain)}
        return {f"f{n}": SAMPLE if n in plain else "session" for n in range(self.num_tables)}

    @property
    def schema(self) -> Schema:
        """The schema: a list of ids per table."""
        return Schema(tuple(Feature(f, Kind.ids, g, f"t{f[1:]}") for f, g in self.groups.items()))

    @property
    def tables(self) -> dict[str, Table]:
        """The tables, all of one size."""
        return {f"t{n}": Table(f"t{n}", self.num_embeddings, self.dim) for n in range(self.num_tables)}

    def ranks_of(self, world_size: int) -> dict[str, int]:
        """The rank of each table."""
        return {f"t{n}": n * world_size // self.num_tables for n in range(self.num_tables)}

    def batch(self, rank: int, number: int) -> IKJT:
        """The batch of a number on a rank: lists of random ids, int32, with a row per session."""
        generator = torch.Generator().manual_seed(1000 * rank + number)
        num_rows = {"session": self.batch_size // self.samples_per_session, SAMPLE: self.batch_size}
        layouts = [
            GroupLayout(name, tuple(f for f, g in self.groups.items() if g == name), num_rows[name])
            for name in dict.fromkeys(("session", SAMPLE))
            if name in self.groups.values()
        ]
        rows = sum(len(g.keys) * g.num_rows for g in layouts)
        offsets = [0]
        for layout in layouts:
            offsets += [offsets[-1] + (n + 1) * layout.num_rows * self.num_ids for n in range(len(layout.keys))]
        inverse = torch.arange(self.batch_size, dtype=torch.int32) // self.samples_per_session
        return IKJT(
            tuple(layouts),
            self.batch_size,
            torch.randint(self.num_embeddings, (rows * self.num_ids,), generator=generator, dtype=torch.int32),
            torch.full((rows,), self.num_ids, dtype=torch.int32),
            inverse if layouts[0].name == "session" else inverse[:0],
            tuple(offsets),
        )


class Mode:
    """One way to run the step.

    Args:
        model: the model that holds the tables, sharded.
        inputs: the model's input for each batch; they are used over and over.
        outputs: a function that runs the model on an input and returns blocks, float [B, width].
        columns: the features of each block, side by side.
        gradients: the gradient of each feature, float [B, D].

    Attributes:
        cpu_s: the processor time of this rank in ``steps`` so far, in seconds, over all threads.
        num_steps: the number of these steps.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Any],
        outputs: Callable[[nn.Module, Any], list[Tensor]],
        columns: Sequence[Sequence[str]],
        gradients: dict[str, Tensor],
    ) -> None:
        self.model, self.inputs, self.columns = model, list(inputs), columns
        self._outputs = outputs
        self.gradients = [torch.cat([gradients[f] for f in features], 1) for features in columns]
        self._next = cycle(self.inputs)
        self.cpu_s, self.num_steps = 0.0, 0

    def step(self) -> None:
        """Does one step on the next batch."""
        torch.autograd.backward(self._outputs(self.model, next(self._next)), self.gradients)

    def steps(self, num_steps: int) -> float:
        """Does a number of steps; returns the seconds from all ranks being ready to all ranks being done."""
        _wait_for_all()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(num_steps):
            self.step()
        self.cpu_s += time.process_time() - cpu
        self.num_steps += num_steps
        _wait_for_all()
        return time.perf_counter() - start

    def vectors(self, number: int) -> dict[str, Tensor]:
        """The vectors of each feature on a batch, [B, D] by name, without training."""
        with torch.no_grad():
            blocks = self._outputs(self.model, self.inputs[number])
        return {
            f: part
            for block, features in zip(blocks, self.columns, strict=True)
            for f, part in zip(features, block.chunk(len(features), 1), strict=True)
        }

    def weights(self) -> dict[str, Tensor]:
        """Copies of this rank's parts of the tables."""
        state = self.model.state_dict().items()
        return {_table(n): part.clone() for n, w in state if n.endswith(".weight") for part, _, _ in local_shards(w)}


class Holder(nn.Module):
    """Puts the tables inside a model, as TorchRec needs for sharding."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, inputs: Any) -> Any:
        """The output of the tables."""
        return self.embeddings(inputs)


def build_modes(workload: Workload, ranks: Ranks, num_batches: int, names: Sequence[str]) -> dict[str, Mode]:
    """Builds modes alike, with the same batches, first weights and gradients.

    Args:
        workload: the tables and batches.
        ranks: this rank.
        num_batches: how many batches to hold in memory, in the form that each mode takes.
        names: the modes to build, of ``kjt int64``, ``kjt int32``, ``vbe``, ``ours`` and ``fbgemm``, which is ours
            with fbgemm's lookup.
    """
    batches = [workload.batch(ranks.rank, n).to(ranks.device) for n in range(num_batches)]
    keys = list(workload.groups)
    generator = torch.Generator().manual_seed(ranks.rank)
    shape = workload.batch_size, workload.dim
    gradients = {f: torch.randn(shape, generator=generator).to(ranks.device) for f in keys}
    modes = {}
    for name in names:
        if name in ("ours", "fbgemm"):
            parts = [list(g.keys) for g in batches[0].groups]
            optimizer = OPTIMIZER if name == "ours" else replace(OPTIMIZER, kernel="fbgemm")
            modes[name] = Mode(_build_ours(workload, ranks, optimizer), batches, _expand_groups, parts, gradients)
            continue
        converters = {"vbe": _as_vbe, "kjt int32": _as_kjt, "kjt int64": _as_long_kjt}
        inputs = [converters[name](batch, keys) for batch in batches]
        modes[name] = Mode(_build_torchrec(workload, ranks), inputs, _keyed_values, [keys], gradients)
    return modes


def check_modes(modes: dict[str, Mode], num_steps: int) -> float:
    """Refuses modes that do not train alike: compares outputs first, then the weights after some steps.

    Returns:
        The largest difference of a weight, relative to how far the weights moved.
    """
    first, *others = modes.values()
    for number in range(len(first.inputs)):
        expected = first.vectors(number)
        for other in others:
            for name, vector in other.vectors(number).items():
                torch.testing.assert_close(vector, expected[name], rtol=1e-5, atol=1e-6)
    before = first.weights()
    worst = 0.0
    for mode in modes.values():
        given = [gradient.clone() for gradient in mode.gradients]
        mode.steps(num_steps)
        if not all(map(torch.equal, given, mode.gradients)):
            raise RuntimeError("a mode writes to its gradients, so that they differ from the second step on")
    after = first.weights()
    for mode in modes.values():
        for table, weight in mode.weights().items():
            moved = float((after[table] - before[table]).abs().max())
            if not moved > 1e-3:
                raise RuntimeError(f"table {table} did not move: {moved}")
            worst = max(worst, float((weight - after[table]).abs().max()) / moved)
    if worst > 1e-4:
        raise RuntimeError(f"the modes do not train the same tables: weights differ by {worst:.1e} of their movement")
    return worst


def _build_torchrec(workload: Workload, ranks: Ranks) -> nn.Module:
    """Builds one EmbeddingBagCollection, sharded as TorchRec's documentation says."""
    configs = [
        EmbeddingBagConfig(
            name=t.name,
            embedding_dim=t.dim,
            num_embeddings=t.num_embeddings,
            feature_names=[f"f{t.name[1:]}"],
            pooling=PoolingType.SUM,
        )
        for t in workload.tables.values()
    ]
    bags = EmbeddingBagCollection(tables=configs, device=torch.device("meta"))
    sharder = EmbeddingBagCollectionSharder(fused_params=OPTIMIZER.fused_params())
    places = {
        t: sharding_plan.table_wise(rank=r, compute_kernel="fused")
        for t, r in workload.ranks_of(ranks.world_size).items()
    }
    plan = sharding_plan.construct_module_sharding_plan(
        bags, places, sharder, local_size=ranks.local_world_size, world_size=ranks.world_size,
        device_type=ranks.device.type,
    )  # fmt: skip
    model = DistributedModelParallel(
        module=Holder(bags),
        env=ShardingEnv.from_process_group(_world()),
        device=ranks.device,
        plan=ShardingPlan({"embeddings": plan}),
        sharders=[sharder],
    )
    for name, weight in model.state_dict().items():
        for part, row, column in local_shards(weight):
            rows, columns = (row, row + part.shape[0]), (column, column + part.shape[1])
            part.copy_(draw_weights(SEED, _table(name), *weight.shape, rows, columns))
    return model


def _build_ours(workload: Workload, ranks: Ranks, optimizer: TableOptimizer) -> nn.Module:
    """Builds Embeddings under the same plan."""
    embeddings = Embeddings(workload.schema, workload.tables, dedup=True, device="meta")
    places = {t: {"type": "TW", "ranks": [r]} for t, r in workload.ranks_of(ranks.world_size).items()}
    world = World(ranks.world_size, ranks.local_world_size, ranks.device.type)
    chosen = place_tables(embeddings, world, places)
    model = shard(Holder(embeddings), chosen, ranks, optimizer)
    initialize_tables(model, SEED)
    return model


# Every step makes a new input object from the same tensors. A reader yields new objects too, and what an object
# caches (offsets, layouts) must not carry over from one round to the next.
def _expand_groups(model: nn.Module, sparse: IKJT) -> list[Tensor]:
    pooled = model(replace(sparse)).pooled
    return [pooled[g.name].expand() for g in sparse.groups]


def _keyed_values(model: nn.Module, given: dict[str, Any]) -> list[Tensor]:
    return [model(KeyedJaggedTensor(**given)).values()]


def _as_kjt(sparse: IKJT, keys: list[str]) -> dict[str, Any]:
    """The arguments of the expanded KeyedJaggedTensor."""
    kjt = sparse.to_kjt(keys)
    return {
        "keys": keys,
        "values": kjt.values(),
        "lengths": kjt.lengths(),
        "stride": sparse.batch_size,
        "length_per_key": kjt.length_per_key(),
    }


def _as_long_kjt(sparse: IKJT, keys: list[str]) -> dict[str, Any]:
    """The arguments of the expanded KeyedJaggedTensor with int64 ids, which most TorchRec jobs have."""
    given = _as_kjt(sparse, keys)
    return {**given, "values": given["values"].long(), "lengths": given["lengths"].long()}


def _as_vbe(sparse: IKJT, keys: list[str]) -> dict[str, Any]:
    """The arguments of TorchRec's variable-batch KeyedJaggedTensor: unique rows, and for each sample its row."""
    own_row = torch.arange(sparse.batch_size, device=sparse.values.device)
    inverses = {k: sparse.inverse_of(sparse.group_of(k)) for k in keys}
    return {
        "keys": keys,
        "values": torch.cat([sparse.values_of(k) for k in keys]),
        "lengths": torch.cat([sparse.lengths_of(k) for k in keys]),
        "stride_per_key_per_rank": [[sparse.num_rows(sparse.group_of(k))] for k in keys],
        "inverse_indices": (keys, torch.stack([own_row if i is None else i.long() for i in inverses.values()])),
        "length_per_key": [sparse.num_values(k) for k in keys],
    }


def _table(name: str) -> str:
    """``embeddings.embedding_bags.t3.weight`` -> ``t3``."""
    return name.split(".")[-2]


def _world() -> dist.ProcessGroup:
    group = dist.GroupMember.WORLD
    if group is None:
        raise RuntimeError("no process group")
    return group


def _wait_for_all() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    dist.barrier()
