"""Sharding types by their short names; no torch, so that a job is checked without it."""

from collections.abc import Iterable
from dataclasses import dataclass

from recd_dist.errors import ConfigError, nearest

TYPES = {
    "TW": "table_wise",
    "RW": "row_wise",
    "CW": "column_wise",
    "TWCW": "table_column_wise",
    "TWRW": "table_row_wise",
    "GRID": "grid_shard",
    "DP": "data_parallel",
}
"""Sharding types offered, by short name, in TorchRec's spelling."""


WIDTH_UNIT = 4
"""fbgemm's kernels want every shard's width to be a multiple of this."""


UNPOOLED = ("TW", "RW", "CW")
"""Types of un-pooled tables, of which whole vectors travel."""


CODEC_NAMES = ("fp32", "fp16", "bf16", "int8")


def row_bytes(name: str, columns: Iterable[int]) -> int:
    """Bytes of a row of some tables' columns.

    Args:
        name: of a codec.
        columns: of each table, or shard of one.
    """
    return sum({"fp32": 4 * c, "fp16": 2 * c, "bf16": 2 * c, "int8": c + 8}[name] for c in columns)


@dataclass(frozen=True)
class Codecs:
    """The codec of each direction.

    Attributes:
        forward: of vectors.
        backward: of their gradients.

    Raises:
        ConfigError: a name that does not exist, or int8 gradients.
    """

    forward: str = "fp32"
    backward: str = "fp32"

    def __post_init__(self) -> None:
        for direction in ("forward", "backward"):
            name = getattr(self, direction)
            if name not in CODEC_NAMES:
                raise ConfigError(f"plan.codec.{direction}={name}: unknown{nearest(str(name), CODEC_NAMES)}")
        if self.backward == "int8":
            raise ConfigError(
                "plan.codec.backward=int8: of gradients rounded to 255 steps of their row's range small ones are lost "
                "in every step; use fp16 or bf16"
            )


TABLE_OPTIMIZERS = ("rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb")


ON_CPU = ("sgd", "adagrad", "rowwise_adagrad")
