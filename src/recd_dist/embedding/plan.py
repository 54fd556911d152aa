"""Where each table lies: explicit sharding per table, or TorchRec's planner told how few rows really travel.

A plan is a pure function of sizes and statistics: ``recd plan`` prints one for any number of ranks without starting
them, and every rank of a job computes the same one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchrec.distributed import sharding_plan
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingCollection

from recd_dist.embedding.floor import StepRows, TableUse, step_bytes, table_uses
from recd_dist.embedding.tables import Embeddings
from recd_dist.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

TYPES = {
    "TW": "table_wise",
    "RW": "row_wise",
    "CW": "column_wise",
    "DP": "data_parallel",
}
"""Sharding types offered, by short name; both spellings are read."""

WIDTH_UNIT = 4
"""fbgemm's kernels want every shard's width to be a multiple of this."""

Sharding = str | Mapping[str, Any]
"""``auto`` (table-wise on CPU, TorchRec's planner on CUDA), ``planner``, a type for all tables, or per table a type or
``{type: TW, ranks: [0]}``; ``default`` names the rest."""


class BagSharder(EmbeddingBagCollectionSharder):
    """Allows row-wise sharding on CPU, which upstream refuses (embedding_types.py:559) and torchrec_patches repairs."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers."""
        del compute_device_type
        return list(TYPES.values())


class ListSharder(EmbeddingCollectionSharder):
    """The same for un-pooled tables; data-parallel ones fail upstream even for a plain KeyedJaggedTensor."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The types that this project offers for un-pooled tables."""
        del compute_device_type
        return [t for t in TYPES.values() if t != "data_parallel"]


@dataclass(frozen=True)
class PlanRow:
    """One table of a plan, for people.

    Attributes:
        table, num_embeddings, dim, features, groups: what it is; ``features`` and ``groups`` joined by commas.
        sharding: TW, RW, CW or DP.
        ranks: where its shards lie.
        memory_bytes: weights and optimizer state over all ranks.
        unique_bytes, expanded_bytes: sent a step by one rank, input, output and backward, by formula; 0 without
            statistics.
    """

    table: str
    num_embeddings: int
    dim: int
    features: str
    groups: str
    sharding: str
    ranks: tuple[int, ...]
    memory_bytes: int
    unique_bytes: int
    expanded_bytes: int


def plan(
    embeddings: Embeddings,
    world_size: int,
    sharding: Sharding = "auto",
    *,
    step: StepRows | None = None,
    local_world_size: int | None = None,
    device_type: str = "cpu",
    prefix: str = "embeddings",
) -> ShardingPlan:
    """Decides where each table lies.

    Args:
        embeddings: the tables, on meta or any device, not sharded.
        world_size: ranks of the job.
        sharding: see ``Sharding``.
        step: rows and ids of a batch, from the manifest or a batch; balances the ranks. None: by size only.
        local_world_size: ranks of a host; all when absent.
        device_type: ``cpu`` or ``cuda``.
        prefix: where the embeddings stand in the model.

    Raises:
        ConfigError: an unknown table or type, a rank outside the world, a width that cannot be split, data-parallel
            un-pooled tables, or a plan that does not fit in memory.
    """
    for table in embeddings.tables.values():
        if table.dim % WIDTH_UNIT:
            raise ConfigError(
                f"tables.{table.name}.dim={table.dim}: the embedding kernels want a multiple of {WIDTH_UNIT}; "
                f"use {-(-table.dim // WIDTH_UNIT) * WIDTH_UNIT}"
            )
    local = local_world_size or world_size
    if sharding == "auto":
        # On gloo a row-wise table sends (W - 1) times its rows, a table-wise one (W - 1) / W times; TorchRec's planner
        # has no figures for CPU hosts and chose row-wise even for tables of ten rows.
        sharding = "planner" if device_type == "cuda" else "table_wise"
    if sharding == "planner":
        return _planned(embeddings, world_size, local, device_type, prefix, step)
    chosen = _choices(embeddings, world_size, sharding)
    placed = _placed(embeddings, world_size, chosen, step)
    modules: dict[str, Any] = {}
    for path, module, sharder in _modules(embeddings, prefix):
        generators = {t: _generator(chosen[t], placed[t]) for t in _tables_of(module)}
        modules[path] = sharding_plan.construct_module_sharding_plan(
            module, generators, sharder, local_size=local, world_size=world_size, device_type=device_type
        )
    return ShardingPlan(modules)


def check_world(found: ShardingPlan, world_size: int) -> None:
    """Refuses a plan that was made for more ranks than there are.

    Raises:
        ConfigError: names the table, its rank and the remedy.
    """
    for table, part in _parameters(found):
        ranks = part.ranks or []
        if any(not 0 <= r < world_size for r in ranks):
            raise ConfigError(
                f"plan: table '{table}' lies on rank {max(ranks)}, this job has {world_size} ranks (0 to "
                f"{world_size - 1}); wrong world size for this plan: start more ranks or plan again"
            )


def describe(
    found: ShardingPlan,
    embeddings: Embeddings,
    world_size: int,
    step: StepRows | None = None,
    optimizer: str = "rowwise_adagrad",
) -> list[PlanRow]:
    """A plan as rows, in schema order.

    Args:
        found: a plan.
        embeddings: the tables it was made for.
        world_size: ranks it was made for.
        step: rows and ids of one rank's batch; None leaves the bytes 0.
        optimizer: of the tables, for the memory.
    """
    parts = dict(_parameters(found))
    uses = {u.table: u for u in table_uses(embeddings)}
    states = {"sgd": 0.0, "rowwise_adagrad": 1.0}
    rows = []
    for name, table in embeddings.tables.items():
        part = parts[name]
        ranks = tuple(part.ranks or range(world_size))
        width = table.dim + states.get(optimizer, table.dim * (2.0 if "adam" in optimizer else 1.0))
        copies = world_size if part.sharding_type == "data_parallel" else 1
        placed = {name: (short_name(part.sharding_type), ranks)}
        use = [uses[name]]
        rows.append(
            PlanRow(
                table=name,
                num_embeddings=table.num_embeddings,
                dim=table.dim,
                features=", ".join(uses[name].features),
                groups=", ".join(dict.fromkeys(embeddings.schema[f].group for f in uses[name].features)),
                sharding=short_name(part.sharding_type),
                ranks=ranks,
                memory_bytes=int(copies * table.num_embeddings * width * 4),
                unique_bytes=round(step_bytes(use, placed, step, world_size, dedup=True).total) if step else 0,
                expanded_bytes=round(step_bytes(use, placed, step, world_size, dedup=False).total) if step else 0,
            )
        )
    return rows


def placement(found: ShardingPlan, world_size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each table its sharding's short name and the ranks of its shards: what ``step_bytes`` wants."""
    return {t: (short_name(p.sharding_type), tuple(p.ranks or range(world_size))) for t, p in _parameters(found)}


def short_name(sharding_type: str) -> str:
    """``table_wise`` -> ``TW``."""
    return next((short for short, long in TYPES.items() if long == sharding_type), sharding_type)


def _parameters(found: ShardingPlan) -> Iterator[tuple[str, ParameterSharding]]:
    for module in found.plan.values():
        if not isinstance(module, EmbeddingModuleShardingPlan):
            raise ConfigError(f"plan: {type(module).__name__} is no plan of embedding tables")
        yield from module.items()


def _modules(embeddings: Embeddings, prefix: str) -> Iterator[tuple[str, nn.Module, Any]]:
    """Path, module and sharder of everything that is sharded."""
    for name, module in embeddings.pooled.items():
        yield f"{prefix}.pooled.{name}", module, BagSharder()
    if embeddings.sequences is not None:
        yield f"{prefix}.sequences", embeddings.sequences, ListSharder()


def _tables_of(module: nn.Module) -> list[str]:
    configs: Any = module.embedding_configs if isinstance(module, EmbeddingCollection) else module.embedding_bag_configs
    return [c.name for c in configs()]


def _choices(embeddings: Embeddings, world_size: int, sharding: Sharding) -> dict[str, tuple[str, list[int] | None]]:
    """For each table its type and the ranks asked for."""
    named = {"default": sharding} if isinstance(sharding, str) else dict(sharding)
    default = named.pop("default", "TW")
    for table in named:
        if table not in embeddings.tables:
            raise ConfigError(f"plan: no table '{table}'{nearest(table, embeddings.tables)}")
    chosen = {t: _choice(embeddings, t, named.get(t, default), world_size) for t in embeddings.tables}
    for table, (kind, _) in chosen.items():
        if kind == "row_wise" and not _rows_reach(embeddings.tables[table].num_embeddings, world_size):
            few = f"plan: table '{table}' has {embeddings.tables[table].num_embeddings} rows, too few to reach all "
            if table in named:
                raise ConfigError(f"{few}{world_size} ranks in equal blocks; use TW, CW or DP for it")
            logger.warning("%s%d ranks row-wise: it is placed table-wise", few, world_size)
            chosen[table] = ("table_wise", None)
    return chosen


def _rows_reach(num_embeddings: int, world_size: int) -> bool:
    """Whether row-wise sharding leaves every rank at least one row.

    fbgemm's CPU backward reads past its table sizes where a shard is empty (embedding_backward_split_cpu_template.cpp,
    ``get_hash_size``): sometimes an error about 2B rows, sometimes garbage.
    """
    return -(-num_embeddings // world_size) * (world_size - 1) < num_embeddings


def _choice(embeddings: Embeddings, table: str, value: Any, world_size: int) -> tuple[str, list[int] | None]:
    """A table's type in TorchRec's spelling and the ranks asked for, if any."""
    options = dict(value) if isinstance(value, Mapping) else {"type": value}
    kind, ranks = str(options.pop("type", "TW")), options.pop("ranks", None)
    if options:
        unknown = next(iter(options))
        raise ConfigError(f"plan.{table}: unknown option '{unknown}'{nearest(unknown, ['type', 'ranks'])}")
    kind = TYPES.get(kind.upper(), kind)
    if kind not in TYPES.values():
        raise ConfigError(f"plan.{table}={kind}: unknown sharding type{nearest(kind, [*TYPES, *TYPES.values()])}")
    if kind == "data_parallel" and table in embeddings.sequence_tables:
        raise ConfigError(
            f"plan.{table}={short_name(kind)}: TorchRec cannot replicate un-pooled tables (and '{table}' serves "
            f"{', '.join(embeddings.sequence_tables[table])}); use TW, RW or CW"
        )
    if ranks is not None:
        ranks = [int(r) for r in ([ranks] if isinstance(ranks, int) else ranks)]
        if kind not in ("table_wise", "column_wise") or (kind == "table_wise" and len(ranks) != 1):
            raise ConfigError(f"plan.{table}: ranks={ranks} does not fit {kind}; name one rank for TW, several for CW")
        if wrong := [r for r in ranks if not 0 <= r < world_size]:
            raise ConfigError(
                f"plan.{table}: rank {wrong[0]} is named, this job has {world_size} ranks (0 to {world_size - 1}); "
                "wrong world size for this plan: start more ranks or plan again"
            )
        width = embeddings.tables[table].dim
        if width % (len(ranks) * WIDTH_UNIT):
            raise ConfigError(
                f"plan.{table}: {width} columns cannot be split over {len(ranks)} ranks; each shard's width must be a "
                f"multiple of {WIDTH_UNIT}"
            )
    return kind, ranks


def _placed(
    embeddings: Embeddings,
    world_size: int,
    chosen: Mapping[str, tuple[str, Sequence[int] | None]],
    step: StepRows | None,
) -> dict[str, list[int]]:
    """Ranks of each table's shards; free table-wise and column-wise shards go, largest first, to the idlest rank."""
    load = [0.0] * world_size
    weights = {u.table: _load(embeddings, u, step) for u in table_uses(embeddings)}
    placed: dict[str, list[int]] = {}
    for table in sorted(chosen, key=lambda t: -weights[t]):
        kind, ranks = chosen[table]
        if kind in ("row_wise", "data_parallel"):
            placed[table] = list(range(world_size))
            continue
        num_shards = 1
        if kind == "column_wise":
            units = embeddings.tables[table].dim // WIDTH_UNIT
            num_shards = max(n for n in range(1, min(world_size, units) + 1) if units % n == 0)
        placed[table] = list(ranks or sorted(range(world_size), key=lambda r: (load[r], r))[:num_shards])
        for rank in placed[table]:
            load[rank] += weights[table] / len(placed[table])
    return placed


def _load(embeddings: Embeddings, use: TableUse, step: StepRows | None) -> float:
    """What a table costs the rank that holds it: bytes gathered and sent a step, or its size without statistics."""
    table = embeddings.tables[use.table]
    if step is None:
        return float(table.num_embeddings * table.dim)
    ids = step.num_ids(use.features, embeddings.dedup)
    rows = ids if use.is_sequence else step.num_rows(use.features, embeddings.dedup)
    return (ids + 2 * rows) * table.dim * 4.0


def _generator(choice: tuple[str, Sequence[int] | None], ranks: list[int]) -> Callable[..., ParameterSharding]:
    # Named, because TorchRec would choose the dense kernel here, which on CPU corrupts the heap for un-pooled tables.
    kind, fused = choice[0], EmbeddingComputeKernel.FUSED.value
    if kind == "table_wise":
        return sharding_plan.table_wise(rank=ranks[0], compute_kernel=fused)
    if kind == "column_wise":
        return sharding_plan.column_wise(ranks=ranks, compute_kernel=fused)
    return sharding_plan.row_wise(compute_kernel=fused) if kind == "row_wise" else sharding_plan.data_parallel()


class _Holder(nn.Module):
    """Gives the tables the path that they have in the model."""


def _planned(
    embeddings: Embeddings,
    world_size: int,
    local_world_size: int,
    device_type: str,
    prefix: str,
    step: StepRows | None,
) -> ShardingPlan:
    """TorchRec's planner, told the unique rows and ids of each table instead of the batch's."""
    holder = _Holder()
    holder.add_module(prefix, embeddings)
    constraints = {u.table: _constraints(embeddings, u, step, world_size) for u in table_uses(embeddings)}
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=world_size, compute_device=device_type, local_world_size=local_world_size),
        batch_size=step.batch_size if step else 512,
        constraints=constraints,
    )
    noisy = logging.getLogger("torchrec.distributed.planner")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        sharders: list[Any] = [BagSharder(), ListSharder()]
        return planner.plan(module=holder, sharders=sharders)
    except PlannerError as error:
        raise ConfigError(
            f"plan.sharding=planner: TorchRec's planner found none ({error}); name one, e.g. plan=row_wise"
        ) from error
    finally:
        noisy.setLevel(level)


def _constraints(embeddings: Embeddings, use: TableUse, step: StepRows | None, world_size: int) -> ParameterConstraints:
    """What the planner must know of a table: types and kernels offered, rows and ids of a step."""
    width = embeddings.tables[use.table].dim
    rows_reach = _rows_reach(embeddings.tables[use.table].num_embeddings, world_size)
    types = ["table_wise"] + ["row_wise"] * rows_reach + ["column_wise"] * (width % (2 * WIDTH_UNIT) == 0)
    options: dict[str, Any] = {}
    if step is not None:
        stacked = [c.tables[use.table] for c in embeddings.classes if use.table in c.tables] or [(use.table,)]
        keys = len(stacked[0]) if embeddings.dedup else len(use.features)
        rows = max(1.0, step.num_rows(use.features, embeddings.dedup))
        ids = step.num_ids(use.features, embeddings.dedup)
        options = {
            "pooling_factors": [max(ids / rows, 1e-3)] * keys,
            "num_poolings": [1.0] * keys,
            "batch_sizes": [max(1, round(rows / keys))] * keys,
        }
    kernels = [EmbeddingComputeKernel.FUSED.value]
    return ParameterConstraints(sharding_types=types, compute_kernels=kernels, min_partition=WIDTH_UNIT, **options)
