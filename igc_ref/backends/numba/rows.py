"""Numbers treated one by one, a row of vectors at a time. All starts and steps are in numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir

from igc_ref.backends.numba.vectors import Emitter, vectorised


@vectorised
def scale_row(e, y, y0, y_step, x, x0, x_step, count, scale, shift, floor, lanes):
    """Compute y = max(scale*x + shift, floor); NaN stays NaN.

    Of y, all but some `lanes`, given as bits, are 0, and what they would read is not touched.
    """
    y, x = e.at(y, y0), e.at(x, x0)

    def row(mask: Any) -> None:
        def one(i: Any, none: list[Any]) -> list[Any]:
            v = e.multiply_add(e.load(e.at(x, i, x_step), mask), scale, shift)
            e.store(e.only(e.at_least(v, floor), mask), e.at(y, i, y_step))
            return none

        e.accumulate(count, [], one)

    e.masked(lanes, row)


@vectorised
def derive_row(e, y, y0, d, x, x0, count, scale, shift, floor, mean, a, b, c, lanes):
    """Compute y = a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c; see `scale_row`."""
    y, d, x = e.at(y, y0), e.at(d, x0), e.at(x, x0)

    def row(mask: Any) -> None:
        def one(i: Any, none: list[Any]) -> list[Any]:
            v = e.load(e.at(x, i, e.lanes), mask)
            passed = _passed(e, e.load(e.at(d, i, e.lanes), mask), v, scale, shift, floor)
            rest = e.scaled(b, e.builder.fsub(v, mean), c)
            e.store(e.only(e.multiply_add(a, passed, rest), mask), e.at(y, i, e.lanes))
            return none

        e.accumulate(count, [], one)

    e.masked(lanes, row)


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
def moments_row(e, x, x0, count, pivot, lanes):
    """Return the sums of x - pivot and of its square over some lanes, given as bits."""
    x = e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.builder.fsub(e.load(e.at(x, i, e.lanes)), pivot)
        return [e.builder.fadd(sums[0], v), e.multiply_add(v, v, sums[1])]

    return [e.sum_of_lanes(vector, lanes) for vector in e.reduce(count, 2, one)]


@partial(vectorised, results=2)
def sums_row(e, d, x, x0, count, scale, shift, floor, mean, lanes):
    """Return the sums, over `lanes`, of d and of d*(x - mean) where scale*x + shift > floor."""
    d, x = e.at(d, x0), e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.load(e.at(x, i, e.lanes))
        passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
        product = e.multiply_add(passed, e.builder.fsub(v, mean), sums[1])
        return [e.builder.fadd(sums[0], passed), product]

    return [e.sum_of_lanes(vector, lanes) for vector in e.reduce(count, 2, one)]


def _passed(e: Emitter, d: Any, x: Any, scale: Any, shift: Any, floor: Any) -> Any:
    """Return d where scale*x + shift > floor, else 0; without a floor, d whatever x is."""
    b, lowest = e.builder, ir.Constant(e.vector, [float("-inf")] * e.lanes)
    above = b.fcmp_ordered(">", e.multiply_add(x, scale, shift), floor)
    return b.select(b.or_(above, b.fcmp_ordered("==", floor, lowest)), d, e.zero)
