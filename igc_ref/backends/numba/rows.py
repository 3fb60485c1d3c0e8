"""Numbers treated one by one, a row of vectors at a time. All starts and steps are in numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir

from igc_ref.backends.numba.vectors import VECTOR_BYTES, Emitter, vectorised


@vectorised
def scale_row(e, y, y0, y_step, x, x0, x_step, count, scale, shift, floor):
    """Compute y = max(scale*x + shift, floor); NaN stays NaN."""
    y, x = e.at(y, y0), e.at(x, x0)

    def one(i: Any, none: list[Any]) -> list[Any]:
        v = e.multiply_add(e.load(e.at(x, i, x_step)), scale, shift)
        e.store(e.at_least(v, floor), e.at(y, i, y_step))
        return none

    e.accumulate(count, [], one)


@vectorised
def derive_row(e, y, y0, d, x, x0, count, scale, shift, floor, mean, a, b, c):
    """Compute y = a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c."""
    y, d, x = e.at(y, y0), e.at(d, x0), e.at(x, x0)

    def one(i: Any, none: list[Any]) -> list[Any]:
        v = e.load(e.at(x, i, e.lanes))
        passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
        rest = e.scaled(b, e.builder.fsub(v, mean), c)
        e.store(e.multiply_add(a, passed, rest), e.at(y, i, e.lanes))
        return none

    e.accumulate(count, [], one)


@vectorised
def add_row(e, y, a, b, x0, count, a_scale, a_shift, a_floor, b_scale, b_shift, b_floor, floor):
    """Compute y = max(a' + b', floor) of a' = max(a_scale*a + a_shift, a_floor), b' likewise."""
    y, a, b = (e.at(array, x0) for array in (y, a, b))

    def read(source: Any, i: Any, scale: Any, shift: Any, lowest: Any) -> Any:
        return e.at_least(e.multiply_add(e.load(e.at(source, i, e.lanes)), scale, shift), lowest)

    def one(i: Any, none: list[Any]) -> list[Any]:
        v = e.builder.fadd(
            read(a, i, a_scale, a_shift, a_floor), read(b, i, b_scale, b_shift, b_floor)
        )
        e.store(e.at_least(v, floor), e.at(y, i, e.lanes))
        return none

    e.accumulate(count, [], one)


@partial(vectorised, results=2)
def moments_row(e, x, x0, count, pivot, valid):
    """Return the sums of x - pivot and of its square over the first `valid` images."""
    x = e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.builder.fsub(e.load(e.at(x, i, e.lanes)), pivot)
        return [e.builder.fadd(sums[0], v), e.multiply_add(v, v, sums[1])]

    return [e.sum_of_lanes(vector, valid) for vector in e.reduce(count, 2, one)]


@partial(vectorised, results=2)
def sums_row(e, d, x, x0, count, scale, shift, floor, mean, valid):
    """Return the sums, over `valid` images, of d and d*(x - mean) where scale*x + shift > floor."""
    d, x = e.at(d, x0), e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.load(e.at(x, i, e.lanes))
        passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
        product = e.multiply_add(passed, e.builder.fsub(v, mean), sums[1])
        return [e.builder.fadd(sums[0], passed), product]

    return [e.sum_of_lanes(vector, valid) for vector in e.reduce(count, 2, one)]


@vectorised
def to_lanes(e, y, y0, x, x0, x_step, count, valid):
    """y[y0 + i*V + v] = x[x0 + v*x_step + i] for i < count; lanes from `valid` on are 0.

    x may lie anywhere; of the lanes from `valid` on nothing is read.
    """
    y, x, b = e.at(y, y0), e.at(x, x0), e.builder

    def move(i: Any, positions: Any, valid: Any) -> None:
        rows = []
        for v in map(e.integer, range(e.lanes)):
            there = b.icmp_signed("<", v, valid)
            row = e.at(e.at(x, i), b.select(there, v, e.integer(0)), x_step)
            rows.append(b.select(there, e.load_first(positions, row), e.zero))
        for p, vector in enumerate(e.transpose(rows)):
            with b.if_then(b.icmp_signed("<", e.integer(p), positions)):
                e.store(vector, e.at(y, b.add(i, e.integer(p)), e.lanes))

    _in_tiles(e, x, count, valid, move)


@vectorised
def from_lanes(e, y, y0, y_step, x, x0, count, valid):
    """y[y0 + v*y_step + i] = x[x0 + i*V + v] for i < count and v < valid; y may lie anywhere."""
    y, x, b = e.at(y, y0), e.at(x, x0), e.builder

    def move(i: Any, positions: Any, valid: Any) -> None:
        vectors = []
        for p in map(e.integer, range(e.lanes)):
            there = b.icmp_signed("<", p, positions)
            vectors.append(e.load(e.at(x, b.add(i, b.select(there, p, e.integer(0))), e.lanes)))
        for v, row in enumerate(e.transpose(vectors)):
            with b.if_then(b.icmp_signed("<", e.integer(v), valid)):
                e.store_first(positions, row, e.at(e.at(y, i), e.integer(v), y_step))

    _in_tiles(e, y, count, valid, move)


def _in_tiles(
    e: Emitter, array: Any, count: Any, valid: Any, move: Callable[[Any, Any, Any], None]
) -> None:
    """Call ``move(i, positions, valid)`` for tiles of at most V positions from i on.

    Whole tiles overlap at both ends, so that nothing is masked and those between are aligned in
    `array`: 256x3x32x32 images come in a third faster so (measured, AVX-512).
    """
    b, V = e.builder, e.integer(e.lanes)
    beyond = b.udiv(b.ptrtoint(array, V.type), e.integer(VECTOR_BYTES // e.lanes))
    beyond = b.urem(beyond, V)  # numbers since the last boundary of vectors

    def pick(order: str, one: Any, other: Any) -> Any:
        return b.select(b.icmp_signed(order, one, other), one, other)

    def up(number: Any) -> Any:
        return b.sdiv(b.add(number, e.integer(e.lanes - 1)), V)

    def whole(t: Any, none: list[Any]) -> list[Any]:
        i = pick(">", b.sub(b.mul(t, V), beyond), e.integer(0))
        move(pick("<", i, b.sub(count, V)), V, V)
        return none

    def part(t: Any, none: list[Any]) -> list[Any]:
        i = b.mul(t, V)
        move(i, pick("<", b.sub(count, i), V), valid)
        return none

    wide = b.and_(b.icmp_signed(">=", count, V), b.icmp_signed(">=", valid, V))
    with b.if_else(wide) as (yes, no):
        with yes:
            e.accumulate(up(b.add(count, beyond)), [], whole)
        with no:
            e.accumulate(up(count), [], part)


def _passed(e: Emitter, d: Any, x: Any, scale: Any, shift: Any, floor: Any) -> Any:
    """Return d where scale*x + shift > floor, else 0; without a floor, d whatever x is."""
    b, lowest = e.builder, ir.Constant(e.vector, [float("-inf")] * e.lanes)
    above = b.fcmp_ordered(">", e.multiply_add(x, scale, shift), floor)
    return b.select(b.or_(above, b.fcmp_ordered("==", floor, lowest)), d, e.zero)
