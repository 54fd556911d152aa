"""What a batch costs to move to the embeddings and back."""

from collections.abc import Iterable
from dataclasses import dataclass

STEP = 2048
"""Samples of the batch whose cost is shown; one of ``row_repeats.BATCH_SIZES``."""

DIM = 64
"""Width of an embedding vector in the cost shown, in float32."""

VECTOR_BYTES = 4 * DIM
"""Bytes of one embedding vector."""

LENGTH_BYTES = 4
"""Bytes of the length of one list, int32."""


@dataclass(frozen=True)
class Cost:
    """What rows cost to move.

    Attributes:
        ids: number of ids that are sent and looked up.
        input_bytes: bytes of these ids and of the int32 lengths of their lists.
        output_bytes: bytes of the pooled vectors that come back, one of ``DIM`` float32 for each list.
    """

    ids: float
    input_bytes: float
    output_bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.ids + other.ids, self.input_bytes + other.input_bytes, self.output_bytes + other.output_bytes)

    def __mul__(self, rows: float) -> "Cost":
        return Cost(self.ids * rows, self.input_bytes * rows, self.output_bytes * rows)


def row_cost(features: Iterable[tuple[float, int]]) -> Cost:
    """What one row of sparse features costs to move.

    Args:
        features: for each feature the mean number of ids in a row, and the bytes of an id.
    """
    lists = list(features)
    return Cost(
        ids=sum(num_ids for num_ids, _ in lists),
        input_bytes=sum(num_ids * id_bytes + LENGTH_BYTES for num_ids, id_bytes in lists),
        output_bytes=float(len(lists) * VECTOR_BYTES),
    )
