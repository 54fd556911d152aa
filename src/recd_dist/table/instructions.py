"""Instructions for compiled loops that numba does not offer: fetch a cache line, compute with 16 floats at a time.

Numba turns a loop over the columns of a row into vector instructions only where 32 columns or more are left, and checks
before each row whether arrays overlap. Rows of embedding tables are short. These functions take addresses (int64), and
rows of float32 whose length is a multiple of 4.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE = 64
"""Bytes of a cache line."""

_BYTE, _INT = ir.IntType(8), ir.IntType(32)
_FAST = ("reassoc", "contract", "nsz")


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Begins to fetch the cache line of an address into the second-level cache.

    Nothing waits for it, and an address that is not there does no harm. The second level takes more lines at a time
    than the first: a loop over rows that lie apart ran 1.5 times as fast with it on an AMD EPYC.
    """
    del typing, address

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, second_level, data = _INT(0), _INT(2), _INT(1)
        builder.call(call, [builder.inttoptr(arguments[0], _BYTE.as_pointer()), read, second_level, data])
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic
def sum_rows(
    typing: Any, target: Any, base: Any, places: Any, factors: Any, count: Any, columns: Any, is_first: Any
) -> Any:
    """Adds some rows to a row, each times its factor.

    The sums of 64 columns stay in registers while the rows are added, so that it pays to give several rows.

    Args:
        typing: given by numba.
        target: the row that they are added to.
        base: the address that places count from.
        places: address of int64 [count], for each row its first number after ``base``.
        factors: address of float32 [count], or 0 for 1.
        count: number of rows.
        columns: number of columns.
        is_first: True to overwrite what stands in the target.
    """
    del typing, target, base, places, factors, count, columns, is_first

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        factors = arguments[3]
        with builder.if_else(builder.icmp_unsigned("!=", factors, factors.type(0))) as (then, otherwise):
            with then:
                _emit_sums(builder, arguments, has_factors=True)
            with otherwise:
                _emit_sums(builder, arguments, has_factors=False)
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, number, number, number, types.boolean), emit


@intrinsic
def add_scaled(typing: Any, target: Any, row: Any, factor: Any, columns: Any) -> Any:
    """Adds ``factor * row`` to a row."""
    del typing, target, row, factor, columns

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        target, row, factor, columns = arguments

        def add(lanes: int, offset: Any) -> None:
            place, part = _at(builder, target, offset, lanes), builder.load(_at(builder, row, offset, lanes), align=4)
            many = _spread(builder, factor, lanes)
            builder.store(_multiply_add(builder, many, part, builder.load(place, align=4)), place, align=4)

        _for_lanes(builder, columns, add)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), emit


@intrinsic
def sum_squares(typing: Any, row: Any, columns: Any) -> Any:
    """The sum of the squares of a row, float32."""
    del typing, row, columns

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        row, columns = arguments
        zero = ir.Constant(ir.FloatType(), 0.0)
        sums = {lanes: cgutils.alloca_once(builder, _vector(lanes)) for lanes in (16, 8, 4)}
        for lanes, place in sums.items():
            builder.store(ir.Constant(_vector(lanes), [zero] * lanes), place)

        def add(lanes: int, offset: Any) -> None:
            part = builder.load(_at(builder, row, offset, lanes), align=4)
            builder.store(_multiply_add(builder, part, part, builder.load(sums[lanes])), sums[lanes])

        _for_lanes(builder, columns, add)
        result = zero
        for lanes, place in sums.items():
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _vector(lanes)])
            reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{lanes}f32")
            result = builder.call(reduce, [result, builder.load(place)], fastmath=_FAST)
        return result

    return types.float32(types.int64, types.int64), emit


@intrinsic
def add_number(typing: Any, place: Any, number: Any) -> Any:
    """Adds to a number in memory, float32, and returns the sum."""
    del typing, place, number

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        place = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
        total = builder.fadd(builder.load(place, align=4), arguments[1])
        builder.store(total, place, align=4)
        return total

    return types.float32(types.int64, types.float32), emit


@intrinsic
def adagrad_step(typing: Any, weights: Any, sums: Any, gradient: Any, lr: Any, eps: Any, columns: Any) -> Any:
    """Adds the squares of a gradient to a row of sums, and takes the step of Adagrad on a row of weights."""
    del typing, weights, sums, gradient, lr, eps, columns

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        weights, sums, gradient, lr, eps, columns = arguments

        def step(lanes: int, offset: Any) -> None:
            weight, state = (_at(builder, row, offset, lanes) for row in (weights, sums))
            slope = builder.load(_at(builder, gradient, offset, lanes), align=4)
            total = _multiply_add(builder, slope, slope, builder.load(state, align=4))
            builder.store(total, state, align=4)
            kind = ir.FunctionType(_vector(lanes), [_vector(lanes)])
            root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{lanes}f32")
            below = builder.fadd(builder.call(root, [total]), _spread(builder, eps, lanes))
            moved = builder.fdiv(builder.fmul(_spread(builder, lr, lanes), slope), below)
            builder.store(builder.fsub(builder.load(weight, align=4), moved), weight, align=4)

        _for_lanes(builder, columns, step)
        return context.get_dummy_value()

    number = types.float32
    return types.void(types.int64, types.int64, types.int64, number, number, types.int64), emit


def _emit_sums(builder: Any, arguments: Any, *, has_factors: bool) -> None:
    """Emits ``sum_rows``, with factors or without: 64 columns at a time, then 16, 8 and 4."""
    target, base, places, factors, count, columns, is_first = arguments
    number = columns.type

    def add(lanes: int, offset: Any, num_vectors: int = 1) -> None:
        offsets = [builder.add(offset, number(4 * lanes * n)) for n in range(num_vectors)]
        sums = [cgutils.alloca_once(builder, _vector(lanes)) for _ in offsets]
        zero = ir.Constant(_vector(lanes), [ir.Constant(ir.FloatType(), 0.0)] * lanes)
        with builder.if_else(is_first) as (then, otherwise):
            with then:
                for place in sums:
                    builder.store(zero, place)
            with otherwise:
                for place, each in zip(sums, offsets, strict=True):
                    builder.store(builder.load(_at(builder, target, each, lanes), align=4), place)
        with cgutils.for_range(builder, count) as loop:
            first = builder.load(_number(builder, places, loop.index, number))
            row = builder.add(base, builder.shl(first, number(2)))
            if has_factors:
                factor = _spread(builder, builder.load(_number(builder, factors, loop.index, ir.FloatType())), lanes)
            for place, each in zip(sums, offsets, strict=True):
                part, total = builder.load(_at(builder, row, each, lanes), align=4), builder.load(place)
                added = _multiply_add(builder, factor, part, total) if has_factors else builder.fadd(total, part)
                builder.store(added, place)
        for place, each in zip(sums, offsets, strict=True):
            builder.store(builder.load(place), _at(builder, target, each, lanes), align=4)

    with cgutils.for_range(builder, builder.lshr(columns, number(6))) as loop:
        add(16, builder.shl(loop.index, number(8)), 4)
    done = builder.and_(columns, number(-64))
    with cgutils.for_range(builder, builder.lshr(builder.sub(columns, done), number(4))) as loop:
        add(16, builder.add(builder.shl(done, number(2)), builder.shl(loop.index, number(6))))
    _for_rest(builder, columns, add)


def _for_lanes(builder: Any, columns: Any, emit: Callable[[int, Any], None]) -> None:
    """Emits code for 16 columns at a time, then for 8 and for 4; ``emit`` takes the lanes and the offset in bytes."""
    number = columns.type
    with cgutils.for_range(builder, builder.lshr(columns, number(4))) as loop:
        emit(16, builder.shl(loop.index, number(6)))
    _for_rest(builder, columns, emit)


def _for_rest(builder: Any, columns: Any, emit: Callable[[int, Any], None]) -> None:
    """Emits code for what 16 columns at a time leave: 8 and 4 of them."""
    number = columns.type
    for lanes in (8, 4):
        rest = builder.and_(columns, number(lanes))
        with builder.if_then(builder.icmp_unsigned("!=", rest, number(0))):
            emit(lanes, builder.shl(builder.and_(columns, number(-2 * lanes)), number(2)))


def _vector(lanes: int) -> Any:
    return ir.VectorType(ir.FloatType(), lanes)


def _at(builder: Any, row: Any, offset: Any, lanes: int) -> Any:
    return builder.inttoptr(builder.add(row, offset), _vector(lanes).as_pointer())


def _number(builder: Any, numbers: Any, index: Any, kind: Any) -> Any:
    """The address of a number in an array."""
    return builder.gep(builder.inttoptr(numbers, kind.as_pointer()), [index], source_etype=kind)


def _spread(builder: Any, number: Any, lanes: int) -> Any:
    """A vector of one number in every lane."""
    empty = ir.Constant(_vector(lanes), ir.Undefined)
    first = builder.insert_element(empty, number, _INT(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INT, lanes), [_INT(0)] * lanes))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, in one instruction where there is one."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{a.type.count}f32")
    return builder.call(function, [a, b, c])
