"""Training, on one page: process group, table, model, plan, shard, pipeline, loop.

::

    Loader --Batch--> TrainPipelineSparseDist --> loss --> tables (fused in backward), dense (optimizer)
      |  position       next batch's ids travel     |
      '--> checkpoint <-- step, model, optimizer <--+--> progress, TensorBoard, summary.json
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed import TrainPipelineSparseDist
from torchrec.optim.keyed import KeyedOptimizerWrapper
from torchrec.streamable import Pipelineable

from recd_dist.embedding import initial_weights, torchrec_patches
from recd_dist.embedding.distribute import (
    TableOptimizer,
    combine_optimizers,
    dense_parameters,
    num_replicated_parameters,
    shard,
)
from recd_dist.embedding.table_memory import table_bytes
from recd_dist.embedding.vocabulary.placement import Placement
from recd_dist.job.check_servers import has_servers
from recd_dist.job.config import load, to_yaml
from recd_dist.job.days import CHAIN, PARTITIONS
from recd_dist.job.job import Job
from recd_dist.job.options import TrainConfig
from recd_dist.job.preflight import check, require_work
from recd_dist.job.run_state import record_state
from recd_dist.job.starting_run import KEEP, TABLES
from recd_dist.job.tasks import TASKS
from recd_dist.metrics.gather import reduce_over_ranks
from recd_dist.metrics.traffic import TrafficCounter
from recd_dist.plan import step_bytes
from recd_dist.plan.step_rows import table_uses
from recd_dist.plan.table_plan import TablePlan
from recd_dist.ranks import progress
from recd_dist.ranks.failures import summarize
from recd_dist.ranks.process_group import Ranks, process_group
from recd_dist.ranks.quiet import log_to_screen, quiet_libraries
from recd_dist.ranks.stop import Stop, Stopped
from recd_dist.reader.order import TABLE
from recd_dist.reader.transform import Transforms
from recd_dist.reader.worker_process import fork_server
from recd_dist.tensors.batch import Batch
from recd_dist.tensors.ikjt import IKJT
from recd_dist.train import build, planning
from recd_dist.train.day_by_day import DayByDay
from recd_dist.train.day_evaluation import evaluate_day
from recd_dist.train.day_records import DayRecords
from recd_dist.train.epochs import Epochs, fit_transforms, open_epochs
from recd_dist.train.items_of_samples import COUNTED_AT_ONCE, InBatchLosses, count_item_shares, narrow_to_items
from recd_dist.train.mapped_ids import MappedIds
from recd_dist.train.prepared import prepare
from recd_dist.train.reader_counts import ReaderCounts
from recd_dist.train.run import finish, resume
from recd_dist.train.saves import Saves
from recd_dist.train.shared_table import agree_on_table
from recd_dist.train.step_optimizer import StepOptimizer, moving_average
from recd_dist.train.trained_run import tables_to_json
from recd_dist.train.validation import Validation
from recd_dist.train.watch import Watch

logger = logging.getLogger(__name__)

__all__ = ["main", "prepare", "train"]


def main(overrides: Sequence[str] | None = None) -> None:
    """One rank of a training job.

    Args:
        overrides: Hydra overrides of configs/train.yaml; those of the process by default.

    Raises:
        ConfigError, DataError: something is wrong that the user can mend.
        Stopped: SIGTERM came while steps ran, and a checkpoint is written.
    """
    config: TrainConfig = load("train", sys.argv[1:] if overrides is None else overrides)
    log_to_screen()
    quiet_libraries()
    progress.start(config.timeouts)
    if config.reader.num_workers and not has_servers(config.reader):
        fork_server()  # before this process has threads
    joins = process_group(config.device, config.timeouts)
    with joins as ranks, record_state(Path(config.run_dir), is_writer=ranks.is_first, summarize=summarize):
        train(config, ranks)


def train(config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Trains to the end of ``epochs`` or ``max_steps``, from the newest checkpoint when the run directory has one.

    Args:
        config: the config of the job.
        ranks: this rank's place in the job; the default process group is up.

    Returns:
        The content of summary.json.
    """
    job = check(config, ranks.world_size, agree_on_table(config, ranks))
    transforms = fit_transforms(job)
    model, optimizer, placed = shard_model(job, ranks, plan := agree_on_plan(job, ranks))
    ids, start = MappedIds(job, ranks, model, optimizer), resume(job, ranks, model, optimizer)
    saves, days = Saves(job), DayRecords(job, ranks, start, ids.admitted)
    validation = Validation(job, ranks, transforms, start, saves, ids)
    epochs = open_epochs(job, ranks, transforms, start.get("reader"), model, days)
    step = first = optimizer.steps_done = int(start.get("step", 0))
    require_work(config, step, epochs.number, validation.is_over, days.left)
    last, num_trained = config.max_steps or sys.maxsize, 0  # batches of this epoch and attempt
    pipeline, facts = start_pipeline(model, optimizer, ranks.device), memory_of(model, optimizer, plan, ranks)
    extra = {**start, **(known := describe(job, transforms))}
    with saves, ids, TrafficCounter() as traffic, watch_of(job, ranks, model, placed, epochs, step, facts) as watch:
        if validation.is_owed(step):
            watch.evaluation(step, validation.look(detach(pipeline), optimizer, step, extra), traffic)
            saves.save(step, model, optimizer, {**extra, **validation.state()}, watch, must=True)
        with Stop(step) as stop:
            while step < last and not (stop.asked or validation.is_over) and epochs.begin(stop, step):
                evaluate_day(epochs, validation, partial(detach, pipeline), watch, traffic)
                model.train()
                batches, num_trained = watch.reader(ids.ahead(progress.reading(iter(loader := epochs.loader)))), 0
                for output in train_batches(pipeline, batches, step, validation.every):
                    step, num_trained = step + 1, num_trained + 1
                    watch.step(epochs.number, step, output)
                    stop.agree(step, votes=saves.votes())
                    due = num_trained == len(loader) or step == last or saves.is_due(step, stop.votes)
                    looks = validation.is_due(step) and not stop.asked  # a scheduler waits 30 s: save first
                    if due or looks or stop.asked or step == first + 1 or step % config.log_every == 0:
                        watch.point(step, traffic, optimizer.numbers(), ids.numbers())  # refuses a loss of nan
                    extra = {**known, "reader": epochs.state(num_trained)}
                    if looks:
                        watch.evaluation(step, validation.look(detach(pipeline), optimizer, step, extra), traffic)
                    watch.show(step)
                    ends = step == last or stop.asked or validation.is_over
                    if due or ends:
                        must = ends or looks or num_trained == len(loader)
                        saves.save(step, model, optimizer, {**extra, **validation.state()}, watch, must=must)
                    if ends:
                        break
                if num_trained == len(loader):
                    epochs.end()
                    num_trained = 0
            saves.wait()  # from here on SIGTERM ends a rank at once
            stop.agree(step, now=True)
        if stop.asked:
            raise Stopped(f"stopped by SIGTERM after step {step}; the same command goes on from {saves.path}")
        num_samples, trained = epochs.num_samples(num_trained), detach(pipeline)
        epochs.close()
        evaluated = validation.finish(trained, optimizer, step, extra)
        return finish(job, ranks, watch, step, num_samples, saves, {**evaluated, **ids.summary(), **days.summary()})


def describe(job: Job, transforms: Transforms) -> dict[str, Any]:
    """What a checkpoint says of a job, so that it can be evaluated where nothing else of the run is left."""
    tasks = [task.to_json() for task in job.tasks]
    return {
        **{"transforms": transforms.to_json(), TABLES: tables_to_json(job.tables), TASKS: tasks},
        **{CHAIN: job.chain.to_json(), PARTITIONS: list(job.manifest.partitions)},
        "config": to_yaml(job.config),
    }


def train_batches(pipeline: Any, batches: Iterator[Batch], step: int, every: int | None) -> Iterator[build.Output]:
    """Trains batch after batch.

    After every step whose number is a multiple of ``every`` the pipeline is empty, so that the model can be taken out
    of it: TorchRec's pipeline would otherwise hold two batches that are sent half, and hand them out later.

    Args:
        pipeline: TorchRec's pipeline.
        batches: this rank's batches.
        step: the number of steps that were done before.
        every: steps between two evaluations; None never empties the pipeline before the end.
    """
    size = None if every is None else every - step % every
    while True:
        part, num = batches if size is None else islice(batches, size), 0
        while (output := _progress(pipeline, part)) is not None:
            num += 1
            yield output
        if size is None or num < size:
            return
        size = every


def detach(pipeline: Any) -> Any:
    """Takes the model out of an empty pipeline, which takes it back at the next step."""
    model = pipeline.detach()
    torchrec_patches.restore_postprocs(model.module)
    return model


def memory_of(model: Any, optimizer: Any, plan: TablePlan, ranks: Ranks) -> dict[str, float]:
    """Bytes of the tables on the rank that holds most of them, used and planned; a collective."""
    used = reduce_over_ranks({"table_bytes": float(table_bytes(model.module, optimizer))}, "max", ranks.device)
    return {**used, "table_bytes_planned": float(plan.estimate.rank_bytes)}


def watch_of(
    job: Job,
    ranks: Ranks,
    model: Any,
    placed: Placement,
    epochs: Epochs,
    step: int,
    facts: Mapping[str, float] | None = None,
) -> Watch:
    """Makes the watch of a run from the run's length, its tables and the facts for its summary."""
    left = epochs.num_steps_left(job.config.batch_size * ranks.world_size)
    last = min(step + left, job.config.max_steps or sys.maxsize)
    uses = table_uses(model.module.embeddings, ranks.local_world_size)
    reduced = step_bytes.all_reduce_bytes(num_replicated_parameters(model), ranks.world_size)
    reader = ReaderCounts(epochs, tuple(f.name for f in job.schema.features), ranks.device)
    days = epochs.days if isinstance(epochs, DayByDay) else None
    return Watch(job, ranks, uses, placed, last, step, reduced, reader, facts, days)


def agree_on_plan(job: Job, ranks: Ranks) -> TablePlan:
    """Plans where the tables of a job lie on its ranks, and what travels; a collective.

    Rank 0 counts rows and ids for all ranks. If every rank counted for itself, one could count other numbers, for
    example because a file appears late for it; it would make another plan, and the exchange would hang.
    """
    counted = [planning.count_rows(job) if ranks.is_first else None]
    dist.broadcast_object_list(counted, src=0)
    return planning.plan_job(
        job,
        ranks.world_size,
        local_world_size=ranks.local_world_size,
        device_type=ranks.device.type,
        step=counted[0],
    )


def shard_model(job: Job, ranks: Ranks, plan: TablePlan | None = None) -> tuple[Any, StepOptimizer, Placement]:
    """Builds model and optimizer over the ranks; initial weights do not depend on the plan. A collective.

    Torch's generator is seeded first: the dense weights follow from the seed of the job, and so does dropout.

    Args:
        job: resolved config.
        ranks: this rank's place in the job.
        plan: the plan of the tables; it is made when absent.

    Returns:
        Model, optimizer, and where the tables lie.
    """
    config = job.config
    plan = plan or agree_on_plan(job, ranks)
    torch.manual_seed(config.seed)
    model = build.build_model(job, job.dedup, send=plan.send, exchange=plan.exchange)
    if model.head.in_batch is not None:
        count_items(job, ranks, model.head.in_batch)
    if config.dedup and not job.dedup and ranks.is_first:
        logger.info("dedup: no group of this table holds fewer rows than samples; batches are trained expanded")
    wanted = config.optim.tables
    tables = TableOptimizer(wanted.name, wanted.lr, wanted.eps, wanted.kernel)  # type: ignore[arg-type]
    parallel = shard(model, plan.sharding, ranks, tables)
    initial_weights.initialize_tables(parallel, config.seed, [t.name for t in job.tables.values() if t.mapped])
    dense = KeyedOptimizerWrapper(
        dense_parameters(parallel), lambda ps: build.build_dense_optimizer(list(ps), config.optim.dense)
    )
    parts = combine_optimizers(parallel, dense, tables)
    steps_before = job.chain.steps if config.run_from_schedule == KEEP else 0
    average = moving_average(model.head, config.optim.ema)
    return parallel, StepOptimizer(parts, config.optim, average, steps_before), plan.placement


def count_items(job: Job, ranks: Ranks, losses: InBatchLosses) -> None:
    """Tells the losses ``in_batch`` how often the training table has each item; a collective that reads it once."""
    if any(task.loss == "in_batch" and task.log_q for task in job.tasks):
        transforms, options = job.transforms.fit(job.table), {"batch_size": COUNTED_AT_ONCE, "order": TABLE}
        loader = build.build_loader(narrow_to_items(job), ranks, transforms, **options)  # type: ignore[arg-type]
        losses.take_shares(count_item_shares(job, ranks, loader))


def start_pipeline(model: Any, optimizer: Any, device: torch.device) -> TrainPipelineSparseDist:
    """TorchRec's pipeline: the ids of the next batch travel while this one computes."""
    for batch_type in (Batch, IKJT):  # TorchRec asks by isinstance whether it may move a batch
        Pipelineable.register(batch_type)
    return TrainPipelineSparseDist(model, optimizer, device, pipeline_postproc=True)


def _progress(pipeline: Any, batches: Iterator[Batch]) -> build.Output | None:
    """One step of the pipeline; None at the end of the epoch."""
    try:
        return pipeline.progress(batches)
    except StopIteration:
        return None


if __name__ == "__main__":
    main()
