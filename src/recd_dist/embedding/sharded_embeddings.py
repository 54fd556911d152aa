"""Embeddings over ranks: our exchange around TorchRec's shards and fused optimizers.

::

    IKJT --Sizes, Ids--> each rank's ids --TBE of each unit--> matrices --VectorExchange--> Assemble --> Grouped

One ShardedEmbeddingBagCollection for each class holds the shards: weights, optimizer states, checkpoints and kernels
are TorchRec's. Its own exchange is not used: there would be one for each class and sharding type, and it expands before
it returns. Here all tables, pooled or not, of any sharding type, share four collectives a step: sizes, ids, vectors and
gradients. Tables whose rows are split inside a host take one more in each direction, inside the host (``host_sum.py``).
Data-parallel tables exchange nothing; DDP sums their gradients.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.comm import get_local_size, intra_and_cross_node_pg
from torchrec.distributed.embedding_sharding import KJTListSplitsAwaitable
from torchrec.distributed.embedding_types import BaseEmbeddingSharder, KJTList
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
from torchrec.distributed.types import (
    EmbeddingModuleShardingPlan,
    LazyAwaitable,
    NoWait,
    ParameterSharding,
    ShardedModule,
    ShardingEnv,
)
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recd_dist.embedding.exchange.assemble import Assemble, Block, LookupResult, merge_matrices
from recd_dist.embedding.exchange.classes import class_rows
from recd_dist.embedding.exchange.context import Context, LookupInput, LookupInputs
from recd_dist.embedding.exchange.host_sum import HostSum, sum_in_host
from recd_dist.embedding.exchange.inputs import Sizes, width_code
from recd_dist.embedding.exchange.layout import Layout, Unit, build_layout
from recd_dist.embedding.exchange.outputs import VectorExchange, receive, start_exchange
from recd_dist.embedding.exchange.pieces import Integers
from recd_dist.embedding.exchange.return_index import Bundle
from recd_dist.embedding.exchange.unit_rows import unit_rows
from recd_dist.embedding.tables import Embeddings, check_weights, class_kjt
from recd_dist.embedding.vocabulary.names import SHARDING_TYPES
from recd_dist.embedding.vocabulary.placement import read_place
from recd_dist.table.module_names import module_key
from recd_dist.tensors.grouped import Embedded
from recd_dist.tensors.ikjt import IKJT


class EmbeddingsSharder(BaseEmbeddingSharder[Embeddings]):
    """Shards ``Embeddings`` with ``dedup=True``; DistributedModelParallel calls it."""

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
        return ShardedEmbeddings(module, params, env, self.fused_params, device)

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
    """

    def __init__(
        self,
        module: Embeddings,
        plan: dict[str, ParameterSharding],
        env: ShardingEnv,
        fused_params: dict[str, Any] | None,
        device: torch.device | None,
    ) -> None:
        super().__init__()
        if env.process_group is None or not isinstance(module.assemble, Assemble):
            raise ValueError("ShardedEmbeddings: needs Embeddings(dedup=True) and a process group")
        self.schema, self.tables, self.dedup, self.weighted = module.schema, module.tables, True, module.weighted
        self.sequence_tables, self.send, self.classes = module.sequence_tables, module.send, module.classes
        self.assemble, self.codecs, self.group = module.assemble, module.codecs, env.process_group
        self.pooled = nn.ModuleDict(
            {
                name: ShardedEmbeddingBagCollection(
                    part, {t: plan[t] for t in each.tables}, env, dict(fused_params or {}), device
                )
                for (name, part), each in zip(module.pooled.items(), module.classes, strict=True)
            }
        )
        parts: Any = self.pooled.values()
        for part in parts:
            part._has_uninitialized_input_dist = False  # TorchRec's own exchange, which pipelines ask for, is not used
        places = {table: read_place(plan[table]) for table in module.tables}
        host_size = get_local_size(env.world_size)
        self.layout: Layout = build_layout(module.classes, places, env.rank, env.world_size, host_size)
        self.host: dist.ProcessGroup | None = None
        if any(map(self.layout.is_summed_in_host, self.layout.units)):
            self.host, _ = intra_and_cross_node_pg(device, backend=dist.get_backend(self.group))
        self._kernels = {(unit.module, unit.sharding): self._kernel(unit) for unit in self._own_units()}
        # This is no parameter. With it gradients flow through the exchange on ranks without tables, too.
        self._anchor = torch.zeros(1, device=device, requires_grad=True)

    def _own_units(self) -> list[Unit]:
        return [*(self.layout.units[n] for n in self.layout.local_units), *self.layout.replicated]

    def _kernel(self, unit: Unit) -> nn.Module:
        """The kernel that looks up a unit's tables on this rank.

        Raises:
            RuntimeError: TorchRec groups the tables in another way than the layout, so that columns do not match.
        """
        module: Any = self.pooled[module_key(unit.module)]
        types = list(module.sharding_type_to_sharding_infos)
        lookup = module._lookups[types.index(SHARDING_TYPES[unit.sharding])]
        if unit.sharding == "DP":
            return lookup
        kernels = list(lookup._emb_modules)
        tables = [t for k in kernels for t in k.config.embedding_tables]
        parts = [(name, t.local_cols) for t in tables for name in t.feature_names]
        wanted = [(p.key, p.num_columns) for p in unit.parts[self.layout.rank]]
        if len(kernels) != 1 or parts != wanted:
            raise RuntimeError(
                f"TorchRec looks up {parts} of class '{unit.module}' with {len(kernels)} kernels, the exchange wants "
                f"one for {wanted}; this release of torchrec groups tables in another way than the tested ones"
            )
        return kernels[0]

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
        ctx.sparse = sparse
        if not self.layout.units:
            return KJTListSplitsAwaitable([NoWait(NoWait(LookupInputs({})))], ctx)
        ctx.asked.units = [unit_rows(sparse, unit) for unit in self.layout.units]
        sizes = Sizes(self.layout, ctx.asked, width_code(sparse.lengths), self.group)
        return KJTListSplitsAwaitable([sizes], ctx)

    def compute(self, ctx: Context, dist_input: KJTList) -> list[Tensor]:
        """Looks up this rank's tables for the rows of all ranks.

        Args:
            ctx: the context of this batch.
            dist_input: holds the ``LookupInputs`` of this rank.

        Returns:
            For each unit of which this rank holds shards a matrix, float32 [rows, columns].
        """
        inputs: LookupInputs = dist_input[0]
        rows = [inputs.units[n].num_rows for n in self.layout.local_units]
        ctx.asked.rows_here = np.stack(rows) if rows else np.zeros((0, self.layout.world_size), dtype=np.int64)
        return [self._look_up(self.layout.units[n], inputs.units[n]) for n in self.layout.local_units]

    def _look_up(self, unit: Unit, rows: LookupInput) -> Tensor:
        stride, parts = int(rows.num_rows.sum()), unit.parts[self.layout.rank]
        if stride == 0:
            return self._anchor.new_zeros(0, sum(unit.widths(self.layout.rank)))
        keys = [p.key for p in parts]
        kjt = KeyedJaggedTensor(keys, rows.values, rows.weights, lengths=rows.lengths, stride=stride)
        return self._kernels[unit.module, unit.sharding](kjt)

    def output_dist(self, ctx: Context, output: list[Tensor]) -> LazyAwaitable[Embedded]:
        """Starts the exchange of vectors, and waits for it when the result is first used.

        Args:
            ctx: the context of this batch.
            output: the matrices that ``compute`` returned.
        """
        layout = self.layout
        if not layout.units:
            return _Result(self, ctx, None, self._anchor)
        rows, matrices = self._sum_in_host(ctx.asked.rows_here, output)
        widths = [layout.units[n].widths(layout.rank) for n in layout.local_units]
        step = VectorExchange(rows, widths, layout.returns, ctx.asked.num_sent, self.codecs, self.group)
        return _Result(self, ctx, step, start_exchange(step, matrices, self._anchor))

    def _sum_in_host(self, rows: Integers, matrices: list[Tensor]) -> tuple[Integers, list[Tensor]]:
        """Adds up partial sums of tables that are split inside the host; returns numbers of rows, and matrices."""
        layout = self.layout
        chosen = [k for k, n in enumerate(layout.local_units) if layout.is_summed_in_host(layout.units[n])]
        if self.host is None or not chosen:
            return rows, matrices
        columns = [sum(layout.units[layout.local_units[k]].widths(layout.rank)) for k in chosen]
        step = HostSum(rows[chosen], columns, self.host)
        summed = sum_in_host(step, [matrices[k] for k in chosen], self._anchor)
        rows, matrices = rows.copy(), list(matrices)
        rows[chosen] = step.kept_rows()
        for k, matrix in zip(chosen, summed, strict=True):
            matrices[k] = matrix
        return rows, matrices

    def finish(self, ctx: Context, matrices: list[Tensor]) -> Embedded:
        """Makes grouped tensors of the matrices that came back.

        Args:
            ctx: the context of this batch.
            matrices: for each bundle of the layout its matrices.
        """
        sparse, results = ctx.sparse, []
        if sparse is None:
            raise RuntimeError("embeddings: finish() was called before a batch was sent")
        parts: list[list[tuple[Bundle, Tensor]]] = [[] for _ in self.layout.units]
        for bundle, values in zip(self.layout.returns.bundles if matrices else [], matrices, strict=True):
            parts[bundle.unit].append((bundle, values))
        for unit, rows, of_unit in zip(self.layout.units, ctx.asked.units, parts, strict=True):
            blocks = merge_matrices(of_unit, unit.table_class.pooled)
            results.append(LookupResult(unit.table_class, blocks, rows.index))
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

    def __init__(self, module: ShardedEmbeddings, ctx: Context, step: VectorExchange | None, sent: Tensor) -> None:
        super().__init__()
        self._parts = (module, ctx, step, sent)

    def _wait_impl(self) -> Embedded:
        module, ctx, step, sent = self._parts
        return module.finish(ctx, [] if step is None else receive(step, sent))
