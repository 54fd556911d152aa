"""The way of a batch: out to the ranks that hold the tables, and back; directly or in two steps.

::

    ask   --> what comes here --> lookups --> send_back --> receive --> for each unit what was computed

Both kinds of exchange have these three. ``sharded_embeddings.py`` does the lookups in between.
"""

from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.types import Awaitable, NoWait

from recd_dist.embedding.exchange.assemble import LookupResult, merge_matrices
from recd_dist.embedding.exchange.by_host import HostLayouts, relay_rows, relay_vectors, reorder_index, stack_rows
from recd_dist.embedding.exchange.context import Asked, LookupInputs
from recd_dist.embedding.exchange.host_sum import HostSum, sum_in_host
from recd_dist.embedding.exchange.inputs import Ids, Sizes, width_code
from recd_dist.embedding.exchange.layout import Layout
from recd_dist.embedding.exchange.outputs import VectorExchange, receive, start_exchange
from recd_dist.embedding.exchange.pieces import Integers
from recd_dist.embedding.exchange.return_index import Bundle
from recd_dist.embedding.exchange.unit_rows import unit_rows
from recd_dist.embedding.vocabulary.names import Codecs
from recd_dist.tensors.ikjt import IKJT

Step = tuple[VectorExchange, Tensor] | None
"""Vectors on their way: the exchange, and the tensor that stands for it; None if nothing travels."""


class Exchange(Protocol):
    """One of the two kinds.

    Attributes:
        lookups: the layout by which this rank looks up what comes.
    """

    lookups: Layout

    def ask(self, asked: Asked, sparse: IKJT) -> Awaitable[Awaitable[LookupInputs]]:
        """Starts to send rows and ids to the ranks that hold the tables.

        Args:
            asked: keeps what the way back needs.
            sparse: the batch.
        """
        ...

    def send_back(self, asked: Asked, rows: Integers, matrices: list[Tensor]) -> Step:
        """Starts to send vectors back.

        Args:
            asked: what ``ask`` kept.
            rows: for each matrix the number of rows from each rank, int64 [matrices, ranks].
            matrices: what was looked up for each local unit.
        """
        ...

    def receive(self, asked: Asked, step: Step) -> list[LookupResult]:
        """Waits for the vectors.

        Args:
            asked: what ``ask`` kept.
            step: what ``send_back`` returned.
        """
        ...


class DirectExchange:
    """Every rank talks to every other one.

    Args:
        layout: the units.
        codecs: how vectors and gradients are written while they travel.
        group: the process group of all ranks.
        host: the process group of this host, where partial sums are added up inside hosts.
        anchor: a tensor that requires a gradient.
    """

    def __init__(
        self,
        layout: Layout,
        codecs: Codecs,
        group: dist.ProcessGroup,
        host: dist.ProcessGroup | None,
        anchor: Tensor,
    ) -> None:
        self.lookups, self.codecs, self.group, self.host, self.anchor = layout, codecs, group, host, anchor

    def ask(self, asked: Asked, sparse: IKJT) -> Awaitable[Awaitable[LookupInputs]]:
        """As in ``Exchange``."""
        asked.units = [unit_rows(sparse, unit) for unit in self.lookups.units]
        return Sizes(self.lookups, asked, width_code(sparse.lengths), self.group)

    def send_back(self, asked: Asked, rows: Integers, matrices: list[Tensor]) -> Step:
        """As in ``Exchange``."""
        layout = self.lookups
        rows, matrices = self._sum_in_host(rows, matrices)
        widths = [layout.units[n].widths(layout.rank) for n in layout.local_units]
        step = VectorExchange(rows, widths, layout.returns, asked.num_sent, self.codecs, self.group)
        return step, start_exchange(step, matrices, self.anchor)

    def receive(self, asked: Asked, step: Step) -> list[LookupResult]:
        """As in ``Exchange``."""
        return merge_units(self.lookups, asked, receive_step(step))

    def _sum_in_host(self, rows: Integers, matrices: list[Tensor]) -> tuple[Integers, list[Tensor]]:
        """Adds up partial sums of tables that are split inside the host; returns numbers of rows, and matrices."""
        layout = self.lookups
        chosen = [k for k, n in enumerate(layout.local_units) if layout.is_summed_in_host(layout.units[n])]
        if self.host is None or not chosen:
            return rows, matrices
        columns = [sum(layout.units[layout.local_units[k]].widths(layout.rank)) for k in chosen]
        step = HostSum(rows[chosen], columns, self.host)
        summed = sum_in_host(step, [matrices[k] for k in chosen], self.anchor)
        rows, matrices = rows.copy(), list(matrices)
        rows[chosen] = step.kept_rows()
        for k, matrix in zip(chosen, summed, strict=True):
            matrices[k] = matrix
        return rows, matrices


class HostExchange:
    """Ranks talk to those of their host, and to those of the same number on other hosts.

    Args:
        layouts: the units, in both steps.
        codecs: how vectors and gradients are written while they travel between hosts.
        host: the process group of this host.
        across: the process group of the ranks of the same number, one for each host.
        anchor: a tensor that requires a gradient.
    """

    def __init__(
        self,
        layouts: HostLayouts,
        codecs: Codecs,
        host: dist.ProcessGroup,
        across: dist.ProcessGroup,
        anchor: Tensor,
    ) -> None:
        self.inner, self.lookups, self.returned = layouts.inner, layouts.outer, layouts.returned
        self.codecs, self.host, self.across, self.anchor = codecs, host, across, anchor

    def ask(self, asked: Asked, sparse: IKJT) -> Awaitable[Awaitable[LookupInputs]]:
        """As in ``Exchange``."""
        rows = [unit_rows(sparse, unit) for unit in self.inner.units]
        asked.units = [reorder_index(r, order) for r, order in zip(rows, self.returned, strict=True)]
        return _HostSizes(self, asked, Sizes(self.inner, asked, width_code(sparse.lengths), self.host))

    def relay(self, asked: Asked, ids: Ids) -> Awaitable[LookupInputs]:
        """Waits for what the host-mates ask for, and asks for it.

        Args:
            asked: what ``ask`` kept.
            ids: the exchange inside the host.
        """
        given = ids.wait()
        local, units = self.inner.local_units, [self.inner.units[n] for n in self.inner.local_units]
        asked.rows_here = stack_rows([given.units[n] for n in local], self.inner.world_size)
        asked.relayed = relayed = Asked()
        if not units:
            return NoWait(LookupInputs({}))
        relayed.units = [
            relay_rows(outer, inner, given.units[n], self.inner.rank)
            for n, inner, outer in zip(local, units, self.lookups.units, strict=True)
        ]
        return Sizes(self.lookups, relayed, int(ids.codes.max()), self.across).wait()

    def send_back(self, asked: Asked, rows: Integers, matrices: list[Tensor]) -> Step:
        """As in ``Exchange``."""
        layout = self.lookups
        if not layout.units or asked.relayed is None:
            return None
        widths = [layout.units[n].widths(layout.rank) for n in layout.local_units]
        step = VectorExchange(rows, widths, layout.returns, asked.relayed.num_sent, self.codecs, self.across)
        return step, start_exchange(step, matrices, self.anchor)

    def receive(self, asked: Asked, step: Step) -> list[LookupResult]:
        """As in ``Exchange``."""
        handed = list[Tensor]()
        if step is not None and asked.relayed is not None:
            parts = by_unit(self.lookups, receive_step(step))
            for unit, rows, of_unit in zip(self.lookups.units, asked.relayed.units, parts, strict=True):
                handed.append(relay_vectors(rows, of_unit, by_rows=unit.table_class.pooled))
        inner = self.inner
        widths = [inner.units[n].widths(inner.rank) for n in inner.local_units]
        back = VectorExchange(asked.rows_here, widths, inner.returns, asked.num_sent, Codecs(), self.host)
        return merge_units(inner, asked, receive(back, start_exchange(back, handed, self.anchor)))


class _HostSizes(Awaitable[Awaitable[LookupInputs]]):
    """The exchange of sizes inside a host; waiting for it waits for all but the ids between hosts."""

    def __init__(self, exchange: HostExchange, asked: Asked, sizes: Sizes) -> None:
        super().__init__()
        self._exchange, self._asked, self._sizes = exchange, asked, sizes

    def _wait_impl(self) -> Any:
        return self._exchange.relay(self._asked, self._sizes.wait())


def receive_step(step: Step) -> list[Tensor]:
    """Waits for vectors on their way; there are none where nothing travels.

    Args:
        step: what ``send_back`` returned.
    """
    return [] if step is None else receive(*step)


def by_unit(layout: Layout, matrices: list[Tensor]) -> list[list[tuple[Bundle, Tensor]]]:
    """For each unit of a layout its bundles with their matrices.

    Args:
        layout: the layout.
        matrices: the matrices of each bundle.
    """
    parts: list[list[tuple[Bundle, Tensor]]] = [[] for _ in layout.units]
    for bundle, values in zip(layout.returns.bundles, matrices, strict=True):
        parts[bundle.unit].append((bundle, values))
    return parts


def merge_units(layout: Layout, asked: Asked, matrices: list[Tensor]) -> list[LookupResult]:
    """For each unit what was computed for the rows of this rank.

    Args:
        layout: the layout.
        asked: the rows of each unit.
        matrices: the matrices of each bundle that came back.
    """
    results = []
    for unit, rows, of_unit in zip(layout.units, asked.units, by_unit(layout, matrices), strict=True):
        blocks = merge_matrices(of_unit, unit.table_class.pooled)
        results.append(LookupResult(unit.table_class, blocks, rows.index))
    return results
