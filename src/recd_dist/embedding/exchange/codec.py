"""Encodes vectors of float32 for the exchange, and decodes them on arrival.

``names.Codecs`` has the names from which a config chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recd_dist.embedding.vocabulary.names import row_bytes

Columns = tuple[int, ...]
"""For each table of a row the number of its columns; the tables stand side by side."""


@dataclass(frozen=True)
class Codec:
    """How rows of float32 are written while they travel.

    Attributes:
        name: name of the codec, as in the config.
        dtype: dtype of the tensor that the collective moves.
        encode: function of float32 [R, sum of columns] and the columns; returns [R, row_size(columns)] of ``dtype``.
        decode: function that turns the result of ``encode`` back, given the columns.
    """

    name: str
    dtype: torch.dtype
    encode: Callable[[Tensor, Columns], Tensor]
    decode: Callable[[Tensor, Columns], Tensor]

    def row_size(self, columns: Columns) -> int:
        """How many elements of ``dtype`` a row has."""
        return row_bytes(self.name, columns) // self.dtype.itemsize


def _keep(values: Tensor, columns: Columns) -> Tensor:
    del columns
    return values


def _apply_by_table(quantize: Callable[[Tensor], Tensor], values: Tensor, widths: Columns) -> Tensor:
    """Applies a function to each table's part of each row, in one call if all parts have the same width."""
    if len(set(widths)) == 1:
        return quantize(values.reshape(-1, widths[0])).view(len(values), -1)
    return torch.cat([quantize(part.contiguous()) for part in values.split(list(widths), dim=1)], dim=1)


def _encode_int8(values: Tensor, columns: Columns) -> Tensor:
    # An element of two bytes: collectives take it, and the counting of bytes can tell it from ids.
    return _apply_by_table(torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized, values, columns).view(torch.float16)


def _decode_int8(values: Tensor, columns: Columns) -> Tensor:
    quantized = values.contiguous().view(torch.uint8)
    return _apply_by_table(torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat, quantized, tuple(c + 8 for c in columns))


CODECS = {
    "fp32": Codec("fp32", torch.float32, _keep, _keep),
    "fp16": Codec("fp16", torch.float16, lambda v, _: v.half(), lambda v, _: v.float()),
    "bf16": Codec(
        "bf16",
        torch.float16,
        lambda v, _: v.bfloat16().view(torch.float16),
        lambda v, _: v.view(torch.bfloat16).float(),
    ),
    "int8": Codec("int8", torch.float16, _encode_int8, _decode_int8),
}
"""For each name its codec. ``bf16`` and ``int8`` travel as the bits of float16, which every backend can move."""
