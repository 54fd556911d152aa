"""From a job that was checked to its parts: model, tables, dense optimizer, loader."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recd_dist.embedding.exchange.assemble import ids_of
from recd_dist.embedding.exchange.classes import shared_features
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import ExchangeName, Send
from recd_dist.job.check_servers import has_far_servers, has_servers
from recd_dist.job.job import Job
from recd_dist.job.optimizer_options import Optimizer
from recd_dist.model.loss import TaskLosses
from recd_dist.model.models import build_named_model, id_features, sequence_features
from recd_dist.model.towers import Towers
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.cuts import BatchCutter
from recd_dist.reader.loader import Loader
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.tier.server_address import Address
from recd_dist.reader.transform import Transforms
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.grouped import Embedded
from recd_dist.tensors.host_side import host_integers
from recd_dist.train.averaged_weights import copy_to_average
from recd_dist.train.dense_computation import DenseComputation
from recd_dist.train.items_of_samples import InBatchLosses

if TYPE_CHECKING:
    from recd_dist.reader.tier.remote_reader import RemoteReader


class Output(NamedTuple):
    """What a step gives for a batch.

    Attributes:
        loss: the weighted sum of the tasks' losses; 0 in evaluation mode, where no loss is computed.
        logits: float [B, T], a column for each task.
        batch: the batch itself.
        losses: float [T], the loss of each task.
        towers: in evaluation mode the vectors of the samples, of a model with towers; otherwise None.
    """

    loss: Tensor
    logits: Tensor
    batch: Batch
    losses: Tensor
    towers: Towers | None = None


class Head(nn.Module):
    """The dense layers and the losses, which take what the embeddings give.

    Args:
        model: the dense layers.
        losses: the losses of the tasks.
        computation: how the dense layers compute.
        averages: keep a moving average of their weights, which computes in evaluation mode.
        in_batch: the losses ``in_batch`` of a model with towers; None where no task has that loss.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: TaskLosses,
        computation: DenseComputation | None = None,
        averages: bool = False,
        in_batch: InBatchLosses | None = None,
    ) -> None:
        super().__init__()
        self.model, self.losses, self.computation = model, losses, computation or DenseComputation()
        self.in_batch = in_batch
        self.averaged = copy_to_average(model) if averages else None

    def forward(self, embedded: Embedded, batch: Batch) -> tuple[Tensor, Output]:
        """Computes the loss, and returns it with what the loop reports."""
        if not self.training:  # scores are wanted alone; the labels may be those of another table
            logits, towers = self.compute(self.model if self.averaged is None else self.averaged, embedded, batch)
            none = logits.new_zeros(())
            return none, Output(none, logits.detach(), batch, self.losses.factors, towers)
        counts = self.losses.count(batch.labels)  # travels while the model computes
        logits, towers = self.compute(self.model, embedded, batch)
        requests = number_requests(batch, logits) if self.losses.needs_requests else None
        of_items = None
        if self.in_batch is not None and towers is not None:
            of_items = self.in_batch(towers, batch, self.losses.labels_of(batch.labels))
        loss, losses = self.losses(logits, batch.labels, counts, requests, of_items)
        return loss, Output(loss.detach(), logits.detach(), batch, losses)

    def compute(self, model: nn.Module, embedded: Embedded, batch: Batch) -> tuple[Tensor, Towers | None]:
        """What a model gives for a batch.

        Args:
            model: the dense layers, or their average.
            embedded: the vectors of the batch.
            batch: the batch.

        Returns:
            The logits, float [B, T], and the vectors that they are products of where a loss takes these.
        """
        dense = {group: batch.dense_of(group) for group in batch.dense}
        if names := getattr(self.model, "ids", ()):  # over ranks, what was embedded is waited for where it is asked
            ids = {n: ids_of(batch.sparse, n) for n in names}
            embedded = Embedded(embedded.pooled, embedded.sequences, ids)
        if self.in_batch is None:
            return self.computation.logits(model, embedded, dense), None
        towers = self.computation.towers(model, embedded, dense)
        return towers.scores(len(self.losses.tasks)), towers


def number_requests(batch: Batch, like: Tensor) -> Tensor:
    """For each sample the number of its request among those of the batch, int64 [B], on the device of a tensor.

    A request that is cut by the border of a batch, or by that of a rank's share, is one request on each side.
    """
    return host_integers(np.unique(batch.request_ids.numpy(), return_inverse=True)[1], like)


class TrainModel(nn.Module):
    """The embeddings, then model and loss: the module that is sharded and pipelined.

    Args:
        embeddings: the embedding tables.
        model: the dense layers, called as ``logits = model(embedded, dense)``, float [B, T].
        losses: the losses of the tasks.
        computation: how the dense layers compute.
        averages: keep a moving average of their weights.
        in_batch: the losses ``in_batch``, where a task has one.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        model: nn.Module,
        losses: TaskLosses,
        computation: DenseComputation | None = None,
        averages: bool = False,
        in_batch: InBatchLosses | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = Head(model, losses, computation, averages, in_batch)

    def forward(self, batch: Batch) -> tuple[Tensor, Output]:
        """Looks up the tables first: the pipeline then sends the ids of the next batch while this one computes."""
        embedded = self.embeddings(batch.sparse)
        return self.head(embedded, batch)


def build_model(
    job: Job,
    dedup: bool,
    device: str | torch.device = "meta",
    send: Mapping[str, Send] | None = None,
    exchange: ExchangeName = "direct",
) -> TrainModel:
    """Builds the model of a job. Dense weights are drawn from torch's generator; tables are filled after sharding.

    Args:
        job: resolved config.
        dedup: compute on unique rows.
        device: device of the tables; ``meta`` if they will be sharded.
        send: what travels of each table, from a plan; the default of ``Embeddings`` when absent.
        exchange: how batches travel, from a plan.
    """
    model = build_dense_model(job)
    tables = build_embeddings(job, dedup, device, send, exchange)
    computation = DenseComputation(job.config.precision, job.config.micro_batches)
    losses = build_losses(job)
    in_batch = InBatchLosses(job) if losses.in_batch else None
    return TrainModel(tables, model, losses, computation, job.config.optim.ema is not None, in_batch)


def build_losses(job: Job) -> TaskLosses:
    """Builds the losses of a job's tasks."""
    columns = [job.schema.labels.index(task.label) for task in job.tasks]
    weight = None if job.weight is None else job.schema.labels.index(job.weight)
    stats = job.table.whole.manifest.labels
    has_gaps = any(task.label in stats and stats[task.label].num_null > 0 for task in job.tasks)
    is_uneven = job.config.reader.is_uneven  # ranks have more or fewer samples: each sample counts the same
    return TaskLosses(job.tasks, columns, weight, over_ranks=has_gaps or is_uneven)


@contextmanager
def seeded(job: Job) -> Iterator[None]:
    """Inside, torch's generator draws what follows from the seed of a job; outside, it stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.config.seed)
        yield


def build_embeddings(
    job: Job,
    dedup: bool | None = None,
    device: str | torch.device = "meta",
    send: Mapping[str, Send] | None = None,
    exchange: ExchangeName = "direct",
) -> Embeddings:
    """Builds only the tables of a job. The arguments are those of ``build_model``; ``dedup`` defaults to the job's."""
    dedup = job.dedup if dedup is None else dedup
    not_looked_up = id_features(str(job.config.model["name"]), job.schema, job.config.model)
    return Embeddings(
        job.schema.without(not_looked_up) if not_looked_up else job.schema,
        job.tables,
        sequence_features=sequence_features(str(job.config.model["name"]), job.schema, job.config.model),
        dedup=dedup,
        pooling=job.config.model.get("pooling", "mean"),
        send=send,
        codecs=job.codecs if dedup else None,
        exchange=exchange,
        device=device,
    )


def count_dense_parameters(job: Job) -> int:
    """Counts the parameters of the dense layers without drawing or allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_dense_model(job).parameters())


def build_dense_model(job: Job) -> nn.Module:
    """Builds the dense layers of a job alone, with weights drawn from torch's generator."""
    options = {k: v for k, v in job.config.model.items() if k not in ("name", "dim", "pooling")}
    return build_named_model(
        str(job.config.model["name"]), job.schema, int(job.config.model["dim"]), len(job.tasks), **options
    )


def build_dense_optimizer(parameters: list[Tensor], wanted: Optimizer) -> torch.optim.Optimizer:
    """Builds the optimizer of all parameters that are no tables."""
    common: dict[str, Any] = {"lr": wanted.lr, "weight_decay": wanted.weight_decay}
    if wanted.name == "sgd":
        return torch.optim.SGD(parameters, **common)
    classes = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return classes[wanted.name](parameters, eps=wanted.eps, **common)


def build_loader(
    job: Job,
    ranks: Ranks,
    transforms: Transforms,
    *,
    table: AnyTable | None = None,
    batch_size: int | None = None,
    state: Mapping[str, Any] | None = None,
    order: str | None = None,
    cutter: BatchCutter | None = None,
    model: Any = None,
) -> Loader:
    """Builds the loader of this rank's batches.

    Args:
        job: resolved config.
        ranks: this rank.
        transforms: fitted on the training table.
        table: another table than the job's (evaluation).
        batch_size: another batch size than the job's.
        state: position to go on from.
        order: instead of the config's.
        cutter: cuts batches otherwise than by the number of their samples.
        model: a TrainModel, sharded or not, whose tables gain by histories that stay windows; batches hold lists when
            absent.
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
        order=order or reader.read_order,
        window=reader.window,
        state=state,
        expand=not job.dedup,
        prefetch=reader.prefetch,
        windows=_windowed_features(job, model),
        on_bad_id=reader.on_bad_id,
        on_nan=reader.on_nan,
        pin_memory=ranks.device.type == "cuda",
        cutter=cutter,
        servers=build_servers(job, ranks.rank),
    )


def _windowed_features(job: Job, model: Any) -> Collection[str]:
    """The features whose rows stay windows in batches: those that gain by it, and all where batches cross a network."""
    if not job.config.reader.windows or not job.dedup or model is None:
        return ()
    if has_far_servers(job.config.reader):
        return [feature.name for feature in job.schema.sparse]
    return shared_features(getattr(model, "module", model).embeddings.classes)


def build_servers(job: Job, rank: int) -> "RemoteReader | None":
    """What asks the servers of a job for batches; None where a rank reads itself.

    Args:
        job: resolved config.
        rank: this rank.
    """
    reader = job.config.reader
    if not has_servers(reader):
        return None
    from recd_dist.reader.tier.remote_reader import RemoteReader  # loads the network library
    from recd_dist.reader.tier.servers import Servers

    directory, token, trusted = (
        None if path is None else Path(path).expanduser()
        for path in (reader.servers_dir, reader.token_file, reader.tls_ca)
    )
    addresses = tuple(Address.parse(address) for address in reader.servers)
    wait_s = job.config.timeouts.server_s
    return RemoteReader(
        Servers(addresses, directory, token, trusted, reader.compression, reader.shared_memory, wait_s, rank=rank)
    )
