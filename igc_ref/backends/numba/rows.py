"""Numbers treated one by one, a row of vectors at a time. All starts and steps are in numbers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from igc_ref.backends.numba.vectors import Emitter


@intrinsic
def scale_row(_, y, y0, y_step, x, x0, x_step, count, scale, shift, floor):
    """Compute y = max(scale*x + shift, floor); NaN stays NaN."""
    n, number = types.intp, y.dtype
    signature = types.void(y, n, n, x, n, n, n, number, number, number)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        y, y0, y_step, x, x0, x_step, count, *numbers = values
        e = Emitter(context, builder, number)
        y, x = e.pointer(signature.args[0], y, y0), e.pointer(signature.args[3], x, x0)
        scale, shift, floor = map(e.broadcast, numbers)

        def one(i: Any, none: list[Any]) -> list[Any]:
            v = e.multiply_add(e.load(e.at(x, i, x_step)), scale, shift)
            e.store(e.at_least(v, floor), e.at(y, i, y_step))
            return none

        e.accumulate(count, [], one)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def derive_row(_, y, y0, d, x, x0, count, scale, shift, floor, mean, a, b, c):
    """Compute y = a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c."""
    n, number = types.intp, y.dtype
    signature = types.void(y, n, d, x, n, n, *[number] * 7)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        y, y0, d, x, x0, count, *numbers = values
        e = Emitter(context, builder, number)
        y = e.pointer(signature.args[0], y, y0)
        d, x = e.pointer(signature.args[2], d, x0), e.pointer(signature.args[3], x, x0)
        scale, shift, floor, mean, a, b, c = map(e.broadcast, numbers)

        def one(i: Any, none: list[Any]) -> list[Any]:
            v = e.load(e.at(x, i, e.lanes))
            passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
            rest = e.scaled(b, builder.fsub(v, mean), c)
            e.store(e.multiply_add(a, passed, rest), e.at(y, i, e.lanes))
            return none

        e.accumulate(count, [], one)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def add_row(_, y, a, b, x0, count, a_scale, a_shift, a_floor, b_scale, b_shift, b_floor, floor):
    """Compute y = max(a' + b', floor) of a' = max(a_scale*a + a_shift, a_floor), b' likewise."""
    n, number = types.intp, y.dtype
    signature = types.void(y, a, b, n, n, *[number] * 7)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        *arrays, x0, count = values[:5]
        e = Emitter(context, builder, number)
        y, a, b = (e.pointer(k, v, x0) for k, v in zip(signature.args, arrays, strict=False))
        *rules, floor = map(e.broadcast, values[5:])

        def read(source: Any, i: Any, scale: Any, shift: Any, lowest: Any) -> Any:
            return e.at_least(
                e.multiply_add(e.load(e.at(source, i, e.lanes)), scale, shift), lowest
            )

        def one(i: Any, none: list[Any]) -> list[Any]:
            v = builder.fadd(read(a, i, *rules[:3]), read(b, i, *rules[3:]))
            e.store(e.at_least(v, floor), e.at(y, i, e.lanes))
            return none

        e.accumulate(count, [], one)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def moments_row(_, x, x0, count, pivot, valid):
    """Return the sums of x - pivot and of its square over the first `valid` images."""
    n, number = types.intp, x.dtype
    signature = types.UniTuple(number, 2)(x, n, n, number, n)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x, x0, count, pivot, valid = values
        e = Emitter(context, builder, number)
        x, pivot = e.pointer(signature.args[0], x, x0), e.broadcast(pivot)

        def one(i: Any, sums: list[Any]) -> list[Any]:
            v = builder.fsub(e.load(e.at(x, i, e.lanes)), pivot)
            return [builder.fadd(sums[0], v), e.multiply_add(v, v, sums[1])]

        sums = [e.sum_of_lanes(vector, valid) for vector in e.reduce(count, 2, one)]
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, emit


@intrinsic
def sums_row(_, d, x, x0, count, scale, shift, floor, mean, valid):
    """Return the sums, over `valid` images, of d and d*(x - mean) where scale*x + shift > floor."""
    n, number = types.intp, x.dtype
    signature = types.UniTuple(number, 2)(d, x, n, n, number, number, number, number, n)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        d, x, x0, count, *numbers, valid = values
        e = Emitter(context, builder, number)
        d, x = e.pointer(signature.args[0], d, x0), e.pointer(signature.args[1], x, x0)
        scale, shift, floor, mean = map(e.broadcast, numbers)

        def one(i: Any, sums: list[Any]) -> list[Any]:
            v = e.load(e.at(x, i, e.lanes))
            passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
            product = e.multiply_add(passed, builder.fsub(v, mean), sums[1])
            return [builder.fadd(sums[0], passed), product]

        sums = [e.sum_of_lanes(vector, valid) for vector in e.reduce(count, 2, one)]
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, emit


def _passed(e: Emitter, d: Any, x: Any, scale: Any, shift: Any, floor: Any) -> Any:
    """Return d where scale*x + shift > floor, else 0; without a floor, d whatever x is."""
    b, lowest = e.builder, ir.Constant(e.vector, [float("-inf")] * e.lanes)
    above = b.fcmp_ordered(">", e.multiply_add(x, scale, shift), floor)
    return b.select(b.or_(above, b.fcmp_ordered("==", floor, lowest)), d, e.zero)
