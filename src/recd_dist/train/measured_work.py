"""What training a sample of a job costs: as the config gives it, as the checkpoint has it, or measured.

::

    a shuffle window --batches of short, middling and long histories--> the model --seconds--> fit_work --> Work

Every rank computes the same batches, so that none waits for another one, and takes what rank 0 has found. A batch goes
forward as in an evaluation, and backward to the gradients of the dense layers, which are dropped: no weight, no
statistics and no random number changes. What tables take to be updated is left out; it grows with the ids.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from recd_dist.job.job import Job
from recd_dist.model.models import id_features, sequence_features
from recd_dist.ranks import progress
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.cuts import Cutter
from recd_dist.reader.fill import Filler
from recd_dist.reader.intervals import Interval
from recd_dist.reader.loader import WORK
from recd_dist.reader.open_files import require_clustered
from recd_dist.reader.order import Shuffle
from recd_dist.reader.sample_work import WorkReader
from recd_dist.reader.transform import Transforms
from recd_dist.reader.work import PARTS, CountedList, Work, fit_work, to_work
from recd_dist.reader.worker import BatchReader, ReaderOptions, Task
from recd_dist.table.schema import Kind
from recd_dist.tensors.batch import Batch

logger = logging.getLogger(__name__)

SIZES = (1.0, 0.5, 0.25)
"""Measured batches, as shares of batch_size: what samples cost and what ids cost shows where both differ."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95)
"""Where the sessions of measured batches lie among all, by the length of their histories."""

REPEATS = 3
"""How often each batch is computed; the fastest counts, as other programs only slow it down."""


def counted_lists(job: Job) -> tuple[CountedList, ...]:
    """The lists of a job whose ids are work: those that are looked up.

    Args:
        job: resolved config.
    """
    name, options = str(job.config.model["name"]), job.config.model
    histories = sequence_features(name, job.schema, options)
    not_looked_up = id_features(name, job.schema, options)
    counted = []
    for feature in job.schema.sparse:
        is_stored = not feature.made_from  # the lengths of others are no column of the table
        if feature.kind is Kind.ids and is_stored and feature.name not in not_looked_up:
            is_history = feature.name in histories
            limits = [_limit(job, feature.name), options.get("max_length") if is_history else None]
            longest = min((int(limit) for limit in limits if limit is not None), default=None)
            counted.append(CountedList(feature.name, is_history, longest))
    return tuple(counted)


def cutter_of(
    job: Job, ranks: Ranks, model: Any, transforms: Transforms, state: Mapping[str, Any]
) -> Cutter | Filler | None:
    """What cuts the batches of a job by work, by ids or where sessions begin; None: by samples. A collective.

    A run that goes on keeps the costs that its checkpoint has, unless the config gives others.

    Args:
        job: the job.
        ranks: this rank.
        model: the sharded model, of which no pipeline holds a batch.
        transforms: fitted on the training table.
        state: the position of the reader that the run goes on from; empty for a run that starts.
    """
    reader, before = job.config.reader, to_work(state.get(WORK))
    if state and (before is not None) != (reader.batches == "work") and ranks.is_first:
        logger.info("reader.batches=%s: what is left of the epoch is cut anew", reader.batches)
    if reader.batches != "work":
        return _filler_of(job, ranks) if reader.is_filled else None
    lists, clustered = counted_lists(job), require_clustered(job.table, "reader.batches=work")
    work = Work.of(reader.work) or before
    if work is None:
        with progress.phase("measuring what samples cost"):
            work = measure_work(job, ranks, model, transforms, lists)
        if ranks.is_first and work.depends_on_lists:
            logger.info("reader.batches=work: measured in microseconds; the same batches again: %s", work)
        elif ranks.is_first:
            logger.warning("reader.batches=work: lists cost nothing measurable; batches have as many samples each")
    of_samples = WorkReader(clustered, job.schema, lists, work, _shuffle_of(job))
    return Cutter(of_samples, ranks.rank, ranks.world_size, show_all_ranks)


def _shuffle_of(job: Job) -> Shuffle:
    return Shuffle(job.config.seed, job.config.reader.read_order, job.config.reader.window)


def _filler_of(job: Job, ranks: Ranks) -> Filler:
    """What fills the batches of a job up to a number of ids, or with whole sessions; users are sessions then."""
    reader, schema = job.config.reader, job.schema if job.dedup else job.schema.expand(job.schema.dedup_groups)
    clustered = require_clustered(job.table, "reader.batch_ids" if reader.whole is None else "reader.whole")
    lists = stored_ids(job) if reader.batch_ids is not None else ()
    of_samples = WorkReader(clustered, schema, lists, Work(id=1.0), _shuffle_of(job))
    shown = (of_samples, ranks.rank, ranks.world_size, show_all_ranks)
    return Filler(*shown, max_ids=reader.batch_ids, keeps_sessions=reader.whole is not None)


def stored_ids(job: Job) -> tuple[CountedList, ...]:
    """The features of a job whose ids a batch stores: all that hold ids.

    Args:
        job: resolved config.
    """
    return tuple(CountedList(f.name, longest=_limit(job, f.name)) for f in job.schema.sparse if not f.made_from)


def _limit(job: Job, name: str) -> int | None:
    """The most ids of a list that its transforms leave; None: all."""
    steps = job.transforms.steps.get(name, ())
    return min((int(step.arguments["x"]) for step in steps if "x" in step.arguments), default=None)


def show_all_ranks(mine: Any) -> list[Any]:
    """What each rank has, in the order of the ranks; a collective."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def measure_work(job: Job, ranks: Ranks, model: Any, transforms: Transforms, lists: Sequence[CountedList]) -> Work:
    """Measures what samples cost; a collective.

    Args:
        job: the job.
        ranks: this rank.
        model: the sharded model; it is in evaluation mode afterwards.
        transforms: fitted on the training table.
        lists: the lists that count.

    Returns:
        The costs, the same on every rank.

    Raises:
        DataError: the table cannot be read.
    """
    clustered = require_clustered(job.table, "reader.batches=work")
    reader = WorkReader(clustered, job.schema, lists, Work(id=1.0), _shuffle_of(job))
    bad = job.config.reader.on_bad_id, job.config.reader.on_nan
    options = ReaderOptions(job.table, job.schema, job.tables, transforms, _shuffle_of(job), not job.dedup, *bad)
    model.eval()
    parts, seconds = [], []
    with closing(BatchReader(options)) as batches:
        for samples in choose_batches(reader, job.config.batch_size):
            batch = bring_into_range(batches.read(Task(0, samples)), job)
            parts.append(count_parts(batch, lists))
            seconds.append(min([_time_passes(model.module, batch.to(ranks.device)) for _ in range(REPEATS + 1)][1:]))
    work = fit_work({name: np.array([p[name] for p in parts]) for name in PARTS}, np.array(seconds))
    found = [work if work.depends_on_lists else Work(sample=1.0)]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def bring_into_range(batch: Batch, job: Job) -> Batch:
    """The batch with rows of their tables in place of ids that have none before they are mapped; lists stay as long.

    Args:
        batch: on the host.
        job: the job.
    """
    values = batch.sparse.values
    for name, (start, end) in zip(batch.sparse.keys, pairwise(batch.sparse.value_offsets), strict=True):
        table = job.tables[str(job.schema[name].table)]
        if table.mapped:
            rows = values[start:end].remainder(table.num_embeddings)
            values = torch.cat([values[:start], rows, values[end:]])
    return replace(batch, sparse=replace(batch.sparse, values=values))


def choose_batches(reader: WorkReader, batch_size: int) -> Iterator[tuple[Interval, ...]]:
    """Samples of an epoch's first shuffle window for batches of short, of middling and of long histories.

    Args:
        reader: tells how many ids samples have.
        batch_size: samples of the largest of these batches; fewer where there are not so many.
    """
    window = reader.shuffle_windows(0)[0]
    work = reader.read(0, window)
    starts, ends = work.sessions[:-1], work.sessions[1:]
    order = np.argsort(work.before[ends] - work.before[starts], kind="stable")
    for share in SIZES:
        size = max(1, min(round(share * batch_size), int(ends[-1] // 2) or 1))
        for quantile in QUANTILES:
            chosen = np.roll(order, -int(quantile * len(order)))
            yield _take(window.start + starts[chosen], window.start + ends[chosen], size)


def _take(starts: Any, ends: Any, size: int) -> tuple[Interval, ...]:
    """The first so many samples of some intervals."""
    taken: list[Interval] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if size <= 0:
            break
        taken.append((start, min(end, start + size)))
        size -= taken[-1][1] - start
    return tuple(taken)


def count_parts(batch: Batch, lists: Sequence[CountedList]) -> dict[str, float]:
    """How many of each of ``PARTS`` a batch has.

    Args:
        batch: on the host.
        lists: the lists that count.
    """
    parts = dict.fromkeys(PARTS, 0.0) | {"sample": float(batch.batch_size)}
    for counted in lists:
        lengths = counted.count(batch.sparse.lengths_of(counted.name).numpy()).astype(np.float64)
        parts["id"] += float(lengths.sum())
        if counted.is_history:
            parts["pair"] += float(np.square(lengths).sum())
            inverse = batch.sparse.inverse_of(batch.sparse.group_of(counted.name))
            parts["look"] += float((lengths if inverse is None else lengths[inverse.numpy()]).sum())
    return parts


def _time_passes(module: Any, batch: Batch) -> float:
    """Seconds that a model needs for a batch, forward and back: on CPU those in which this thread computed."""
    head, device = module.head, batch.labels.device
    is_cuda = device.type == "cuda"
    clock = time.perf_counter if is_cuda else time.thread_time
    started = clock()
    logits, _ = head.compute(head.model, module.embeddings(batch.sparse), batch)
    weights = [weight for weight in head.model.parameters() if weight.requires_grad]
    torch.autograd.grad(logits.float().sum(), weights, allow_unused=True)
    if is_cuda:
        torch.cuda.synchronize(device)
    return clock() - started
