"""The parts of benchmarks/gpu.py, each a process of its own.

The baseline runs in the same process and by turns with ours: plain TorchRec on expanded batches (``dedup=off``).
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import measure
import torch
import torch.distributed as dist
from gpu_batches import SAMPLES_PER_ROW, SHAPES, Shape, random_batch, schema_of, tables_of
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.optim.keyed import KeyedOptimizerWrapper
from torchrec.streamable import Pipelineable

from recd_dist.embedding.distribute import TableOptimizer, combine_optimizers, dense_parameters, shard
from recd_dist.embedding.exchange.distinct import distinct_ids
from recd_dist.embedding.initial_weights import initialize_tables, local_shards
from recd_dist.embedding.tables import Embeddings, table_weights
from recd_dist.model.attention import TargetAttention
from recd_dist.model.loss import TaskLosses
from recd_dist.model.models import build_named_model, sequence_features
from recd_dist.model.task import Task
from recd_dist.plan.probe import build_table
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.table.schema import Table
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.expansion import expand_rows
from recd_dist.tensors.grouped import GroupedJagged
from recd_dist.tensors.ikjt import IKJT
from recd_dist.tensors.levels import Levels
from recd_dist.tensors.shared import expand


class Head(nn.Module):
    """Dense layers and loss; the pipeline's tracer does not look inside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.losses = model, TaskLosses([Task("label", "label")], [0])

    def forward(self, embedded: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the same without a graph."""
        logits = self.model(embedded, {group: batch.dense_of(group) for group in batch.dense})
        loss, _ = self.losses(logits, batch.labels[:, :1], self.losses.count(batch.labels[:, :1]))
        return loss, loss.detach()


class Model(nn.Module):
    """Tables, then the head."""

    def __init__(self, embeddings: Embeddings, head: Head) -> None:
        super().__init__()
        self.embeddings, self.head = embeddings, head

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the same without a graph."""
        return self.head(self.embeddings(batch.sparse), batch)


class Trainer:
    """One mode of training on batches that lie in the host's memory, page-locked where there is a GPU."""

    def __init__(self, shape: Shape, tables: dict[str, Table], ranks: Ranks, batches: Sequence[Batch], dedup: bool):
        schema = schema_of(shape)
        self.device, self.losses = ranks.device, list[Tensor]()
        embeddings = Embeddings(
            schema, tables, sequence_features=sequence_features(shape.model, schema), dedup=dedup, device="meta"
        )
        world = World(ranks.world_size, ranks.local_world_size, ranks.device.type)
        torch.manual_seed(0)
        head = Head(build_named_model(shape.model, schema, shape.dim))
        optimizer = TableOptimizer(lr=0.01)
        self.model = shard(Model(embeddings, head), place_tables(embeddings, world, "table_wise"), ranks, optimizer)
        initialize_tables(self.model, seed=0)
        dense = KeyedOptimizerWrapper(dense_parameters(self.model), lambda ps: torch.optim.SGD(ps, lr=0.01))
        for kind in (Batch, IKJT):
            Pipelineable.register(kind)
        both = combine_optimizers(self.model, dense, optimizer)
        self.pipeline = TrainPipelineSparseDist(self.model, both, ranks.device, pipeline_postproc=True)
        own = batches if dedup else [b.expand() for b in batches]
        self.batches = cycle([b.pin_memory() for b in own] if self.device.type == "cuda" else own)

    def steps(self, num_steps: int) -> float:
        """Trains; returns seconds a step."""
        self.losses.append(self.pipeline.progress(self.batches))
        synchronize(self.device)
        start = time.perf_counter()
        self.losses += [self.pipeline.progress(self.batches) for _ in range(num_steps)]
        synchronize(self.device)
        return (time.perf_counter() - start) / num_steps

    def weights(self) -> dict[str, Tensor]:
        """For each table that lies here its weight, on the host."""
        found = table_weights(self.model)
        return {t: part.float().cpu().clone() for t, w in found.items() for part, _, _ in local_shards(w)}


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def bounds(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest of some numbers."""
    ordered = sorted(values)
    return {"median": ordered[len(ordered) // 2], "low": ordered[0], "high": ordered[-1]}


def fastest(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some blocks of calls."""
    best, calls = float("inf"), 3
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def step(name: str, ranks: Ranks, quick: bool) -> dict[str, Any]:
    """The training step with deduplication and without, by turns; memory of each, one after the other."""
    shape = SHAPES[name].quick() if quick else SHAPES[name]
    tables, on_cuda = tables_of(shape, 2000 if quick else 500_000), ranks.device.type == "cuda"
    batches = [random_batch(shape, tables, 100 * ranks.rank + n) for n in range(2 if quick else 4)]
    peaks, modes = list[float](), list[Trainer]()
    for dedup in (True, False):
        before = torch.cuda.memory_allocated() if on_cuda else 0
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        modes.append(Trainer(shape, tables, ranks, batches, dedup))
        modes[-1].steps(3)
        if on_cuda:
            peaks.append((torch.cuda.max_memory_allocated() - before) / 2**30)
    sides = [lambda m=m: m.steps(3 if quick else 10) for m in modes]
    pairs = measure.alternate(*sides, 3)
    pairs += measure.alternate(*sides, num_more(pairs, 1 if quick else 12, ranks.device))
    ours, plain = (torch.stack(m.losses).tolist() for m in modes)
    return {
        "shape": asdict(shape),
        "samples_per_row": SAMPLES_PER_ROW,
        "ours_ms": bounds(1e3 * a for a, _ in pairs),
        "baseline_ms": bounds(1e3 * b for _, b in pairs),
        "ratio": bounds(b / a for a, b in pairs),
        "peak_gib": dict(zip(("ours", "baseline"), peaks, strict=False)),
        "loss_difference": max(abs(a - b) / abs(b) for a, b in zip(ours[:4], plain[:4], strict=True)),
    }


def num_more(pairs: Sequence[measure.Pair], most: int, device: torch.device) -> int:
    """How many more pairs of ten steps to measure, on all ranks the same: as many as fit into half a minute."""
    fit = torch.tensor(int(30 / (10 * max(a + b for a, b in pairs))), device=device)
    dist.all_reduce(fit, dist.ReduceOp.MIN)
    return min(most, int(fit))


def exact(ranks: Ranks, quick: bool) -> dict[str, Any]:
    """Trains few small steps, with deduplication and without: the largest differences, and the losses."""
    del quick
    found: dict[str, Any] = {}
    for name, each in SHAPES.items():
        shape = each.quick()
        tables = tables_of(shape, 2000)
        batches = [random_batch(shape, tables, n) for n in range(4)]
        ours, plain = (Trainer(shape, tables, ranks, batches, dedup) for dedup in (True, False))
        first = ours.weights()
        for trainer in (ours, plain):
            trainer.steps(7)
        weights, other = ours.weights(), plain.weights()
        found[name] = {
            "on_off_loss": greatest(ours.losses, plain.losses),
            "on_off_weights": max(float((weights[t] - other[t]).abs().max()) for t in weights),
            "tables_that_moved": sum(bool((weights[t] != first[t]).any()) for t in weights),
            "tables": len(weights),
            "losses": [float(loss) for loss in ours.losses],
        }
    return found


def greatest(ours: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest relative difference of two lists of losses."""
    return max(abs(float(a) - float(b)) / abs(float(b)) for a, b in zip(ours, others, strict=True))


def kernels(ranks: Ranks, quick: bool) -> dict[str, Any]:
    """Kernels of the step: milliseconds, and how many times the time that their bytes need to be copied."""
    device, repeats = ranks.device, 3 if quick else 20
    size, dim, rows = (2048, 64, 256) if quick else (65536, 128, 8192)
    block = torch.empty((4 if quick else 256) << 20, dtype=torch.uint8, device=device)
    copy = torch.empty_like(block)
    bandwidth = 2 * len(block) / fastest(lambda: copy.copy_(block), device, repeats)
    table, num_ids = build_table(dim, device), 8 * size
    ids = torch.randint(10_000, (num_ids,), dtype=torch.int64, device=device)
    offsets = torch.arange(0, num_ids + 1, 8, device=device)
    small_ids = ids.int()
    unique = torch.randn(rows, dim * 4, device=device, requires_grad=True)
    inverse, gradient = (
        (torch.arange(size, device=device) // (size // rows)).int(),
        torch.ones(size, dim * 4).to(device),
    )
    moved = (rows + size) * dim * 16  # bytes of an expansion
    cases: dict[str, tuple[Callable[[], object], float]] = {
        "lookup": (lambda: table(ids, offsets), num_ids * (8 + dim * 4) + size * dim * 4),
        "distinct ids": (lambda: distinct_ids(small_ids, 1 << 30, 1), num_ids * (4 + 8)),
        "torch.unique (baseline)": (lambda: torch.unique(small_ids, return_inverse=True), num_ids * (4 + 8)),
        "expand, there and back": (
            lambda: torch.autograd.grad(expand_rows(unique, inverse), unique, gradient),
            2 * moved,
        ),
        "index_select, there and back (baseline)": (
            lambda: torch.autograd.grad(unique.index_select(0, inverse), unique, gradient),
            2 * moved,
        ),
        "expand": (lambda: expand_rows(unique, inverse), moved),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (work, needed) in cases.items():
        try:
            seconds = fastest(work, device, repeats)
        except RuntimeError as error:  # the other kernels are still worth their time
            found[name] = {"failed": f"failed: {str(error).partition(chr(10))[0]}"}
        else:
            found[name] = {"ms": 1e3 * seconds, "times_the_floor": seconds * bandwidth / needed}
    return {"bandwidth_GB_s": bandwidth / 1e9, "kernels": found}


def attention(ranks: Ranks, quick: bool) -> dict[str, Any]:
    """Target attention on unique rows against expanded histories, forward and backward."""
    device = ranks.device
    rows, length, dim = (16, 12, 16) if quick else (512, 180, 64)
    size = rows * SAMPLES_PER_ROW
    lengths = torch.full((rows,), length, dtype=torch.int32, device=device)
    inverse = (torch.arange(size, device=device) // SAMPLES_PER_ROW).int()
    known = lengths.cpu().numpy(), inverse.cpu().numpy()
    values = torch.randn(rows * length, dim, device=device, requires_grad=True)
    candidates = torch.randn(size, dim, device=device)
    target = TargetAttention(dim, 2).to(device)
    history = GroupedJagged(values, lengths, inverse, *known)
    full = history.expand()
    leaf = full.values.detach().requires_grad_()

    def ours() -> None:
        level = Levels().find(inverse, rows, known[1])
        expand(target(replace(history, level=level), candidates)).sum().backward()

    def expanded() -> None:
        expand(target(full.with_values(leaf), candidates)).sum().backward()

    repeats = 2 if quick else 10
    pairs = measure.alternate(lambda: fastest(ours, device, 1), lambda: fastest(expanded, device, 1), repeats)
    return {
        "ours_ms": bounds(1e3 * a for a, _ in pairs),
        "baseline_ms": bounds(1e3 * b for _, b in pairs),
        "ratio": bounds(b / a for a, b in pairs),
    }


def collectives(ranks: Ranks, quick: bool) -> dict[str, Any]:
    """All-to-all between the ranks, of NCCL where there are GPUs: bytes a second that each rank sends."""
    size = (1 if quick else 64) << 20
    sent = torch.ones(size // ranks.world_size * ranks.world_size, dtype=torch.uint8, device=ranks.device)
    received = torch.empty_like(sent)
    seconds = fastest(lambda: dist.all_to_all_single(received, sent), ranks.device, 3 if quick else 10)
    return {
        "backend": dist.get_backend(),
        "ranks": ranks.world_size,
        "ms": 1e3 * seconds,
        "GB_s": len(sent) / seconds / 1e9,
        "right": bool((received == 1).all()),
        "step": step("rm1", ranks, quick) if ranks.world_size > 1 else None,
    }


PARTS: dict[str, Callable[[Ranks, bool], dict[str, Any]]] = {
    "exact": exact,
    "rm1": lambda ranks, quick: step("rm1", ranks, quick),
    "dlrm": lambda ranks, quick: step("dlrm", ranks, quick),
    "kernels": kernels,
    "attention": attention,
    "collectives": collectives,
}


def run(part: str, device: str, quick: bool, out: Path) -> None:
    """Runs one part on this rank, and writes what it found as JSON.

    Args:
        part: a key of ``PARTS``.
        device: ``cpu`` or ``cuda``.
        quick: in small.
        out: the file, which rank 0 writes.
    """
    with process_group(device) as ranks:
        result = PARTS[part](ranks, quick)
        if ranks.is_first:
            out.write_text(json.dumps(result))
