"""Embeddings over ranks: our exchange around TorchRec's shards and fused optimizers.

::

    IKJT --Sizes, Ids--> each rank's ids --TBE of each unit--> matrices --VectorExchange--> Assemble --> Grouped

One ShardedEmbeddingBagCollection for each class holds the shards: weights, optimizer states, checkpoints and kernels
are TorchRec's. Its own exchange is not used: there would be one for each class and sharding type, and it expands before
it returns. Here all tables, pooled or not, of any sharding type, share four collectives a step: sizes, ids, vectors and
gradients. Tables whose rows are split inside a host take one more in each direction, inside the host (``host_sum.py``).
Data-parallel tables exchange nothing; DDP sums their gradients.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.comm import get_local_size, intra_and_cross_node_pg
from torchrec.distributed.embedding_sharding import KJTListSplitsAwaitable
from torchrec.distributed.embedding_types import BaseEmbeddingSharder, KJTList
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import (
    EmbeddingModuleShardingPlan,
    LazyAwaitable,
    NoWait,
    ParameterSharding,
    ShardedModule,
    ShardingEnv,
)
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.exchange.assemble import Assemble, Block, LookupResult
from recd_dist.embedding.exchange.by_host import split_layout, stack_rows
from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.exchange.context import Asked, Context, LookupInput, LookupInputs
from recd_dist.embedding.exchange.exchanges import DirectExchange, Exchange, HostExchange, Step
from recd_dist.embedding.exchange.layout import Layout, Unit, build_layout
from recd_dist.embedding.lookup.row_lookup import RowLookup, is_supported
from recd_dist.embedding.tables import Embeddings, check_weights, class_kjt
from recd_dist.embedding.uneven_shards import ShardedTables
from recd_dist.embedding.vocabulary.names import SHARDING_TYPES, ExchangeName, LookupKernel
from recd_dist.embedding.vocabulary.placement import read_place
from recd_dist.table.module_names import module_key
from recd_dist.tensors.grouped import Embedded
from recd_dist.tensors.ikjt import IKJT


class EmbeddingsSharder(BaseEmbeddingSharder[Embeddings]):
    """Shards ``Embeddings`` with ``dedup=True``; DistributedModelParallel calls it.

    Args:
        fused_params: arguments of the tables' optimizer.
        lookup: what looks the tables up.
    """

    def __init__(self, fused_params: dict[str, Any] | None = None, lookup: LookupKernel = "auto") -> None:
        super().__init__(fused_params=fused_params)
        self.lookup = lookup

    def shard(
        self,
        module: Embeddings,
        params: EmbeddingModuleShardingPlan,
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> "ShardedEmbeddings":
        """Makes the sharded module, which takes the place of the module."""
        del module_fqn
        return ShardedEmbeddings(module, params, env, self.fused_params, device, self.lookup)

    def shardable_parameters(self, module: Embeddings) -> dict[str, nn.Parameter]:
        """For each table its weight."""
        bags = EmbeddingBagCollectionSharder()
        return {t: p for part in module.pooled.values() for t, p in bags.shardable_parameters(part).items()}

    @property
    def module_type(self) -> type[Embeddings]:
        """The type of module that this sharder shards."""
        return Embeddings

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """All sharding types, on every device: one exchange serves them all."""
        del compute_device_type
        return list(SHARDING_TYPES.values())


class ShardedEmbeddings(ShardedModule[KJTList, list[Tensor], Embedded, Context]):
    """Over ranks what ``Embeddings`` is on one process.

    Args:
        module: the tables, with ``dedup=True``.
        plan: for each table TorchRec's description of its sharding.
        env: the ranks.
        fused_params: arguments of the tables' optimizer.
        device: device of this rank.
        lookup: what looks the tables up.
    """

    def __init__(
        self,
        module: Embeddings,
        plan: dict[str, ParameterSharding],
        env: ShardingEnv,
        fused_params: dict[str, Any] | None,
        device: torch.device | None,
        lookup: LookupKernel = "auto",
    ) -> None:
        super().__init__()
        if env.process_group is None or not isinstance(module.assemble, Assemble):
            raise ValueError("ShardedEmbeddings: needs Embeddings(dedup=True) and a process group")
        self.schema, self.tables, self.dedup, self.weighted = module.schema, module.tables, True, module.weighted
        self.sequence_tables, self.send, self.classes = module.sequence_tables, module.send, module.classes
        self.assemble, self.codecs, self.group = module.assemble, module.codecs, env.process_group
        self.exchange = module.exchange
        self.pooled = nn.ModuleDict(
            {
                name: ShardedTables(part, {t: plan[t] for t in each.tables}, env, dict(fused_params or {}), device)
                for (name, part), each in zip(module.pooled.items(), module.classes, strict=True)
            }
        )
        parts: Any = self.pooled.values()
        for part in parts:
            part._has_uninitialized_input_dist = False  # TorchRec's own exchange, which pipelines ask for, is not used
        places = {table: read_place(plan[table]) for table in module.tables}
        host_size = get_local_size(env.world_size)
        self.layout: Layout = build_layout(module.classes, places, env.rank, env.world_size, host_size)
        self._kernels = {(unit.module, unit.sharding): self._kernel(unit, lookup) for unit in self._own_units()}
        # This is no parameter. With it gradients flow through the exchange on ranks without tables, too.
        self._anchor = torch.zeros(1, device=device, requires_grad=True)
        self.exchange = module.exchange
        self.exchanges = self._build_exchanges(module.exchange, device)

    def _build_exchanges(self, wanted: ExchangeName, device: torch.device | None) -> list[Exchange]:
        """The exchanges of all units: one that is direct, or in two steps, or both where some units cannot take two."""
        layout, exchanges = self.layout, list[Exchange]()
        hosts_are_equal = layout.world_size % layout.host_size == 0
        by_host = wanted == "by_host" and 1 < layout.host_size < layout.world_size and hosts_are_equal
        direct, layouts = split_layout(layout) if by_host else (layout, None)
        host: dist.ProcessGroup | None = None
        across: dist.ProcessGroup | None = None
        if layouts is not None or any(map(direct.is_summed_in_host, direct.units)):
            host, across = intra_and_cross_node_pg(device, backend=dist.get_backend(self.group))
        if direct.units:
            exchanges.append(DirectExchange(direct, self.codecs, self.group, host, self._anchor))
        if layouts is not None and host is not None and across is not None:
            exchanges.append(HostExchange(layouts, self.codecs, host, across, self._anchor))
        return exchanges

    def _own_units(self) -> list[Unit]:
        return [*(self.layout.units[n] for n in self.layout.local_units), *self.layout.replicated]

    def _kernel(self, unit: Unit, lookup: LookupKernel) -> Callable[[KeyedJaggedTensor], Tensor]:
        """What looks up a unit's tables on this rank: TorchRec's kernel, or our loops over what it holds.

        Raises:
            RuntimeError: TorchRec groups the tables in another way than the layout, so that columns do not match.
        """
        module: Any = self.pooled[module_key(unit.module)]
        types = list(module.sharding_type_to_sharding_infos)
        of_type = module._lookups[types.index(SHARDING_TYPES[unit.sharding])]
        if unit.sharding == "DP":
            return of_type
        kernels = list(of_type._emb_modules)
        tables = [t for k in kernels for t in k.config.embedding_tables]
        parts = [(name, t.local_cols) for t in tables for name in t.feature_names]
        wanted = [(p.key, p.num_columns) for p in unit.parts[self.layout.rank]]
        if len(kernels) != 1 or parts != wanted:
            raise RuntimeError(
                f"TorchRec looks up {parts} of class '{unit.module}' with {len(kernels)} kernels, the exchange wants "
                f"one for {wanted}; this release of torchrec groups tables in another way than the tested ones"
            )
        (kernel,) = kernels
        use_loops = lookup != "fbgemm" and is_supported(kernel.emb_module)
        return RowLookup(kernel.emb_module, kernel) if use_loops else kernel

    def create_context(self) -> Context:
        """Makes an empty context for one batch."""
        return Context()

    def input_dist(self, ctx: Context, *input: Any, **kwargs: Any) -> Any:
        """Starts the exchange of sizes; waiting for what it returns starts the exchange of ids, and waits for that.

        Args:
            ctx: the context of this batch.
            input: the batch, an IKJT.
            kwargs: the batch, if it is not in ``input``.
        """
        (sparse,) = (*input, *kwargs.values())
        check_weights(sparse, self.weighted)
        ctx.sparse, ctx.asked = sparse, [Asked() for _ in self.exchanges]
        if not self.exchanges:
            return KJTListSplitsAwaitable([NoWait(NoWait(LookupInputs({})))], ctx)
        asked = [e.ask(kept, sparse) for e, kept in zip(self.exchanges, ctx.asked, strict=True)]
        return KJTListSplitsAwaitable(asked, ctx)

    def compute(self, ctx: Context, dist_input: KJTList) -> list[Tensor]:
        """Looks up this rank's tables for the rows of all ranks.

        Args:
            ctx: the context of this batch.
            dist_input: holds the ``LookupInputs`` of this rank.

        Returns:
            For each exchange, and each unit of which this rank holds shards, a matrix, float32 [rows, columns].
        """
        matrices = []
        for exchange, given in zip(self.exchanges, dist_input, strict=False):
            layout, inputs = exchange.lookups, cast(LookupInputs, given)
            matrices += [self._look_up(layout.units[n], inputs.units[n], layout.rank) for n in layout.local_units]
            ctx.rows.append(stack_rows([inputs.units[n] for n in layout.local_units], layout.world_size))
        return matrices

    def _look_up(self, unit: Unit, rows: LookupInput, rank: int) -> Tensor:
        stride, parts = int(rows.num_rows.sum()), unit.parts[rank]
        if stride == 0:
            return self._anchor.new_zeros(0, sum(unit.widths(rank)))
        keys = [p.key for p in parts]
        kjt = KeyedJaggedTensor(keys, rows.values, rows.weights, lengths=rows.lengths, stride=stride)
        return self._kernels[unit.module, unit.sharding](kjt)

    def output_dist(self, ctx: Context, output: list[Tensor]) -> LazyAwaitable[Embedded]:
        """Starts the exchange of vectors, and waits for it when the result is first used.

        Args:
            ctx: the context of this batch.
            output: the matrices that ``compute`` returned.
        """
        steps, rest = list[Step](), iter(output)
        for exchange, asked, rows in zip(self.exchanges, ctx.asked, ctx.rows, strict=True):
            steps.append(exchange.send_back(asked, rows, [next(rest) for _ in exchange.lookups.local_units]))
        return _Result(self, ctx, steps)

    def finish(self, ctx: Context, steps: list[Step]) -> Embedded:
        """Makes grouped tensors of the matrices that came back.

        Args:
            ctx: the context of this batch.
            steps: for each exchange the vectors on their way.
        """
        sparse, results = ctx.sparse, list[LookupResult]()
        if sparse is None:
            raise RuntimeError("embeddings: finish() was called before a batch was sent")
        for exchange, asked, step in zip(self.exchanges, ctx.asked, steps, strict=True):
            results += exchange.receive(asked, step)
        results += [self._look_up_copies(sparse, unit) for unit in self.layout.replicated]
        return self.assemble(sparse, results)

    def _look_up_copies(self, sparse: IKJT, unit: Unit) -> LookupResult:
        """Looks up tables of which this rank holds a copy."""
        table_class = unit.table_class
        rows = class_rows(sparse, table_class)
        out = self._kernels[unit.module, unit.sharding](class_kjt(table_class, rows))
        dims = tuple(self.tables[t].dim for t, keys in table_class.tables.items() for _ in keys)
        return LookupResult(table_class, (Block(tuple(table_class.stacks), dims, out),))

    def sharded_parameter_names(self, prefix: str = "") -> Iterator[str]:
        """Names of the parameters that are sharded, which DDP must not touch.

        Args:
            prefix: path of this module, which stands before every name.
        """
        for name, part in self.pooled.items():
            bags: Any = part
            yield from bags.sharded_parameter_names(f"{prefix}{'.' if prefix else ''}pooled.{name}")

    @property
    def unsharded_module_type(self) -> type[Embeddings]:
        """The type of module of which this one is the sharded form."""
        return Embeddings


class _Result(LazyAwaitable[Embedded]):
    """The embedded batch, which is waited for when it is first used."""

    def __init__(self, module: ShardedEmbeddings, ctx: Context, steps: list[Step]) -> None:
        super().__init__()
        self._parts = (module, ctx, steps)

    def _wait_impl(self) -> Embedded:
        module, ctx, steps = self._parts
        return module.finish(ctx, steps)
