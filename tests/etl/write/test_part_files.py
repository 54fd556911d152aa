"""Parquet as the format says: required columns, encodings that suit the data, checksums of what is on disk."""

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd_dist.etl.write.part_files import PartWriter, required_table
from recd_dist.etl.write.stored_types import list_type


def encodings(path, column: str) -> tuple[str, ...]:
    row_group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {(c := row_group.column(i)).path_in_schema: c for i in range(row_group.num_columns)}
    return columns[column].encodings


def test_files_row_groups_and_checksums(tmp_path):
    writer = PartWriter(tmp_path, 3, "zstd")
    lists = pa.array([[1], [], [1], []], list_type(pa.int32()))
    writer.write("u", required_table(["row", "items"], [pa.array([0, 1, 2, 3]), lists]), np.array([0, 2, 4]))
    streams = required_table(["stream", "items"], [pa.array([0, 1]), pa.array([[1], [2, 3]], list_type(pa.int32()))])
    writer.write("u.stream", streams, np.array([0, 1, 2]))
    done = []
    numbers = pa.array([0, 2])
    writer.write(
        "samples", required_table(["sample_id", "u_row"], [numbers, numbers]), np.array([0, 1, 2]), done.append
    )
    part = writer.close()
    assert done == [1, 1]
    assert (part.number, part.streams["u"].path) == (3, "u.stream/part-00003.parquet")
    assert set(part.groups) == {"u"}
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
    columns = ["sample_id", "u_row", "hashed", "few", "numbers", "timestamp"]
    ids = pa.array(np.arange(n))
    times = pa.array(np.cumsum(rng.integers(1, 60_000_000, n)))
    writer.write("samples", required_table(columns, [ids, ids, hashed, few, numbers, times]), np.array([0, n]))
    writer.close()
    file = tmp_path / "samples" / "part-00000.parquet"
    assert "DELTA_BINARY_PACKED" in encodings(file, "sample_id")
    assert "DELTA_BINARY_PACKED" in encodings(file, "u_row")
    assert "RLE_DICTIONARY" in encodings(file, "few")
    assert "RLE_DICTIONARY" not in encodings(file, "hashed")
    assert "BYTE_STREAM_SPLIT" in encodings(file, "numbers")
    assert "DELTA_BINARY_PACKED" in encodings(file, "timestamp")


def test_chosen_encodings_are_taken_as_they_are(tmp_path):
    ids = pa.array(np.arange(1000))
    writer = PartWriter(tmp_path, 0, "zstd:1", {"samples": {"ids": "PLAIN"}})
    writer.write("samples", required_table(["ids"], [ids]), np.array([0, 1000]))
    writer.close()
    assert set(encodings(tmp_path / "samples/part-00000.parquet", "ids")) == {"PLAIN", "RLE"}


def test_a_higher_level_is_smaller(tmp_path):
    rng = np.random.default_rng(0)
    ids = pa.array(np.concatenate([np.delete(range(500), rng.integers(0, 500, 20)) for _ in range(100)]))
    sizes = []
    for number, compression in enumerate(("zstd:1", "zstd:19")):
        writer = PartWriter(tmp_path, number, compression, {"samples": {"ids": "PLAIN"}})
        writer.write("samples", required_table(["ids"], [ids]), np.array([0, len(ids)]))
        sizes.append(writer.close().samples.num_bytes)
    assert sizes[0] > sizes[1]


def test_only_running_numbers_and_keys_have_statistics(tmp_path):
    ids = pa.array(np.arange(1000))
    writer = PartWriter(tmp_path, 0, "zstd")
    writer.write("samples", required_table(["sample_id", "timestamp", "u_row", "item"], [ids] * 4), np.array([0, 1000]))
    writer.close()
    row_group = pq.ParquetFile(tmp_path / "samples/part-00000.parquet").metadata.row_group(0)
    assert [row_group.column(i).is_stats_set for i in range(4)] == [True, True, True, False]


def test_the_chosen_level_is_the_one_written(tmp_path):
    ids = pa.array(np.random.default_rng(0).integers(0, 20, 50_000).astype(np.int32))
    sizes = []
    for number, choice in enumerate(("BYTE_STREAM_SPLIT", "BYTE_STREAM_SPLIT:3", "BYTE_STREAM_SPLIT:1")):
        writer = PartWriter(tmp_path, number, "zstd", {"samples": {"ids": choice}})
        writer.write("samples", required_table(["ids"], [ids]), np.array([0, len(ids)]))
        sizes.append(writer.close().samples.num_bytes)
    assert sizes[0] == sizes[1] > sizes[2]
