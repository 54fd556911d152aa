"""Names on offer: bytes of a row by codec, and codecs that are refused."""

import pytest

from recd_dist.embedding.vocabulary.names import CODEC_NAMES, PLACE_KEYS, SHARDING_TYPES, Codecs, row_bytes
from recd_dist.errors import ConfigError


@pytest.mark.parametrize(("codec", "num_bytes"), [("fp32", 48), ("fp16", 24), ("bf16", 24), ("int8", 28)])
def test_a_row_of_two_tables_of_8_and_4_columns(codec: str, num_bytes: int) -> None:
    assert row_bytes(codec, [8, 4]) == num_bytes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("fp8", "fp32"), "plan.codec.forward=fp8: unknown"),
        (("fp32", "bf61"), "plan.codec.backward=bf61: unknown; did you mean 'bf16'?"),
        (("int8", "int8"), "use fp16 or bf16"),
    ],
)
def test_codecs_that_are_refused(names: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Codecs(*names)


def test_every_other_codec_goes_both_ways() -> None:
    assert [Codecs(name, name).forward for name in CODEC_NAMES if name != "int8"] == ["fp32", "fp16", "bf16"]


def test_what_a_config_can_say_of_a_place() -> None:
    assert PLACE_KEYS == ("type", "ranks", "host", "hosts")
    assert list(SHARDING_TYPES) == ["TW", "RW", "CW", "TWCW", "TWRW", "GRID", "DP"]
