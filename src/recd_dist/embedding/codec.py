"""Vectors and gradients on the wire: float32, or half or a quarter of it.

| codec | bytes of a row of c columns | forward | backward |
|---|---|---|---|
| fp32 | 4 c | yes | yes |
| fp16 | 2 c | yes | yes; gradients below 6e-8 become 0, so scale the loss when they are small |
| bf16 | 2 c | yes | yes |
| int8 | c + 8: a scale and a shift per row | yes | no: rounding to 255 steps of a row's range is not unbiased |

Row shards are decoded before they are added up, so every codec is right under every sharding. (TorchRec's own: bf16 is
silently fp16, int8 fails under row-wise sharding, fp8 fails; torchrec 1.8.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.errors import ConfigError, nearest


@dataclass(frozen=True)
class Codec:
    """How rows of floats are written.

    Attributes:
        name: as in the config.
        dtype: of the tensor that is handed to the collective.
        row_size: elements of ``dtype`` for a row of so many columns.
        encode: float32 [R, c] -> [R, row_size(c)].
        decode: [R, row_size(c)], c -> float32 [R, c].
    """

    name: str
    dtype: torch.dtype
    row_size: Callable[[int], int]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]

    def row_bytes(self, num_columns: int) -> int:
        """Bytes of a row."""
        return self.row_size(num_columns) * self.dtype.itemsize


def _same(values: Tensor) -> Tensor:
    return values


def _encode_int8(values: Tensor) -> Tensor:
    # Two bytes an element: collectives take it, and who counts bytes sees that these are no ids.
    return torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(values.contiguous()).view(torch.float16)


def _decode_int8(values: Tensor) -> Tensor:
    return torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(values.contiguous().view(torch.uint8))


CODECS = {
    "fp32": Codec("fp32", torch.float32, lambda c: c, _same, _same),
    "fp16": Codec("fp16", torch.float16, lambda c: c, Tensor.half, Tensor.float),
    "bf16": Codec(
        "bf16",
        torch.float16,
        lambda c: c,
        lambda v: v.bfloat16().view(torch.float16),
        lambda v: v.view(torch.bfloat16).float(),
    ),
    "int8": Codec("int8", torch.float16, lambda c: (c + 8) // 2, _encode_int8, _decode_int8),
}
"""By name. ``bf16`` and ``int8`` travel as bits of float16, which every backend takes."""


@dataclass(frozen=True)
class Codecs:
    """The codec of each direction.

    Attributes:
        forward: of vectors.
        backward: of their gradients.
    """

    forward: str = "fp32"
    backward: str = "fp32"

    def __post_init__(self) -> None:
        for direction in ("forward", "backward"):
            name = getattr(self, direction)
            if name not in CODECS:
                raise ConfigError(f"plan.codec.{direction}={name}: unknown{nearest(name, CODECS)}")
        if self.backward == "int8":
            raise ConfigError(
                "plan.codec.backward=int8: rounding gradients to 255 steps of a row's range is biased, small ones are "
                "lost in every step; use fp16 or bf16"
            )
