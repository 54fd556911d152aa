"""Names on offer: sharding types, what travels of a table, codecs, table optimizers.

This module loads no torch, so that a job is checked without it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from recd_dist.errors import ConfigError, nearest

SHARDING_TYPES = {
    "TW": "table_wise",
    "RW": "row_wise",
    "CW": "column_wise",
    "TWCW": "table_column_wise",
    "TWRW": "table_row_wise",
    "GRID": "grid_shard",
    "DP": "data_parallel",
}
"""The sharding types on offer: for each short name the name that TorchRec uses."""

UNPOOLED_TYPES = ("TW", "RW", "CW")
"""Sharding types on offer for un-pooled tables, whose vectors travel as they are, without being summed up."""

PLACE_OPTIONS = {"TW": "ranks", "CW": "ranks", "TWCW": "ranks", "TWRW": "host", "GRID": "hosts"}
"""For each sharding type the option that names its ranks or hosts; row-wise and data-parallel tables lie on all."""

PLACE_KEYS = ("type", *dict.fromkeys(PLACE_OPTIONS.values()))
"""What the config can say of one table's place: ``{type: TWRW, host: 1}``."""

WIDTH_UNIT = 4
"""fbgemm's kernels need shards whose width, in columns, is a multiple of this number."""

Send = Literal["rows", "ids"]
"""What travels of a table: its unique rows, summed up where the table lies, or each distinct id once."""

SENDS: tuple[Send, ...] = get_args(Send)

ExchangeName = Literal["direct", "by_host"]
"""How a batch travels: to all ranks, or inside the host first and then between ranks of the same number."""

EXCHANGES: tuple[ExchangeName, ...] = get_args(ExchangeName)

CODEC_NAMES = ("fp32", "fp16", "bf16", "int8")

OptimizerName = Literal["rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb"]

TABLE_OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
"""Optimizers of the tables; ``embedding/distribute.py`` knows the kernel of each."""

CPU_OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad")
"""Table optimizers for which fbgemm has a CPU kernel."""

LookupKernel = Literal["auto", "fbgemm", "recd"]
"""What looks the tables up and updates them; ``auto`` is ``recd`` where it can be: on CPU, with dedup."""

LOOKUP_KERNELS: tuple[LookupKernel, ...] = get_args(LookupKernel)


def row_bytes(codec: str, widths: Iterable[int]) -> int:
    """Bytes that one row takes while it travels.

    Args:
        codec: name of the codec.
        widths: for each table in the row, or each shard of a table, the number of its columns.
    """
    return sum({"fp32": 4 * c, "fp16": 2 * c, "bf16": 2 * c, "int8": c + 8}[codec] for c in widths)


@dataclass(frozen=True)
class Codecs:
    """How the numbers of a row, float32 on either side, are written while they travel between ranks.

    | codec | bytes of a row of c columns | vectors (forward) | gradients (backward) |
    |---|---|---|---|
    | fp32 | 4 c | allowed | allowed |
    | fp16 | 2 c | allowed | allowed; gradients below 6e-8 become 0, those beyond 65,504 become infinite |
    | bf16 | 2 c | allowed | allowed |
    | int8 | c + 8: each table's part of a row has a scale and a shift | allowed | refused: small gradients get lost |

    The partial sums of row shards are decoded before they are added up, so that every codec works with every sharding
    type. TorchRec's own codecs do not: in torchrec 1.8 its bf16 is fp16 without a word, its int8 fails with row-wise
    sharding, and its fp8 fails.

    Attributes:
        forward: name of the codec of the vectors.
        backward: name of the codec of their gradients.

    Raises:
        ConfigError: there is no codec of that name, or the gradients would be int8.
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
                "plan.codec.backward=int8: int8 rounds the gradients of a row to 255 steps of their range, so that "
                "small ones are lost in every step; use fp16 or bf16"
            )
