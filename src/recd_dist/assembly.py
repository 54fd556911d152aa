"""From a job that was checked to its parts: model, optimizers, loader. Train, evaluate and plan build the same."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from recd_dist.batch import Batch
from recd_dist.config import Optimizer
from recd_dist.distributed import Ranks
from recd_dist.embedding.exchange.classes import Send
from recd_dist.embedding.floor import StepRows
from recd_dist.embedding.plan import Sharding
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import DataError
from recd_dist.grouped import Embedded
from recd_dist.ikjt import IKJT
from recd_dist.job import Job
from recd_dist.location import Location
from recd_dist.model import new_model, sequence_features
from recd_dist.model.loss import click_loss
from recd_dist.reader.loader import Loader
from recd_dist.reader.transform import Transforms
from recd_dist.schema import Schema

logger = logging.getLogger(__name__)

SAMPLED_BATCHES = 4
"""Batches read to count rows and ids before a plan is made."""

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


def train_model(
    job: Job, dedup: bool, device: str | torch.device = "meta", send: Mapping[str, Send] | None = None
) -> TrainModel:
    """The model of a job; dense weights follow from ``seed``, tables are filled after sharding.

    Args:
        job: resolved config.
        dedup: compute on unique rows.
        device: of the tables; ``meta`` when they are to be sharded.
        send: per table what travels, from a plan; the usual when absent.
    """
    options = {k: v for k, v in job.config.model.items() if k not in ("name", "dim", "pooling")}
    torch.manual_seed(job.config.seed)
    model = new_model(str(job.config.model["name"]), job.schema, int(job.config.model["dim"]), **options)
    return TrainModel(tables_of(job, dedup, device, send), model)


def tables_of(
    job: Job, dedup: bool, device: str | torch.device = "meta", send: Mapping[str, Send] | None = None
) -> Embeddings:
    """The tables of a job alone; arguments as of ``train_model``."""
    return Embeddings(
        job.schema,
        job.tables,
        sequence_features=sequence_features(str(job.config.model["name"]), job.schema),
        dedup=dedup,
        pooling=job.config.model.get("pooling", "sum"),
        send=send,
        codecs=job.codecs if dedup else None,
        device=device,
    )


def sharding(job: Job, *, places: bool = True) -> Sharding:
    """What the config says about sharding, as the planner takes it.

    Args:
        job: resolved config.
        places: with the ranks and hosts that are named; False for another world than the one of the plan.
    """
    wanted = job.config.plan
    if not wanted.tables:
        return wanted.sharding
    default = "TW" if wanted.sharding == "auto" else wanted.sharding
    named = wanted.tables
    if not places:
        named = {t: w.get("type", "TW") if isinstance(w, Mapping) else w for t, w in named.items()}
    return {**dict.fromkeys(job.tables, default), **named}


def step_rows(job: Job) -> StepRows:
    """Rows and ids of one rank's batch: the mean of a few that are read.

    They hold what the manifest cannot say: how many distinct ids a table sees in a batch. The window is that of
    training: sessions of one user share rows where they meet in a batch. Where the table cannot be read, the
    manifest's means must do.
    """
    ids_only = job.schema.without([*(f.name for f in job.schema.dense), *job.schema.weights.values()])
    transforms = Transforms({n: steps for n, steps in job.transforms.steps.items() if n in ids_only})
    size = job.config.batch_size
    try:
        reader = Loader(
            job.table,
            ids_only,
            job.tables,
            transforms,
            batch_size=size,
            seed=job.config.seed,
            shuffle=job.config.reader.shuffle,
            window=job.config.reader.window,
            prefetch=1,
            on_bad_id=job.config.reader.on_bad_id,
            partitions=job.config.data.partitions,
        )
        with closing(reader):
            return StepRows.mean([_counted(b.sparse, ids_only) for b in islice(reader, SAMPLED_BATCHES)])
    except (DataError, OSError) as error:
        logger.warning("plan: no batch can be read, its rows are taken from the manifest (%s)", error)
        return StepRows.of_table(job.manifest, job.schema, size)


def _counted(sparse: IKJT, schema: Schema) -> StepRows:
    """The counts of a batch, distinct ids of each table among them."""
    ids = {t: [sparse.values_of(f.name) for f in schema.sparse if f.table == t] for t in schema.tables}
    return replace(StepRows.of_batch(sparse), distinct_ids={t: len(torch.unique(torch.cat(v))) for t, v in ids.items()})


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
    table: Location | None = None,
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
        partitions=job.config.data.partitions if table is None else None,
    )
