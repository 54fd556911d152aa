"""Loops over pages read and write nothing beyond what they were given, whatever bytes a damaged file holds.

The loops run uncompiled here, and every address that they use is looked up among the bytes that they were given: a
compiled loop that reads too far finds some other memory there, and nobody notices.
"""

import ctypes
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.reader.chunks.test_column_chunks import ENCODINGS, decode, open_columns, required, write

from recd_dist.reader.chunks import encodings, flat_pages, pages, thrift
from recd_dist.reader.chunks.flat_chunks import FlatFile, FlatRows


class BeyondError(Exception):
    """An address of bytes that nobody gave to the loops; the reader knows no such error, so it ends the test."""


class Memory:
    """The bytes that loops may read and write; pages have bytes of their own where a codec unpacks them."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.codec = True
        self.dictionaries: list[tuple[int, int]] = []
        self.spaces: Callable[[], list[tuple[int, int]]] = list

    def allow(self, *spans: tuple[int, int]) -> None:
        self.spans = [(int(start), int(start) + int(size)) for start, size in spans]

    def check(self, address: int, size: int) -> int:
        if not any(start <= address and address + size <= end for start, end in self.spans):
            raise BeyondError(f"{size} bytes at {address}")
        return int(address)

    def load(self, kind: type) -> Callable[[int, int], int]:
        size = ctypes.sizeof(kind)
        return lambda address, place: kind.from_address(self.check(address + size * place, size)).value

    def store(self, kind: type) -> Callable[[int, int, int], None]:
        size = ctypes.sizeof(kind)

        def write(address: int, place: int, value: int) -> None:
            kind.from_address(self.check(address + size * place, size)).value = int(value)

        return write

    def copy(self, to: int, source: int, size: int) -> None:
        if size:
            ctypes.memmove(self.check(to, int(size)), self.check(source, int(size)), int(size))


def span_of(array: np.ndarray) -> tuple[int, int]:
    return array.ctypes.data, array.nbytes


@pytest.fixture
def memory(monkeypatch) -> Memory:
    """Runs the loops uncompiled, over memory that is looked at."""
    memory = Memory()
    own = {f"load_{n}": memory.load(kind) for n, kind in (("byte", ctypes.c_uint8), ("int32", ctypes.c_int32))}
    own |= {"load_int64": memory.load(ctypes.c_int64), "store_int32": memory.store(ctypes.c_int32)}
    own |= {"store_int64": memory.store(ctypes.c_int64), "copy_bytes": memory.copy}
    read_varint, read_footer = thrift.read_varint.py_func, thrift.read_footer.py_func
    find_pages, decode_pages = pages.find_pages.py_func, pages.decode_pages.py_func
    decode_flat_pages = flat_pages.decode_flat_pages.py_func

    def read_signed(*arguments: int) -> tuple[int, int]:
        value, place = read_varint(*arguments)
        return (int(value) + 2**63) % 2**64 - 2**63, place  # as 64 bits hold it

    def read_given(address: int, size: int, out: np.ndarray) -> bool:
        memory.allow((address, size))
        return read_footer(address, size, out)

    def find_in_given(buffer: int, size: int, *rest: object) -> int:
        memory.allow((buffer, size))
        return find_pages(buffer, size, *rest)

    def decode_given(found, unpacked, items, num_values, values, offsets, num_rows, scratch) -> int:
        given = zip(unpacked, found[:, pages.UNPACKED_SIZE if memory.codec else pages.SIZE], strict=True)
        lists = [(start, 4 * (rows + 1)) for start, rows in zip(offsets, num_rows, strict=True) if start]
        memory.allow(*given, *zip(values, num_values * items, strict=True), *lists, span_of(scratch))
        return decode_pages(found, unpacked, items, num_values, values, offsets, num_rows, scratch)

    def decode_flat_given(found, unpacked, columns, scratch) -> None:
        given = list(zip(unpacked, found[:, pages.UNPACKED_SIZE], strict=True))
        memory.dictionaries += [span for span, page in zip(given, found, strict=True) if page[1] == thrift.DICTIONARY]
        memory.allow(*given, *memory.dictionaries, *memory.spaces(), span_of(scratch))
        decode_flat_pages(found, unpacked, columns, scratch)

    for module in (thrift, encodings, pages, flat_pages):
        for name, value in list(vars(module).items()):
            if name in own or hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, own.get(name) or value.py_func)
        monkeypatch.setattr(module, "read_varint", read_signed, raising=False)
    monkeypatch.setattr(thrift, "read_footer", read_given)
    monkeypatch.setattr(pages, "find_pages", find_in_given)
    monkeypatch.setattr(pages, "decode_pages", decode_given)
    monkeypatch.setattr(flat_pages, "decode_flat_pages", decode_flat_given)
    return memory


def damage(path: Path, whole: bytes, place: int, byte: int) -> None:
    """Writes a file in place, with one byte of it changed."""
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])


def start_of_footer(whole: bytes) -> int:
    return len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")


def made(path: Path, encoding: str, codec: str, is_list: bool, nullable: bool = False) -> bytes:
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, 9, n).tolist() for n in rng.integers(0, 4, 20)]
    array = pa.array(lists, pa.list_(pa.int64())) if is_list else pa.array(range(20), pa.int64())
    field = pa.field("x", array.type) if nullable else required("x", pa.int64(), is_list)
    write(path, {"x": (field, array, encoding)}, codec, data_page_size=100)
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy tells of numbers that overflow, as compiled ones do
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("is_list", [False, True])
def test_damaged_pages_are_left_within_their_bytes(tmp_path, memory, encoding, codec, is_list) -> None:
    path, memory.codec = tmp_path / "x.parquet", codec != "none"
    whole, refused = made(path, encoding, codec, is_list), 0
    reader = open_columns(path, pq.ParquetFile(path), ["x"])
    for place in range(4, start_of_footer(whole)):
        damage(path, whole, place, (0xFF, whole[place] ^ 0x80, 0x7F, whole[place] ^ 2)[place % 4])
        for index in range(2):
            try:
                decode(reader, index)
            except (ValueError, OSError, OverflowError):
                refused += 1
    reader.close()
    assert refused


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("encoding", ["PLAIN", "RLE_DICTIONARY"])
@pytest.mark.parametrize("codec", ["none", "snappy"])
@pytest.mark.parametrize("is_list", [False, True])
def test_damaged_pages_of_foreign_files_are_left_within_their_bytes(tmp_path, memory, encoding, codec, is_list) -> None:
    path = tmp_path / "x.parquet"
    whole, refused, spaces = made(path, encoding, codec, is_list, nullable=True), 0, {}
    memory.spaces = lambda: [span_of(array) for s in spaces.values() for array in (s.values, s.offsets)]
    file = FlatFile(path, pq.ParquetFile(path), ["x"])
    for place in range(4, start_of_footer(whole)):
        damage(path, whole, place, (0xFF, whole[place] ^ 0x80, 0x7F, whole[place] ^ 2)[place % 4])
        memory.dictionaries = []
        try:
            rows = FlatRows(file, 0, ["x"], spaces)
            rows.read(2, 5)
            rows.read(7, 10)
            refused += bool(rows.failed)
        except (ValueError, OSError, OverflowError):
            refused += 1
    file.close()
    assert refused


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("is_list", [False, True])
def test_a_damaged_footer_makes_nothing_read_beyond(tmp_path, memory, is_list) -> None:
    path, memory.codec = tmp_path / "x.parquet", False
    whole, refused = made(path, "RLE_DICTIONARY", "none", is_list), 0
    file = pq.ParquetFile(path)
    for place, byte in product(range(start_of_footer(whole), len(whole) - 8), (0, 0xFF)):
        damage(path, whole, place, byte)
        try:
            reader = open_columns(path, file, ["x"])
            for index in range(2):
                columns = decode(reader, index)
                assert len(columns.array(0)) >= columns.num_rows[0] or columns.offsets_of(0)[-1] <= len(
                    columns.array(0)
                )
        except (ValueError, OSError, OverflowError):
            refused += 1
    assert refused


def test_a_dictionary_of_more_values_than_numbers_hold_is_refused() -> None:
    """4 bytes times 2 ** 62 values are 0 bytes, in 64 bits."""
    block = np.arange(64, dtype=np.int32)
    dictionary = [0, pages.DICTIONARY, 2**62, encodings.PLAIN, 0, 8, 8]
    data = [0, pages.DATA, 8, encodings.RLE_DICTIONARY, 0, 6, 6]
    bytes_of = np.array([32, 16, 200, 0, 0, 0], np.uint8)  # 32 bits a number, 8 times the number 200
    found, unpacked = np.array([dictionary, data], np.int64), np.array([block.ctypes.data, bytes_of.ctypes.data])
    one = np.array([8], np.int64)
    wrong = pages.decode_pages(
        found, unpacked, one // 2, one, one * 0 + block[16:].ctypes.data, one * 0, one, np.empty(8, np.int32)
    )
    assert wrong == 0
