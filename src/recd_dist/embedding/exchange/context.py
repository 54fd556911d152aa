"""What the exchange keeps of a batch on its way, and what lookups take."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchrec.streamable import Multistreamable

from recd_dist.embedding.exchange.pieces import Integers
from recd_dist.embedding.exchange.unit_rows import UnitRows
from recd_dist.tensors.ikjt import IKJT

NO_ROWS: Integers = np.zeros((0, 0), dtype=np.int64)


@dataclass(eq=False)
class Asked(Multistreamable):
    """What the way out keeps for the way back.

    Attributes:
        units: the rows of each unit.
        num_sent: for each rank and unit the number of rows whose vectors come back, int64 [W, units]; set when the
            sizes are known.
        rows_here: for each unit of which this rank is a relay the number of rows from each host-mate, int64 [units, L];
            only in an exchange of two steps.
        relayed: what this rank asks for as a relay; only in an exchange of two steps.
    """

    units: list[UnitRows] = field(default_factory=list)
    num_sent: Integers = field(default_factory=NO_ROWS.copy)
    rows_here: Integers = field(default_factory=NO_ROWS.copy)
    relayed: "Asked | None" = None

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        for tensor in (t for rows in self.units for t in rows.tensors()):
            if tensor.is_cuda:
                tensor.record_stream(stream)
        if self.relayed is not None:
            self.relayed.record_stream(stream)


@dataclass(eq=False)
class Context(Multistreamable):
    """One batch on its way.

    Attributes:
        sparse: the batch.
        asked: what each exchange keeps.
        rows: for each exchange, and each unit of which this rank holds shards, the number of rows from each rank.
    """

    sparse: IKJT | None = None
    asked: list[Asked] = field(default_factory=list)
    rows: list[Integers] = field(default_factory=list)

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        if self.sparse is not None:
            self.sparse.record_stream(stream)
        for asked in self.asked:
            asked.record_stream(stream)


@dataclass(frozen=True, eq=False)
class LookupInput:
    """What the lookup of one unit takes.

    Attributes:
        num_rows: number of rows of each key, from each rank, int64 [W].
        values: ids, key after key, rank after rank.
        lengths: number of ids of each row, int32; every key has as many rows as ``num_rows`` sums to.
        weights: weight of each id, float32, or None.
        counts: where every row is one id, the number of ids of each segment from each rank, int64 [W, segments].
    """

    num_rows: Integers
    values: Tensor
    lengths: Tensor
    weights: Tensor | None = None
    counts: Integers | None = None


@dataclass(frozen=True, eq=False)
class LookupInputs(Multistreamable):
    """What the lookups of this rank take for one batch of all ranks.

    Attributes:
        units: for the number of each unit what its lookup takes.
    """

    units: dict[int, LookupInput]

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the CUDA allocator that a stream uses these tensors."""
        for each in self.units.values():
            for tensor in (each.values, each.lengths, each.weights):
                if tensor is not None and tensor.is_cuda:
                    tensor.record_stream(stream)
