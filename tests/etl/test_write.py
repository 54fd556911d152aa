"""Parquet as the format says: required columns, encodings that suit the data, checksums of what is on disk."""

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd_dist.errors import ConfigError
from recd_dist.etl.convert import list_type
from recd_dist.etl.write import PartWriter, checked_compression, required


def encodings(path, column: str) -> tuple[str, ...]:
    row_group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {(c := row_group.column(i)).path_in_schema: c for i in range(row_group.num_columns)}
    return columns[column].encodings


def test_files_row_groups_and_checksums(tmp_path):
    writer = PartWriter(tmp_path, 3, "zstd")
    for row in (0, 2):
        lists = pa.array([[1], []], list_type(pa.int32()))
        rows = required(["row", "items"], [pa.array([row, row + 1]), lists])
        writer.write(required(["sample_id", "u_row"], [pa.array([row]), pa.array([row])]), {"u": rows})
    part = writer.close()
    file = tmp_path / "u" / "part-00003.parquet"
    assert part.groups["u"].path == "u/part-00003.parquet"
    assert (part.samples.row_groups, part.groups["u"].row_groups) == ((1, 1), (2, 2))
    assert part.groups["u"].num_bytes == file.stat().st_size
    assert part.groups["u"].crc32 == zlib.crc32(file.read_bytes())
    schema = pq.read_schema(file)
    assert not schema.field("items").nullable
    assert not schema.field("items").type.value_field.nullable
    assert pq.read_table(file).to_pydict() == {"row": [0, 1, 2, 3], "items": [[1], [], [1], []]}


def test_each_column_is_encoded_as_its_values_ask(tmp_path):
    rng = np.random.default_rng(0)
    n = 4096
    hashed = pa.array(rng.integers(0, 2**62, n))
    few = pa.array(rng.choice(rng.integers(0, 2**62, 4), n))
    numbers = pa.array(rng.normal(1000, 1, n).astype(np.float32))
    writer = PartWriter(tmp_path, 0, "lz4")
    columns = ["sample_id", "u_row", "hashed", "few", "numbers"]
    ids = pa.array(np.arange(n))
    writer.write(required(columns, [ids, ids, hashed, few, numbers]), {})
    writer.close()
    file = tmp_path / "samples" / "part-00000.parquet"
    assert "DELTA_BINARY_PACKED" in encodings(file, "sample_id")
    assert "DELTA_BINARY_PACKED" in encodings(file, "u_row")
    assert "RLE_DICTIONARY" in encodings(file, "few")
    assert "RLE_DICTIONARY" not in encodings(file, "hashed")
    assert "BYTE_STREAM_SPLIT" in encodings(file, "numbers")


def test_an_unknown_codec_is_refused():
    with pytest.raises(ConfigError, match=r"compression 'zst': no such codec; did you mean 'zstd'\?"):
        checked_compression("zst")
