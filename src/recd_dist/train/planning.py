"""From a job to the plan of its tables: rows are counted, then ``plan/`` decides.

::

    a few batches --> StepRows --.
    the config of the job --------+--> plan.plan_tables --> TablePlan
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from recd_dist.errors import DataError
from recd_dist.job.job import Job
from recd_dist.plan.machines import find_machine
from recd_dist.plan.plan_summary import PlanEstimate
from recd_dist.plan.saved_plan import SavedPlan, load_plan
from recd_dist.plan.sharding import Sharding
from recd_dist.plan.step_rows import StepRows
from recd_dist.plan.table_plan import TablePlan, plan_tables
from recd_dist.plan.world import World
from recd_dist.reader.loader import Loader
from recd_dist.reader.transform import Transforms
from recd_dist.table.schema import Schema
from recd_dist.tensors.ikjt import IKJT
from recd_dist.train.build import build_embeddings, count_dense_parameters

logger = logging.getLogger(__name__)

SAMPLED_BATCHES = 4
"""Batches that are read to count rows and ids before a plan is made."""


def plan_job(
    job: Job,
    world_size: int,
    *,
    local_world_size: int | None = None,
    device_type: str | None = None,
    step: StepRows | None = None,
) -> TablePlan:
    """Plans the tables of a job; starts no rank.

    Args:
        job: resolved config.
        world_size: ranks.
        local_world_size: ranks of a host; the topology's when absent.
        device_type: ``cpu`` or ``cuda``; the topology's, or what the config and this machine say, when absent.
        step: rows and ids of a batch; counted in a few batches of the table when absent.

    Raises:
        ConfigError: the plan is not possible; the message names the remedy.
    """
    wanted = job.config.plan
    machine = find_machine(
        wanted.topology, device_type or _device_type(job), Path(wanted.costs) if wanted.costs else None
    )
    if local_world_size is not None:
        machine = replace(machine, ranks_per_host=local_world_size)
    world = World(world_size, machine.local_world_size(world_size), device_type or machine.device_type)
    saved = _saved_plan(job, world)
    return plan_tables(
        build_embeddings(job),
        world,
        machine,
        step or count_rows(job),
        sharding=saved.sharding if saved else wanted_sharding(job),
        send={**(saved.send if saved else {}), **wanted.send},
        exchange=saved.exchange if saved and wanted.exchange == "auto" else wanted.exchange,
        optimizer=job.config.optim.tables.name,
        num_dense=count_dense_parameters(job),
    )


def simulate(job: Job, world_sizes: Iterable[int], step: StepRows) -> list[PlanEstimate]:
    """How a step grows with the ranks, each with a batch of its own; every size gets a plan of its own.

    Args:
        job: resolved config.
        world_sizes: ranks.
        step: rows and ids of one rank's batch.
    """
    return [plan_job(job, size, step=step).estimate for size in world_sizes]


def wanted_sharding(job: Job, *, with_places: bool = True) -> Sharding:
    """What the config says about sharding, as ``plan/`` takes it.

    Args:
        job: resolved config.
        with_places: keep the ranks and hosts that the config names; False for another world than the plan's.
    """
    wanted = job.config.plan
    if not wanted.tables:
        return wanted.sharding
    default = "TW" if wanted.sharding == "auto" else wanted.sharding
    named = wanted.tables
    if not with_places:
        named = {t: w.get("type", "TW") if isinstance(w, Mapping) else w for t, w in named.items()}
    return {**dict.fromkeys(build_embeddings(job).tables, default), **named}


def count_rows(job: Job) -> StepRows:
    """Rows and ids of one rank's batch: the mean of a few batches that are read.

    The batches hold what the manifest cannot say: how many distinct ids a table sees in a batch. The reader's window is
    that of training, since sessions of one user share rows where they meet in a batch. Where the table cannot be read,
    the manifest's means must do.
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
            order=job.config.reader.read_order,
            window=job.config.reader.window,
            prefetch=1,
            on_bad_id=job.config.reader.on_bad_id,
        )
        with closing(reader):
            batches = [b.sparse for b in islice(reader, SAMPLED_BATCHES)]
            rows = StepRows.mean([_rows_of(sparse, ids_only) for sparse in batches])
            return replace(rows, distinct_of=_distinct_of(batches, ids_only))
    except (DataError, OSError) as error:
        logger.warning("plan: no batch can be read, its rows are taken from the manifest (%s)", error)
        return StepRows.of_table(job.manifest, job.schema, size)


def _rows_of(sparse: IKJT, schema: Schema) -> StepRows:
    """The counts of a batch, with the number of distinct ids of each table."""
    ids = {t: [sparse.values_of(f.name) for f in schema.sparse if f.table == t] for t in schema.tables}
    return replace(StepRows.of_batch(sparse), distinct_ids={t: len(torch.unique(torch.cat(v))) for t, v in ids.items()})


def _distinct_of(batches: Sequence[IKJT], schema: Schema) -> dict[str, tuple[float, ...]]:
    """For each table how many distinct ids the first 1, 2, 4, ... batches have together."""
    names = {t: [f.name for f in schema.sparse if f.table == t] for t in schema.tables}
    counts: dict[str, tuple[float, ...]] = {}
    for table, features in names.items():
        ids = [torch.unique(torch.cat([sparse.values_of(f) for f in features])) for sparse in batches]
        doublings = range(len(batches).bit_length())
        counts[table] = tuple(float(len(torch.unique(torch.cat(ids[: 2**n])))) for n in doublings)
    return counts


def _device_type(job: Job) -> str:
    """Where a job without a topology would run."""
    device = job.config.device
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _saved_plan(job: Job, world: World) -> SavedPlan | None:
    """The plan that the config names."""
    if not job.config.plan.file:
        return None
    found = load_plan(Path(job.config.plan.file))
    sizes = {table.name: (table.num_embeddings, table.dim) for table in job.looked_up.values()}
    found.check(sizes, world.size, world.host_size)
    return found
