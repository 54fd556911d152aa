"""Rows while they travel: how many bytes they take, how much they are rounded, and which codecs are refused."""

import pytest
import torch

from recd_dist.embedding.exchange.codec import CODECS
from recd_dist.embedding.tables import Embeddings
from recd_dist.embedding.vocabulary.names import CODEC_NAMES, Codecs, row_bytes
from recd_dist.errors import ConfigError
from recd_dist.table.schema import Feature, Kind, Schema, Table

ERROR = {
    "fp32": 0.0,
    "fp16": 5e-4,
    "bf16": 4e-3,
    "int8": 4e-3,
}  # of a number, relative to the largest of its table's row


@pytest.mark.parametrize("columns", [(16,), (8, 8), (4, 16, 8)])
@pytest.mark.parametrize("name", CODEC_NAMES)
def test_there_and_back(name: str, columns: tuple[int, ...]) -> None:
    codec = CODECS[name]
    scale = torch.repeat_interleave(10.0 ** torch.arange(len(columns)), torch.tensor(columns))
    rows = torch.randn(7, sum(columns), generator=torch.Generator().manual_seed(1)) * scale
    sent = codec.encode(rows, columns)
    assert (sent.dtype, tuple(sent.shape)) == (codec.dtype, (7, codec.row_size(columns)))
    assert sent.numel() * sent.element_size() == 7 * row_bytes(name, columns)
    back = codec.decode(sent, columns)
    for part, want in zip(back.split(columns, 1), rows.split(columns, 1), strict=True):
        assert (part - want).abs().max() <= ERROR[name] * want.abs().max()
    assert (name == "fp32") == bool((back == rows).all())


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_no_rows(name: str) -> None:
    sent = CODECS[name].encode(torch.empty(0, 12), (4, 8))
    assert CODECS[name].decode(sent, (4, 8)).shape == (0, 12)


def test_bf16_is_no_fp16() -> None:
    """Upstream's bf16 is fp16, where a number beyond the range of fp16 would come back infinite."""
    codec = CODECS["bf16"]
    assert codec.decode(codec.encode(torch.tensor([[1e20]]), (1,)), (1,)).item() == pytest.approx(1e20, rel=1e-2)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"plan\.codec\.forward=fp61: unknown; did you mean 'fp16'"):
        Codecs("fp61")
    with pytest.raises(ConfigError, match=r"backward=int8: .* small ones are lost in every step; use fp16 or bf16"):
        Codecs("int8", "int8")
    schema = Schema((Feature("a", Kind.ids, "user", "a"),))
    with pytest.raises(ConfigError, match="codecs need dedup=True"):
        Embeddings(schema, {"a": Table("a", 4, 4)}, dedup=False, codecs=Codecs("fp16"))
