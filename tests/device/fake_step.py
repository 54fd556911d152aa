"""One training step on a device that does not exist: the code runs, kernels do not, and every operator is judged.

Torch's FakeTensorMode computes shapes, dtypes and devices, and refuses what the host could only know by waiting for the
device. Without CUDA builds the device is ``meta``, which takes the same branches as CUDA and whose backward pass runs;
with them it is ``cuda``, and fbgemm's own lookup takes part (its backward pass wants a driver).

The ranks are imagined too: all of them have the same batch, so that what the others send follows from this rank's own.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torchrec.distributed.types import ShardingEnv
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.distribute import TableOptimizer
from recd_dist.embedding.exchange import inputs
from recd_dist.embedding.exchange.classes import join_tensors
from recd_dist.embedding.exchange.unit_rows import unit_rows
from recd_dist.embedding.sharded_embeddings import EmbeddingsSharder, ShardedEmbeddings
from recd_dist.embedding.tables import Embeddings
from recd_dist.metrics.moving_mean import MovingMean
from recd_dist.model.loss import TaskLosses
from recd_dist.model.models import build_named_model, sequence_features
from recd_dist.model.task import LOSSES, Task
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.health.release_lines import CUDA_BUILD, installed_versions
from recd_dist.table.schema import Feature, Kind, Schema, Table
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.find_windows import find_windows
from recd_dist.tensors.host_side import constant, host_integers
from recd_dist.tensors.ikjt import IKJT, GroupLayout
from recd_dist.train import build
from recd_dist.train.build import Head

DEVICE = torch.device("cuda:0" if CUDA_BUILD in installed_versions() and torch.version.cuda else "meta")
"""``cuda`` where both are CUDA builds: pip may find a CUDA build of torch only, for fbgemm-gpu's CPU build."""

DIM = 8
# The loss in_batch reads ids of items and numbers of other ranks on the host: it waits, and docs/gpu.md says so.
TASKS = [Task(loss, "label", loss) for loss in LOSSES if loss != "in_batch"]
SCHEMA = Schema(
    (
        Feature("history", Kind.ids, "user", "item"),  # its candidate looks up the same table
        Feature("seen", Kind.ids, "user", "page"),  # a history without a candidate
        Feature("city", Kind.id, "user", "city"),
        Feature("age", Kind.dense, "user", None),
        Feature("tags", Kind.ids, "request", "tag"),
        Feature("hour", Kind.dense, "request", None),
        Feature("candidate", Kind.id, "sample", "item"),
        Feature("place", Kind.ids, "sample", "place"),
        Feature("price", Kind.dense, "sample", None),
    )
)
TABLES = {t: Table(t, 64, DIM) for t in SCHEMA.tables}
NUM_ROWS = {"user": 4, "request": 8, "sample": 32}
SOURCE = "src/recd_dist/"
LIBRARY = "in a library:"


class DeviceGuard(TorchDispatchMode):
    """Judges every operator of a step.

    Args:
        device: where all tensors must lie.

    Attributes:
        wrong: what went wrong, with the line of the product.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.wrong = device, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, here = func.overloadpacket.__name__, self.device.type
        if name == "_local_scalar_dense" and args[0].device.type == "cpu" and LIBRARY in product_frame():
            return 2  # fbgemm's counter of steps, which lies on the host; a fake tensor has no value
        out = func(*args, **(kwargs or {}))
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        before = {t.device.type for t in flat if isinstance(t, Tensor) and t.dim()}
        after = {t.device.type for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor) and t.dim()}
        if here in before and "cpu" in after:
            self._report(f"{name} copies from the device to the host")
        elif "cpu" in before and here in after:
            if name != "_to_copy" or not getattr(args[0], "is_in_locked_memory", False) or not kwargs["non_blocking"]:
                self._report(f"{name} copies to the device, and the host waits for it")
        elif (
            "cpu" in before | after and not product_frame().endswith("host_integers") and LIBRARY not in product_frame()
        ):
            self._report(f"{name} computes on the host")
        return out

    def _report(self, what: str) -> None:
        self.wrong.append(f"{what}: {product_frame()}")


def product_frame() -> str:
    """The innermost function of the product that is running: file, line and name."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/fbgemm_gpu/" in path or "/torchrec/metrics/" in path:
            return f"{LIBRARY} {path}"
        if SOURCE in path:
            return f"{path.partition(SOURCE)[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "not in the product"


def schema_of(weighted: bool) -> Schema:
    """The schema; two features have weights if they are asked for."""
    names = ("history", "place") if weighted else ()
    return Schema(tuple(replace(f, weights=f"{f.name}_w") if f.name in names else f for f in SCHEMA.features))


def random_batch(weighted: bool = False) -> Batch:
    """32 samples of 8 requests of 4 users, on the host."""
    random = torch.Generator().manual_seed(0)
    groups = tuple(GroupLayout(g, SCHEMA.sparse_of(g), NUM_ROWS[g]) for g in SCHEMA.groups)
    lengths = [
        torch.ones(NUM_ROWS[g.name], dtype=torch.int32)
        if SCHEMA[key].kind is Kind.id
        else torch.randint(0, 9, (NUM_ROWS[g.name],), generator=random, dtype=torch.int32)
        for g in groups
        for key in g.keys
    ]
    offsets = (0, *torch.cumsum(torch.stack([n.sum() for n in lengths]), 0).tolist())
    sparse = IKJT(
        groups,
        NUM_ROWS["sample"],
        torch.randint(0, 64, (offsets[-1],), generator=random, dtype=torch.int32),
        torch.cat(lengths),
        torch.cat([torch.arange(32, dtype=torch.int32) // (32 // NUM_ROWS[g.name]) for g in groups[:-1]]),
        offsets,
        torch.rand(offsets[-1], generator=random) if weighted else None,
    )
    dense = {g: torch.rand(NUM_ROWS[g], 1, generator=random) for g in SCHEMA.groups}
    return Batch(sparse, dense, torch.ones(32, 1), torch.arange(32), torch.arange(32) // 4)


def with_windows(batch: Batch) -> Batch:
    """The batch with histories that shift by one id, as windows."""
    sparse = batch.sparse
    lists = [
        torch.cat([torch.arange(r, r + n) for r, n in enumerate(sparse.lengths_of(k).tolist())]) for k in sparse.keys
    ]
    values = torch.cat(lists).to(sparse.values.dtype)
    weights = None if sparse.weights is None else values / 64
    shared = find_windows(replace(sparse, values=values, weights=weights), ["history", "seen", "tags", "place"])
    assert len(shared.windows) == 4
    return replace(batch, sparse=shared)


@contextmanager
def imagined_ranks(world_size: int) -> Iterator[None]:
    """A process group of ranks that are not there; its all-to-all looks at what it is given, and moves nothing."""

    class Done:
        def wait(self) -> None:
            pass

    def all_to_all_single(
        output: Tensor,
        input: Tensor,
        output_split_sizes: list[int] | None = None,
        input_split_sizes: list[int] | None = None,
        group: Any = None,
        async_op: bool = False,
    ) -> Done | None:
        for tensor, sizes in ((output, output_split_sizes), (input, input_split_sizes)):
            if tensor.device != DEVICE:
                raise AssertionError(
                    f"a collective of the device is given a tensor on {tensor.device}: {product_frame()}"
                )
            if not tensor.is_contiguous() or (
                sizes is not None and (len(sizes) != group.size() or sum(sizes) != len(tensor))
            ):
                raise AssertionError(
                    f"a collective is given {tuple(tensor.shape)} for sizes {sizes}: {product_frame()}"
                )
        return Done() if async_op else None

    original = dist.all_to_all_single
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    dist.all_to_all_single = all_to_all_single
    try:
        yield
    finally:
        dist.all_to_all_single = original
        dist.destroy_process_group()


class PlainLookup(nn.Module):
    """Stands for fbgemm's lookup where there are no CUDA builds: sums the ids of each row.

    Args:
        num_columns: columns of each key.
    """

    def __init__(self, num_columns: tuple[int, ...]) -> None:
        super().__init__()
        self.num_columns = num_columns
        self.weight = nn.Parameter(torch.empty(64, sum(num_columns), device=DEVICE))

    def forward(self, kjt: KeyedJaggedTensor) -> Tensor:
        lengths = kjt.lengths()
        starts = torch.cumsum(lengths, 0) - lengths
        sums = F.embedding_bag(
            kjt.values().long(), self.weight, starts, mode="sum", per_sample_weights=kjt.weights_or_none()
        )
        by_key = sums.view(len(kjt.keys()), kjt.stride(), sums.shape[1]).split(1)
        return torch.cat([s[0, :, :n] for s, n in zip(by_key, self.num_columns, strict=True)], 1)


class ImaginedGroup:
    """The ranks of a host."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return 0


@dataclass
class FakeStep:
    """A model whose tables are sharded over imagined ranks, on a device that does not exist.

    Args:
        model: name of the model.
        sharding: what the config asks for.
        world_size, host_size: number of ranks, and of those on a host.
        options: of the embeddings.
        model_options: of the model.
        weighted: whether ids have weights.
        windows: whether rows of lists are windows.
    """

    model: str
    sharding: Any
    world_size: int = 2
    host_size: int = 2
    options: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)
    weighted: bool = False
    windows: bool = False

    def __post_init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.schema = schema_of(self.weighted)
        self.batch = with_windows(random_batch(self.weighted)) if self.windows else random_batch(self.weighted)
        self.batch.sparse.known_lengths_of("history")  # outside of the mode, inside which numpy would see no numbers
        constant.cache_clear()  # those of another mode are of no use
        env = ShardingEnv.from_process_group(dist.group.WORLD)
        with self.mode:
            self.embeddings = self._shard(env)
            with DEVICE:
                model = build_named_model(self.model, SCHEMA, DIM, len(TASKS), **self.model_options)
                self.head = Head(model, TaskLosses(TASKS, [0] * len(TASKS), over_ranks=True))
            self.mean = MovingMean()
        self.sizes = self._sizes()

    def _shard(self, env: ShardingEnv) -> ShardedEmbeddings:
        on_cuda = DEVICE.type == "cuda"
        world = World(self.world_size, self.host_size, "cuda" if on_cuda else "cpu")
        plan = place_tables(self._tables(), world, self.sharding).plan["embeddings"]
        sharder = EmbeddingsSharder(fused_params=TableOptimizer().fused_params())
        if on_cuda:
            return sharder.shard(self._tables(), plan, env, DEVICE)
        with unset_fake_temporarily():
            sharded = sharder.shard(self._tables(), plan, env, torch.device("cpu"))
        layout = sharded.layout
        units = [*(layout.units[n] for n in layout.local_units), *layout.replicated]
        columns = [u.widths(layout.rank) or (DIM,) * len(u.keys) for u in units]
        sharded._kernels = {(u.module, u.sharding): PlainLookup(c) for u, c in zip(units, columns, strict=True)}
        sharded._anchor = torch.zeros(1, device=DEVICE, requires_grad=True)
        for exchange in sharded.exchanges:
            exchange.anchor = sharded._anchor
        return sharded

    def _tables(self) -> Embeddings:
        names = sequence_features(self.model, self.schema)
        return Embeddings(self.schema, TABLES, sequence_features=names, device="meta", **self.options)

    def _sizes(self) -> NDArray[np.int64]:
        """The sizes that this rank sends and receives, from the batch on the host: all ranks have the same one."""
        layout, sparse = self.embeddings.layout, self.batch.sparse
        units = [unit_rows(sparse, unit) for unit in layout.units]
        rows, counts = np.array([u.num_rows for u in units]), join_tensors([u.counts for u in units])
        mine = inputs.message_on_host(layout, rows, counts, inputs.width_code(sparse.lengths)).numpy()
        return np.stack([mine, np.repeat(mine[layout.rank : layout.rank + 1], self.world_size, 0)])

    def run(self) -> list[str]:
        """A first step, in which constants of the plan are copied, and one that is judged.

        Returns:
            The places where the host read the device in the second step.
        """
        self._step()
        wrong, reads = self._step()
        if wrong:
            raise AssertionError("\n".join(wrong))
        return reads

    def _step(self) -> tuple[list[str], list[str]]:
        reads = list[str]()

        def read(tensor: Tensor) -> NDArray[np.int64]:
            reads.append(product_frame())
            return self.sizes

        def pin_memory(tensor: Tensor) -> Tensor:
            pinned = tensor.clone()
            pinned.is_in_locked_memory = True
            return pinned

        def number(batch: Batch, like: Tensor) -> Tensor:
            return host_integers(np.arange(batch.batch_size), like)  # it looks at numbers that lie on the host

        originals = inputs.host_array, Tensor.pin_memory, build.number_requests
        inputs.host_array, Tensor.pin_memory, build.number_requests = read, pin_memory, number
        try:
            with self.mode:
                batch = self.batch.to(DEVICE, non_blocking=True)
                with DeviceGuard(DEVICE) as guard:
                    self._compute(batch)
        finally:
            inputs.host_array, Tensor.pin_memory, build.number_requests = originals
        return guard.wrong, reads

    def _compute(self, batch: Batch) -> None:
        context = self.embeddings.create_context()
        looked_up = self.embeddings.input_dist(context, batch.sparse).wait().wait()
        vectors = self.embeddings.compute(context, looked_up)
        embedded = self.embeddings.output_dist(context, vectors).wait()
        loss, output = self.head(embedded, batch)
        if DEVICE.type != "cuda":
            loss.backward()
        self.mean.update(output.loss)
