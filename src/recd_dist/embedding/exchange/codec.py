"""Codecs at work: rows of float32 to what travels, and back (``codecs.py`` says what each is good for)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.embedding.names import row_bytes

Columns = tuple[int, ...]
"""Widths of the tables side by side in a row."""


@dataclass(frozen=True)
class Codec:
    """How rows of floats are written.

    Attributes:
        name: as in the config.
        dtype: of the tensor that is handed to the collective.
        encode: float32 [R, sum of columns], columns -> [R, row_size(columns)] of ``dtype``.
        decode: the way back.
    """

    name: str
    dtype: torch.dtype
    encode: Callable[[Tensor, Columns], Tensor]
    decode: Callable[[Tensor, Columns], Tensor]

    def row_size(self, columns: Columns) -> int:
        """Elements of ``dtype`` in a row."""
        return row_bytes(self.name, columns) // self.dtype.itemsize


def _same(values: Tensor, columns: Columns) -> Tensor:
    del columns
    return values


def _by_table(quantize: Callable[[Tensor], Tensor], values: Tensor, widths: Columns) -> Tensor:
    """Applies something to each table's part of each row; in one call where all are of one width."""
    if len(set(widths)) == 1:
        return quantize(values.reshape(-1, widths[0])).view(len(values), -1)
    return torch.cat([quantize(part.contiguous()) for part in values.split(list(widths), dim=1)], dim=1)


def _encode_int8(values: Tensor, columns: Columns) -> Tensor:
    # Two bytes an element: collectives take it, and who counts bytes sees that these are no ids.
    return _by_table(torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized, values, columns).view(torch.float16)


def _decode_int8(values: Tensor, columns: Columns) -> Tensor:
    quantized = values.contiguous().view(torch.uint8)
    return _by_table(torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat, quantized, tuple(c + 8 for c in columns))


CODECS = {
    "fp32": Codec("fp32", torch.float32, _same, _same),
    "fp16": Codec("fp16", torch.float16, lambda v, _: v.half(), lambda v, _: v.float()),
    "bf16": Codec(
        "bf16",
        torch.float16,
        lambda v, _: v.bfloat16().view(torch.float16),
        lambda v, _: v.view(torch.bfloat16).float(),
    ),
    "int8": Codec("int8", torch.float16, _encode_int8, _decode_int8),
}
"""By name. ``bf16`` and ``int8`` travel as bits of float16, which every backend takes."""
