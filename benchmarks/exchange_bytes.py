"""Bytes of the embedding exchange: counted at the collectives, and by formula (plan/step_bytes.py)."""

import os
from dataclasses import replace
from typing import Any

import exchange_modes
import torch
import torch.distributed as dist

from recd_dist.embedding.distribute import shard
from recd_dist.embedding.initial_weights import initialize_tables
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import SENDS, SHARDING_TYPES
from recd_dist.embedding.vocabulary.placement import read_placement
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.step_bytes import StepBytes, step_bytes
from recd_dist.plan.step_rows import StepRows, table_uses
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.tensors.ikjt import IKJT

DIRECTIONS = ("input", "output", "backward")
RANKS_PER_HOST = 2


def count_sent_bytes(mode: exchange_modes.Mode, num_steps: int) -> dict[str, float]:
    """Counts the bytes that all ranks send in a step, by direction; ``splits`` are the sizes, which are sent first."""
    with TrafficCounter() as traffic:
        for _ in range(num_steps):
            mode.step()
        sent = traffic.take()
    total = torch.tensor([sent[d] for d in (*DIRECTIONS, "splits")], dtype=torch.float64)
    device = next(iter(mode.gradients)).device
    total = total.to(device)
    dist.all_reduce(total)
    return dict(zip((*DIRECTIONS, "splits"), (total / num_steps).tolist(), strict=True))


def measure_plans(
    workload: exchange_modes.Workload, ranks: Ranks, config: dict[str, Any]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Measures every sharding type, sending rows and sending ids.

    Args:
        workload: tables and batches; half of the features repeat.
        ranks: this rank, of one machine; two ranks count as a host.
        config: ``num_batches``, the number of batches.

    Returns:
        By plan and direction the bytes of all ranks in a step, counted and by formula.
    """
    hosts = replace(ranks, local_rank=ranks.rank % RANKS_PER_HOST, local_world_size=RANKS_PER_HOST)
    os.environ |= {"LOCAL_RANK": str(hosts.local_rank), "LOCAL_WORLD_SIZE": str(RANKS_PER_HOST)}  # TorchRec reads them
    batches = [workload.batch(ranks.rank, n) for n in range(config["num_batches"])]
    results = {}
    for sharding in SHARDING_TYPES:
        for send in SENDS:
            if sharding != "DP":
                results[f"{sharding} {send}"] = _measure_plan(workload, hosts, batches, sharding, send)
    return results


def _measure_plan(
    workload: exchange_modes.Workload, ranks: Ranks, batches: list[Any], sharding: str, send: str
) -> dict[str, tuple[float, float]]:
    """Runs a plan that has every table under one sharding type, on each batch once."""
    embeddings = Embeddings(workload.schema, workload.tables, send=dict.fromkeys(workload.tables, send), device="meta")
    chosen = place_tables(embeddings, World(ranks.world_size, ranks.local_world_size), sharding)
    uses, places = table_uses(embeddings), read_placement(chosen)
    due = StepBytes()
    for batch in batches:
        rows = StepRows.of_batch(batch, table_uses(embeddings), exact=True)
        due += step_bytes(uses, places, rows, ranks.world_size, dedup=True, rank=ranks.rank)
    model = shard(exchange_modes.Holder(embeddings), chosen, ranks, exchange_modes.OPTIMIZER)
    initialize_tables(model, exchange_modes.SEED)
    with TrafficCounter() as traffic:
        for batch in batches:
            out = model(batch)
            sum(g.values.sum() for g in out.pooled.values()).backward()
        sent = traffic.take()
    both = [[sent[d], getattr(due, d)] for d in DIRECTIONS] + [[sent["splits"], 0.0]]
    total = torch.tensor(both, dtype=torch.float64) / len(batches)
    dist.all_reduce(total)
    return dict(zip((*DIRECTIONS, "splits"), map(tuple, total.tolist()), strict=True))


def peak_bytes(mode: exchange_modes.Mode) -> int:
    """Measures the memory of a step on a CUDA device, without the tables: one batch and the peak of the step."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    mode.step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before + _num_bytes(mode.inputs[0])


def _num_bytes(batch: Any) -> int:
    """The size of the tensors of a mode's input."""
    values = vars(batch).values() if isinstance(batch, IKJT) else [*batch.values(), *batch.get("inverse_indices", ())]
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))
