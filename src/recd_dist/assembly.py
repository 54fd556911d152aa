"""From a job that was checked to its parts: model, optimizers, loader. Train, evaluate and plan build the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recd_dist.batch import Batch
from recd_dist.config import Optimizer
from recd_dist.distributed import Ranks
from recd_dist.embedding.floor import StepRows
from recd_dist.embedding.plan import PlanRow, Sharding, describe, plan
from recd_dist.embedding.tables import Embeddings
from recd_dist.grouped import Embedded
from recd_dist.job import Job
from recd_dist.model import new_model, sequence_features
from recd_dist.model.loss import click_loss
from recd_dist.reader.loader import Loader
from recd_dist.reader.transform import Transforms

Output = tuple[Tensor, Tensor, Batch]
"""Of one batch: loss, logits float [B], and the batch itself."""


class Head(nn.Module):
    """Model and loss on what the embeddings hand over."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Embedded, batch: Batch) -> tuple[Tensor, Output]:
        """The loss, and what the loop reports."""
        dense = {group: batch.dense_of(group) for group in batch.dense}
        logits = self.model(embedded, dense)
        loss = click_loss(logits, batch.labels[:, 0])
        return loss, (loss.detach(), logits.detach(), batch)


class TrainModel(nn.Module):
    """Embeddings, then model and loss: the module that is sharded and pipelined.

    Args:
        embeddings: the tables.
        model: ``logits = model(embedded, dense)``.
    """

    def __init__(self, embeddings: Embeddings, model: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = Head(model)

    def forward(self, batch: Batch) -> tuple[Tensor, Output]:
        """Traced by the pipeline: tables first, so that the next batch's ids travel while this one computes."""
        embedded = self.embeddings(batch.sparse)
        return self.head(embedded, batch)


def train_model(job: Job, dedup: bool, device: str | torch.device = "meta") -> TrainModel:
    """The model of a job; dense weights follow from ``seed``, tables are filled after sharding.

    Args:
        job: resolved config.
        dedup: compute on unique rows.
        device: of the tables; ``meta`` when they are to be sharded.
    """
    options = {k: v for k, v in job.config.model.items() if k not in ("name", "dim", "pooling")}
    name, dim = str(job.config.model["name"]), int(job.config.model["dim"])
    torch.manual_seed(job.config.seed)
    model = new_model(name, job.schema, dim, **options)
    embeddings = Embeddings(
        job.schema,
        job.tables,
        sequence_features=sequence_features(name, job.schema),
        dedup=dedup,
        pooling=job.config.model.get("pooling", "sum"),
        group_rows=step_rows(job).by_group(job.schema),
        device=device,
    )
    return TrainModel(embeddings, model)


def sharding(job: Job) -> Sharding:
    """What the config says about sharding, as the planner takes it."""
    wanted = job.config.plan
    if not wanted.tables:
        return wanted.sharding
    default = "TW" if wanted.sharding == "auto" else wanted.sharding
    return {**dict.fromkeys(job.tables, default), **wanted.tables}


def planned(job: Job, world_size: int) -> list[PlanRow]:
    """Where each table would lie and what it would cost, without starting a rank."""
    embeddings = train_model(job, job.dedup).embeddings
    rows = step_rows(job)
    device = job.config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = plan(embeddings, world_size, sharding(job), step=rows, device_type=device)
    return describe(found, embeddings, world_size, rows, job.config.optim.tables.name)


def step_rows(job: Job) -> StepRows:
    """Rows and ids of an average batch of one rank."""
    return StepRows.of_table(job.manifest, job.config.batch_size)


def dense_optimizer(parameters: list[Tensor], wanted: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of everything that is no table."""
    common: dict[str, Any] = {"lr": wanted.lr, "weight_decay": wanted.weight_decay}
    if wanted.name == "sgd":
        return torch.optim.SGD(parameters, **common)
    classes = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return classes[wanted.name](parameters, eps=wanted.eps, **common)


def loader(
    job: Job,
    ranks: Ranks,
    transforms: Transforms,
    *,
    table: Path | None = None,
    batch_size: int | None = None,
    state: Mapping[str, Any] | None = None,
    shuffle: bool | None = None,
) -> Loader:
    """This rank's batches.

    Args:
        job: resolved config.
        ranks: this rank.
        transforms: fitted on the training table.
        table: another table than the job's (evaluation).
        batch_size: another batch size than the job's.
        state: position to go on from.
        shuffle: instead of the config's.
    """
    reader = job.config.reader
    return Loader(
        table or job.table,
        job.schema,
        job.tables,
        transforms,
        batch_size=batch_size or job.config.batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        num_workers=reader.num_workers,
        seed=job.config.seed,
        shuffle=reader.shuffle if shuffle is None else shuffle,
        window=reader.window,
        state=state,
        expand=not job.dedup,
        prefetch=reader.prefetch,
        on_bad_id=reader.on_bad_id,
        on_nan=reader.on_nan,
        pin_memory=ranks.device.type == "cuda",
    )
