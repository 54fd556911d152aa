"""Loops compiled by numba, for which numpy has no function.

They are compiled on first use (about 0.3 s each, then kept on disk), release the GIL and use one thread. Numba takes
0.35 s to load, so that a module which a light command imports loads this one where it runs a loop.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic

from recd_dist.table.hash import GOLDEN, scramble

F = TypeVar("F", bound=Callable[..., object])


class _Cache(FunctionCache):
    """Compiled code on disk. That it cannot be kept, because a disk is full, is no error.

    Code of the loops that a loop calls is compiled into it. Numba looks at the file of the loop alone, and would go on
    with old code after an update of another file; here the files of all of them count, by what they hold: the times of
    files change on their way through an image or a package. Code that lies beside the source, as in an image whose
    files cannot be written, is taken where ``NUMBA_CACHE_DIR`` has none.
    """

    _cache_file: IndexDataCacheFile

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        files = sorted(_files_of(function, set()) | {__file__})
        self._cache_file._source_stamp = [_digest(file) for file in files]
        beside = Path(function.__code__.co_filename).parent / "__pycache__"
        self._beside = IndexDataCacheFile(str(beside), self._impl.filename_base, self._cache_file._source_stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            own, self._cache_file = self._cache_file, self._beside
            try:
                found = super().load_overload(sig, target_context)
            finally:
                self._cache_file = own
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


@cache
def _digest(file: str) -> bytes:
    """What stands for the content of a file."""
    return sha256(Path(file).read_bytes()).digest()


def _files_of(function: Callable[..., object], seen: set[int]) -> set[str]:
    """The files of a function and of the compiled loops that its module knows."""
    seen.add(id(function))
    files = {function.__code__.co_filename}
    for value in function.__globals__.values():
        called = getattr(value, "py_func", None)
        if called is not None and id(called) not in seen:
            files |= _files_of(called, seen)
    return files


def jit(function: F) -> F:
    """Compiles a loop on its first call.

    The code is kept in ``NUMBA_CACHE_DIR`` where that is set, else beside the source, else in the user's cache
    directory. Where none of them can be written and none lies beside the source, each process compiles for itself. All
    of the project's loops are compiled by this function or by ``jit_sums``.
    """
    return _compile(function, fastmath=False)


def jit_sums(function: F) -> F:
    """``jit`` for loops that add up floats: the sums may be made in another order, so that they run in vectors."""
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def _compile(function: F, fastmath: bool | set[str]) -> F:
    compiled = numba.njit(nogil=True, fastmath=fastmath)(function)
    with suppress(RuntimeError):  # "no locator available": there is no place for the code
        compiled._cache = _Cache(function)
    return compiled


@jit
def gather_slices(
    values: npt.NDArray[Any], starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], out: npt.NDArray[Any]
) -> None:
    """Writes slices of values: slice i begins at starts[i] (int64) and stands in out from offsets[i] (int64)."""
    for i in range(len(starts)):
        shift = starts[i] - offsets[i]
        for j in range(offsets[i], offsets[i + 1]):
            out[j] = values[j + shift]


scramble_one = jit(scramble)
"""``scramble`` of one number, for compiled loops."""


@jit
def splitmix64_one(x: np.uint64) -> np.uint64:
    """``splitmix64`` of one number, for compiled loops."""
    return scramble_one(x + GOLDEN)


def _are_numbers(*kinds: Any) -> bool:
    """Whether all are integers: anything else, as an array in place of its address, is an error of whoever calls."""
    return all(isinstance(kind, types.Integer | types.IntegerLiteral) for kind in kinds)


@intrinsic
def copy_bytes(_context: Any, to: Any, source: Any, num_bytes: Any) -> Any:
    """Copies a number of bytes to one address from another, int64 all three; they must not overlap."""
    if not _are_numbers(to, source, num_bytes):
        return None

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, origin, size = arguments
        pointers = (builder.inttoptr(address, cgutils.voidptr_t) for address in (target, origin))
        cgutils.raw_memcpy(builder, *pointers, size, 1)
        return cgutils.get_null_value(cgutils.voidptr_t)

    return types.voidptr(types.int64, types.int64, types.int64), generate


@intrinsic
def prefetch(_context: Any, address: Any) -> Any:
    """Asks for the cache line of an address, which need not be one, and does not wait for it."""
    if not _are_numbers(address):
        return None

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(arguments[0], cgutils.voidptr_t), read, keep, data])
        return cgutils.get_null_value(cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def _element(context: Any, builder: Any, kind: Any, address: Any, place: Any) -> Any:
    """A pointer to an element of an array at an address."""
    return builder.gep(builder.inttoptr(address, context.get_value_type(kind).as_pointer()), [place])


def _load(kind: Any) -> Any:
    """An intrinsic that reads an element of an array at an address.

    An array made by ``numba.carray`` would do, and takes ten times as long to compile.
    """

    @intrinsic
    def load(_context: Any, address: Any, place: Any) -> Any:
        if not _are_numbers(address, place):
            return None

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.load(_element(context, builder, kind, *arguments))

        return kind(types.int64, types.int64), generate

    return load


load_int32, load_int64, load_float = map(_load, (types.int32, types.int64, types.float32))
"""The element at a place of an array at an address, in compiled loops: ``load_int32(address, place)``."""


@jit
def load_offset(offsets: int, num_bytes: int, place: int) -> int:
    """The element at a place of an array of int32 (4 bytes) or int64 (8 bytes) at an address, in compiled loops."""
    return int(load_int32(offsets, place) if num_bytes == 4 else load_int64(offsets, place))


@intrinsic
def load_byte(_context: Any, address: Any, place: Any) -> Any:
    """The byte at a place of an array at an address, as int64: with uint64 numba would compute in floats."""
    if not _are_numbers(address, place):
        return None

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte = builder.load(_element(context, builder, types.uint8, *arguments))
        return builder.zext(byte, context.get_value_type(types.int64))

    return types.int64(types.int64, types.int64), generate


def _store(kind: Any) -> Any:
    """An intrinsic that writes an element of an array at an address."""

    @intrinsic
    def store(_context: Any, address: Any, place: Any, _value: Any) -> Any:
        if not _are_numbers(address, place):
            return None

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            address, place, value = arguments
            builder.store(value, _element(context, builder, kind, address, place))
            return cgutils.get_null_value(cgutils.voidptr_t)

        return types.voidptr(types.int64, types.int64, kind), generate

    return store


store_int32, store_int64 = map(_store, (types.int32, types.int64))
"""Writes an element to a place of an array at an address, in compiled loops: ``store_int32(address, place, value)``."""
