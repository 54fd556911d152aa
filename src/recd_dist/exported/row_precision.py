"""How rows of embedding tables are written with fewer bytes: halves, or 8 bits with a scale for each row.

::

    row      0.50 -0.25 0.10          scale = 0.50 / 127, rounded up to 8 bits of mantissa (bfloat16)
    int8      127   -63   25          row ~ int8 * scale; no number is further off than half a scale

fbgemm's 8-bit rows have a scale and an offset of 4 bytes each, so that a row of 16 numbers takes 24 bytes of 64. Rows
here are centred at 0, which is where trained rows are, and the scale has 2 bytes: 18 of 64.
"""

import torch
from torch import Tensor

_LARGEST = 127


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as 8-bit integers.

    Args:
        rows: float32 [R, D], finite.

    Returns:
        int8 [R, D], and the scales bfloat16 [R]; a row of zeros has the scale 0.
    """
    largest = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    scale = _round_up(largest / _LARGEST)
    inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
    inverse = torch.where(torch.isfinite(inverse), inverse, 0.0)  # of rows so small that they count as zeros
    numbers = (rows * inverse[:, None]).round_().clamp_(-_LARGEST, _LARGEST)
    return numbers.to(torch.int8), scale


def _round_up(numbers: Tensor) -> Tensor:
    """The smallest bfloat16 numbers that are not below some positive ones: no row then needs more than 127."""
    bits = numbers.float().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)


def dequantise(numbers: Tensor, scale: Tensor) -> Tensor:
    """The rows for which 8-bit integers stand, float32 [R, D].

    Args:
        numbers: int8 [R, D].
        scale: bfloat16 [R].
    """
    return numbers.float() * scale.float()[:, None]
