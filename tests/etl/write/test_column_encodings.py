"""Each column gets the encoding and the level that suit its values; unknown codecs and levels are refused."""

import numpy as np
import pyarrow as pa
import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.write.column_encodings import check_compression, choose_encodings
from recd_dist.etl.write.part_files import required_table


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zst", r"compression 'zst': no such codec; did you mean 'zstd'\?"),
        ("zstd:0", "a level is a number from 1 to 22, such as zstd:6"),
        ("zstd:", "a level is a number from 1 to 22"),
        ("zstd:fast", "a level is a number from 1 to 22"),
        ("lz4:13", "a level is a number from 1 to 12"),
    ],
)
def test_an_unknown_codec_or_level_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        check_compression(name)


def test_levels_are_chosen_where_they_gain():
    rng = np.random.default_rng(0)
    n = 8192
    histories = np.concatenate([np.delete(range(200), rng.integers(0, 200, 9)) for _ in range(60)])[:n]
    rows = required_table(
        ["row", "numbers", "few", "history"],
        [
            pa.array(np.arange(n)),
            pa.array(rng.normal(0, 1, n).astype(np.float32)),
            pa.array(rng.integers(0, 20, n).astype(np.int32)),
            pa.array(histories),
        ],
    )
    chosen = choose_encodings(rows, n, "zstd")
    assert chosen["row"] == "DELTA_BINARY_PACKED"
    assert chosen["numbers"] in ("BYTE_STREAM_SPLIT:6", "BYTE_STREAM_SPLIT:12")
    assert chosen["few"] == "BYTE_STREAM_SPLIT:1"
    assert choose_encodings(rows, n, "lz4")["history"].endswith((":6", ":9"))
    for compression in ("zstd:3", "lz4:3"):
        assert not any(":" in choice for choice in choose_encodings(rows, n, compression).values())
    assert choose_encodings(rows, n, "zstd", levels=False)["few"] in ("BYTE_STREAM_SPLIT", "RLE_DICTIONARY")
