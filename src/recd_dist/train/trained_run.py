"""A trained run, opened to evaluate it or to score samples with it.

::

    run_dir --newest checkpoint--> schema, table sizes, transforms, weights --.
    data.table, split, data.partitions --> a split with these features ---------+--> TrainedRun --> batches, logits

Everything but the samples is that of the run, as its checkpoint has it: the training table may have grown since, may
have moved, or may be gone.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recd_dist.checkpoint import checkpoint
from recd_dist.checkpoint.catalog import DESCRIPTION
from recd_dist.embedding.distribute import shard
from recd_dist.embedding.tables import portable_name
from recd_dist.errors import ConfigError, nearest
from recd_dist.job.config import from_yaml
from recd_dist.job.days import chain_of
from recd_dist.job.input_of_run import open_input
from recd_dist.job.job import Job, resolve
from recd_dist.job.open_table import is_direct, open_split_directly
from recd_dist.job.options import OpenedRun, PredictConfig, TrainConfig
from recd_dist.job.run_places import best_of, checkpoints_of
from recd_dist.job.score_places import reads_input
from recd_dist.job.starting_run import TABLES
from recd_dist.job.tasks import tasks_of
from recd_dist.model.task import Task
from recd_dist.plan.sharding import place_tables
from recd_dist.plan.world import World
from recd_dist.ranks.process_group import Ranks
from recd_dist.reader.direct_table import DirectTable
from recd_dist.reader.intervals import Interval
from recd_dist.reader.loader import Loader
from recd_dist.reader.made_features import group_of
from recd_dist.reader.open_files import AnyTable
from recd_dist.reader.order import TABLE, Shuffle
from recd_dist.reader.position import Position, fingerprint
from recd_dist.reader.transform import Transforms
from recd_dist.screen.command_line import command_line, override
from recd_dist.table.clustered import ClusteredTable
from recd_dist.table.location import Location, contents, location
from recd_dist.table.manifest import is_table, splits_of
from recd_dist.table.schema import Feature, Schema, Table
from recd_dist.tensors.batch import Batch
from recd_dist.train import build, planning
from recd_dist.train.mapped_ids import MappedIds
from recd_dist.train.shared_table import agree_on

logger = logging.getLogger(__name__)

PREDICTION_BATCH = 4096
"""Samples of a batch that is only scored, at least: no gradients are kept, and larger batches share more rows."""


@dataclass(frozen=True)
class TrainedRun:
    """The newest checkpoint of a run over the ranks of this job, with a split of a table to read.

    Attributes:
        job: features, table sizes and options of the run; its table is the split that is read.
        model: a TrainModel, sharded and in evaluation mode.
        transforms: those that were fitted on the training table.
        step: the step of the checkpoint.
        ids: maps the batches of the split, by the ids of the checkpoint.
        path: where the checkpoint lies.
        checkpoint: names the checkpoint by its content: two of one step differ in it.
    """

    job: Job
    model: nn.Module
    transforms: Transforms
    step: int
    ids: MappedIds
    path: Location
    checkpoint: str = ""

    @contextmanager
    def open_batches(self, ranks: Ranks, left: Sequence[Interval] | None = None) -> Iterator[Loader]:
        """This rank's batches of the split, each sample once and in the order of the table; for ``ids`` to map.

        Args:
            ranks: this rank's place in the job.
            left: the samples to read, of all ranks; None for all.
        """
        state = None if left is None else self._position(left)
        loader = build.build_loader(self.job, ranks, self.transforms, order=TABLE, state=state, model=self.model)
        with self.ids, closing(loader) as batches:
            yield batches

    def _position(self, left: Sequence[Interval]) -> dict[str, Any]:
        """Where reading stands when some samples are left."""
        config = self.job.config
        shuffle = Shuffle(config.seed, TABLE, config.reader.window)
        return Position(0, tuple(left), fingerprint(self.job.manifest), shuffle).to_json()


def output_of(model: nn.Module, batch: Batch, device: torch.device) -> build.Output:
    """What a model in evaluation mode gives for a batch; a collective, and no gradients are kept."""
    with torch.no_grad():
        output: build.Output = model(batch.to(device))[1]
    return output


def logits_of(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """The model's logits of a batch, float32 [B, T]; a collective, and no gradients are kept."""
    return output_of(model, batch, device).logits.float()


def tables_to_json(tables: Mapping[str, Table]) -> dict[str, dict[str, Any]]:
    """The sizes of embedding tables, as a checkpoint keeps them."""
    return {name: table.to_json() for name, table in tables.items()}


def open_run(config: OpenedRun, ranks: Ranks) -> TrainedRun:
    """Loads the newest checkpoint of a run onto the ranks of this job, however many trained it; a collective.

    Args:
        config: names the run and the split.
        ranks: this rank's place in the job; the default process group is up.

    Raises:
        ConfigError, DataError: there is no such run, checkpoint, split, partition or label; or the table lacks what the
            model reads.
    """
    for name, value, least in (("batch_size", config.batch_size, 1), ("num_workers", config.num_workers, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{name}={value}: must be at least {least}")
    run_dir = Path(config.run_dir)
    trained: TrainConfig = from_yaml("train", run_dir / "config.yaml")
    if config.checkpoint not in (known := ("newest", "best")):
        raise ConfigError(f"checkpoint={config.checkpoint}: unknown{nearest(config.checkpoint, known)}")
    is_best = config.checkpoint == "best"
    trained = replace(trained, run_dir=config.run_dir)  # it may have moved since
    path = checkpoint.find_sound(best_of(trained) if is_best else checkpoints_of(trained))
    if path is None and is_best:
        raise ConfigError(f"{run_dir}: no best checkpoint in it, evaluate.every keeps one; use checkpoint=newest")
    if path is None:
        where = command_line(override("run_dir", str(run_dir)))
        raise ConfigError(f"{run_dir}: no checkpoint in it; train first: `recd train ... {where}`")
    stored = checkpoint.read_description(path)
    job = _job_of(config, trained, stored, ranks)
    with build.seeded(job):  # the weights drawn here give way to the checkpoint's
        model = build.build_model(job, job.dedup)
    wanted = planning.wanted_sharding(job, with_places=False)  # other ranks than in training, perhaps
    plan = place_tables(model.embeddings, World.of_one_host(ranks.world_size, ranks.device.type), wanted)
    parallel = shard(model, plan, ranks)
    ids = MappedIds(job, ranks, parallel)
    checkpoint.load(path, parallel, None, stored.schema, rename=portable_name)
    ids.begin(stored.step)
    parallel.eval()
    digest = hashlib.sha256(contents(path / DESCRIPTION)).hexdigest()[:16]
    return TrainedRun(job, parallel, job.transforms, stored.step, ids, path, digest)


def _job_of(config: OpenedRun, trained: TrainConfig, stored: checkpoint.Checkpoint, ranks: Ranks) -> Job:
    """The job that reads a split as the run read its training table; a collective."""
    table = agree_on(lambda: open_split(config, trained, stored.schema), ranks)
    require_same_features(stored.schema, table)
    tasks, weight = _tasks_of(config, trained, stored, table)
    labels = dict.fromkeys([*(task.label for task in tasks), *([weight] if weight else [])])
    schema = replace(stored.schema, labels=tuple(labels))
    if isinstance(table, DirectTable):  # flat files have no windows, whatever the table of the training had
        schema = replace(schema, features=tuple(replace(f, window=False) for f in schema.features))
    reader = replace(
        trained.reader,
        num_workers=config.num_workers,
        servers=[],
        servers_dir=None,
        on_bad_id=config.reader.on_bad_id or trained.reader.on_bad_id,
        on_nan=config.reader.on_nan or trained.reader.on_nan,
    )
    least = PREDICTION_BATCH if isinstance(config, PredictConfig) else 1
    options = replace(trained, batch_size=config.batch_size or max(trained.batch_size, least), reader=reader)
    transforms = Transforms.parse(schema, stored.extra["transforms"], table.manifest.schema)
    chain = chain_of(stored.extra)
    return Job(options, table, schema, _tables_of(trained, stored), transforms, tasks=tasks, weight=weight, chain=chain)


def _tasks_of(
    config: OpenedRun, trained: TrainConfig, stored: checkpoint.Checkpoint, table: AnyTable
) -> tuple[tuple[Task, ...], str | None]:
    """The tasks of a run, judged by the labels of a table, and the column by which samples count there, if it has it.

    Raises:
        ConfigError: the table lacks a label.
    """
    tasks, known = tasks_of(stored.extra, stored.schema.labels[0]), table.manifest.schema.labels
    if config.data.label is not None:
        if len(tasks) > 1:
            raise ConfigError(
                f"data.label={config.data.label}: the run has the tasks {', '.join(t.name for t in tasks)}, and each "
                "is judged by its own label; leave data.label out"
            )
        tasks = (replace(tasks[0], label=config.data.label),)
    for task in tasks:
        if task.label not in known:
            option = f"data.label={task.label}" if config.data.label else f"task '{task.name}', label '{task.label}'"
            raise ConfigError(f"{option}: the table {table.path} has no such label{nearest(task.label, known)}")
    weight = trained.data.weight
    if weight is not None and weight not in known:
        logger.warning("%s has no weights '%s': each of its samples counts once", table.path, weight)
        return tasks, None
    return tasks, weight


def _tables_of(trained: TrainConfig, stored: checkpoint.Checkpoint) -> dict[str, Table]:
    """The embedding tables of a checkpoint; one of an earlier release says nothing of them: the table must tell."""
    if TABLES in stored.extra:
        return {name: Table.from_json(table) for name, table in stored.extra[TABLES].items()}
    return resolve(trained).tables


def open_split(config: OpenedRun, trained: TrainConfig, schema: Schema | None = None) -> AnyTable:
    """The split that is evaluated or scored, as far as its partitions are asked for.

    Args:
        config: names the split, perhaps with another table than that of the run, or some partitions.
        trained: the config of the run.
        schema: the features of the run, whose groups files have that are read directly; None where only their number
            of samples matters.

    Raises:
        ConfigError, DataError: there is no such table, split or partition.
    """
    data = config.data
    if isinstance(config, PredictConfig) and reads_input(config) and schema is not None:
        return open_input(config, trained, schema)
    if is_direct(trained) and data.table is None:
        return open_split_directly(trained, schema, config.split, data.path, data.partitions)
    if data.path is not None:
        raise ConfigError(
            f"data.path={data.path}: files are read for runs with data.reader=direct; name a table by data.table=..."
        )
    root = location(config.data.table or trained.data.table)
    if not is_table(root / config.split):
        if is_table(root):
            raise ConfigError(
                f"data.table={root}: this is one split of a table; write data.table={root.parent} split={root.name}"
            )
        splits = splits_of(root)
        if not splits:
            raise ConfigError(
                f"data.table={root}: no clustered table there; make it with `recd etl`, or name the place to which it "
                "was moved"
            )
        raise ConfigError(f"split={config.split}: the table {root} has no such split{nearest(config.split, splits)}")
    return ClusteredTable.load(root / config.split).of_partitions(config.data.partitions)


def require_same_features(trained: Schema, table: AnyTable) -> None:
    """Refuses a table that lacks what the model reads.

    Args:
        trained: the features that the model was trained on.
        table: the table to read.

    Raises:
        ConfigError: the message names the feature.
    """
    known = {f.name: f for f in table.manifest.schema.features}
    for feature in trained.features:
        if feature.made_from:
            _require_inputs(feature, known, table)
            continue
        there = known.get(feature.name)
        wanted = feature.kind, feature.home, feature.table  # an expanded group is one of its own in the table
        fits = there is not None and wanted == (there.kind, there.group, there.table)
        if there is None or not fits or feature.weights not in (None, there.weights):
            weights = f", weights '{feature.weights}'" if feature.weights else ""
            raise ConfigError(
                f"table {table.path}: the model was trained on feature '{feature.name}' ({feature.kind}, group "
                f"'{feature.home}'{weights}), the table has {known.get(feature.name, 'none of that name')}; "
                "make it by the same ETL"
            )


def _require_inputs(feature: Feature, known: Mapping[str, Feature], table: AnyTable) -> None:
    """Refuses a table that lacks what a feature of the model is made from, or has it in other groups."""
    for name in feature.made_from:
        if name not in known:
            raise ConfigError(
                f"table {table.path}: the model was trained on feature '{feature.name}', made from '{name}', which "
                "the table does not have; make it by the same ETL"
            )
    if (group := group_of(feature, table.manifest.schema)) != feature.home:
        raise ConfigError(
            f"table {table.path}: the model was trained on feature '{feature.name}' in group '{feature.home}', what it "
            f"is made from is in '{group}' there; make the table by the same ETL"
        )
