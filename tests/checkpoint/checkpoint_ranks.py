"""One rank of test_checkpoint.py: ``checkpoint_ranks.py MODE SHARDING DIRECTORY`` with torchrun's environment.

It trains a model of three tables and a dense layer, sharded by TorchRec, for three steps on fixed samples.
"""

import json
import os
import random
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recd_dist.checkpoint import checkpoint, writing
from recd_dist.checkpoint.agreement import gather
from recd_dist.checkpoint.state import flatten
from recd_dist.errors import UserError
from recd_dist.ranks.process_group import process_group
from recd_dist.ranks.timeouts import Timeouts
from recd_dist.table.schema import Feature, Kind, Schema

SCHEMA = Schema(tuple(Feature(n, Kind.ids, table=n) for n in "abc"))
ROWS = {"a": 64, "b": 40, "c": 30}


def build_sharded(sharding: str) -> tuple[Any, Any]:
    """The model, in DistributedModelParallel, and its optimizer: rowwise Adagrad in the tables, Adam outside."""
    from torch.distributed.optim import _apply_optimizer_in_backward
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise, table_wise
    from torchrec.distributed.types import ShardingPlan
    from torchrec.optim import RowWiseAdagrad
    from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
    from torchrec.optim.optimizers import in_backward_optimizer_filter

    class Sharder(EmbeddingBagCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return ["table_wise", "row_wise"]

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tables = [
                EmbeddingBagConfig(name=n, embedding_dim=8, num_embeddings=rows, feature_names=[n])
                for n, rows in ROWS.items()
            ]
            self.tables = EmbeddingBagCollection(tables, device=torch.device("meta"))
            self.top = torch.nn.Linear(24, 1)

        def forward(self, ids: Any) -> torch.Tensor:
            return self.top(self.tables(ids).values()).squeeze(1)

    torch.manual_seed(7)
    world_size = dist.get_world_size()
    model = Model()
    _apply_optimizer_in_backward(RowWiseAdagrad, model.tables.parameters(), {"lr": 0.1})
    how = {n: row_wise() if sharding == "rw" else table_wise(i % world_size) for i, n in enumerate(ROWS)}
    plan = construct_module_sharding_plan(
        model.tables, how, Sharder(), local_size=world_size, world_size=world_size, device_type="cpu"
    )
    for parameter in plan.values():
        parameter.compute_kernel = "fused"
    model = DistributedModelParallel(
        model, device=torch.device("cpu"), plan=ShardingPlan({"tables": plan}), sharders=[Sharder()]
    )
    others = dict(in_backward_optimizer_filter(model.named_parameters()))
    dense = KeyedOptimizerWrapper(others, lambda p: torch.optim.Adam(p, lr=0.01))
    return model, CombinedOptimizer([model.fused_optimizer, ("dense", dense)])


def train(model: Any, optimizer: Any, num_steps: int) -> None:
    """Trains on samples that differ from rank to rank; each rank has the same number of ids, as row-wise gloo needs."""
    from torchrec import KeyedJaggedTensor

    for step in range(num_steps):
        generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
        ids = torch.cat([torch.randint(rows, (32,), generator=generator) for rows in ROWS.values()])
        kjt = KeyedJaggedTensor(list(ROWS), ids, lengths=torch.full((48,), 2))
        optimizer.zero_grad()
        torch.nn.functional.softplus(model(kjt)).sum().backward()
        optimizer.step()


def gather_tensors(model: Any, optimizer: Any) -> dict[str, torch.Tensor]:
    """Gathers every tensor of the state, unsharded; a rank without a shard of a table may not know its state."""
    mine = {}
    for key, value in flatten(model.state_dict(), optimizer.state_dict(), str).items():
        shards = value.local_shards() if hasattr(value, "local_shards") else None
        pieces = (
            [([0] * value.dim(), value)] if shards is None else [(s.metadata.shard_offsets, s.tensor) for s in shards]
        )
        mine[key] = (value.size(), pieces)
    whole: dict[str, torch.Tensor] = {}
    for part in gather(mine):
        for key, (size, pieces) in part.items():
            into = whole.setdefault(key, torch.full(size, torch.nan))
            for offsets, tensor in pieces:
                into[tuple(slice(o, o + n) for o, n in zip(offsets, tensor.shape, strict=True))] = tensor
    return whole


def main(mode: str, sharding: str, directory: Path) -> None:
    model, optimizer = build_sharded(sharding)
    answer: dict[str, Any] = {}
    if mode == "save":
        train(model, optimizer, 3)
        for step in (1, 2, 3):
            random.seed(dist.get_rank())
            checkpoint.save(directory, step, model, optimizer, SCHEMA, {"epoch": 0})
        answer = {"draws": [random.random(), float(torch.rand(()))]}
    elif mode == "killed":
        train(model, optimizer, 1)
        checkpoint.save(directory, 1, model, optimizer, SCHEMA)
        if dist.get_rank() == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
        try:
            checkpoint.save(directory, 2, model, optimizer, SCHEMA)
        except UserError as error:
            answer = {"error": str(error)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        answer["left"] = sorted(p.name for p in directory.iterdir())
        (directory.parent / f"killed-rank{dist.get_rank()}.json").write_text(json.dumps(answer))
        dist.barrier()  # both ranks list the directory before either starts step 3
        if dist.get_rank() == 0:
            writing._finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save(directory, 3, model, optimizer, SCHEMA)
    else:
        loaded = checkpoint.load(directory / "step-00000003", model, optimizer, SCHEMA)
        answer = {"extra": loaded.extra, "draws": [random.random(), float(torch.rand(()))]}
    whole = gather_tensors(model, optimizer)
    if dist.get_rank() == 0:
        torch.save(whole, directory.parent / f"{mode}-{sharding}-{dist.get_world_size()}.pt")
    (directory.parent / f"{mode}-{sharding}-{dist.get_world_size()}-rank{dist.get_rank()}.json").write_text(
        json.dumps(answer)
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with process_group("cpu", Timeouts(collective_s=30.0)):
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
