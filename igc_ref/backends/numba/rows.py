"""Rows of vectors: numbers one by one, images into lanes and back. All in numbers, not bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir

from igc_ref.backends.numba.vectors import INNER, VECTOR_BYTES, Body, Emitter, vectorised
from igc_ref.backends.numba.winograd import WIDTH, B, D


@vectorised
def scale_row(e, y, y0, y_step, x, x0, x_step, count, scale, shift, floor, lanes):
    """Compute y = max(scale*x + shift, floor); NaN stays NaN.

    Of y, all but some `lanes`, given as bits, are 0, and what they would read is not touched.
    """
    y, x = e.at(y, y0), e.at(x, x0)

    def one(i: Any, mask: Any) -> None:
        v = e.multiply_add(e.load(e.at(x, i, x_step), mask), scale, shift)
        e.store(e.only(e.at_least(v, floor), mask), e.at(y, i, y_step))

    e.masked(count, lanes, one)


@vectorised
def derive_row(e, y, y0, d, x, x0, count, scale, shift, floor, mean, a, b, c, lanes):
    """Compute y = a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c; see `scale_row`."""
    y, d, x = e.at(y, y0), e.at(d, x0), e.at(x, x0)

    def one(i: Any, mask: Any) -> None:
        v = e.load(e.at(x, i, e.lanes), mask)
        passed = _passed(e, e.load(e.at(d, i, e.lanes), mask), v, scale, shift, floor)
        rest = e.scaled(b, e.builder.fsub(v, mean), c)
        e.store(e.only(e.multiply_add(a, passed, rest), mask), e.at(y, i, e.lanes))

    e.masked(count, lanes, one)


@vectorised
def add_row(e, y, a, b, x0, count, a_scale, a_shift, a_floor, b_scale, b_shift, b_floor, floor):
    """Compute y = max(a' + b', floor) of a' = max(a_scale*a + a_shift, a_floor), b' likewise."""
    y, a, b = (e.at(array, x0) for array in (y, a, b))

    def read(source: Any, i: Any, scale: Any, shift: Any, lowest: Any) -> Any:
        return e.at_least(e.multiply_add(e.load(e.at(source, i, e.lanes)), scale, shift), lowest)

    def one(i: Any) -> None:
        one = read(a, i, a_scale, a_shift, a_floor)
        v = e.builder.fadd(one, read(b, i, b_scale, b_shift, b_floor))
        e.store(e.at_least(v, floor), e.at(y, i, e.lanes))

    e.repeat(count, one)


@vectorised
def gate_row(e, y, y0, x, x0, count, scale, shift, floor, gates, gate0):
    """Compute y = gate * max(scale*x + shift, floor); every lane has a gate of its own."""
    y, x, gate = e.at(y, y0), e.at(x, x0), e.load(e.at(gates, gate0), align=1)

    def one(i: Any) -> None:
        v = e.at_least(e.multiply_add(e.load(e.at(x, i, e.lanes)), scale, shift), floor)
        e.store(e.builder.fmul(gate, v), e.at(y, i, e.lanes))

    e.repeat(count, one)


@vectorised
def fill_row(e, y, y0, count, values, values0):
    """Set y to a vector at every position; every lane has a value of its own."""
    y, value = e.at(y, y0), e.load(e.at(values, values0), align=1)
    e.repeat(count, lambda i: e.store(value, e.at(y, i, e.lanes)))


@vectorised
def totals_row(e, sums, sums0, x, x0, count, scale, shift, floor, lanes):
    """Add all max(scale*x + shift, floor) to the sums of their lanes, of some `lanes`."""
    x = e.at(x, x0)

    def one(i: Any, held: list[Any]) -> list[Any]:
        scaled = e.builder.fmul(e.load(e.at(x, i, e.lanes)), scale)
        v = e.at_least(e.builder.fadd(scaled, shift), floor)  # rounded twice, as it used to be
        return [e.builder.fadd(v, held[0])]

    _add_to_lanes(e, sums, sums0, count, one, lanes)


@vectorised
def products_row(e, sums, sums0, d, d0, x, x0, count, scale, shift, floor, lanes):
    """Add all d * max(scale*x + shift, floor) to the sums of their lanes, of some `lanes`."""
    d, x = e.at(d, d0), e.at(x, x0)

    def one(i: Any, held: list[Any]) -> list[Any]:
        v = e.at_least(e.multiply_add(e.load(e.at(x, i, e.lanes)), scale, shift), floor)
        return [e.multiply_add(e.load(e.at(d, i, e.lanes)), v, held[0])]

    _add_to_lanes(e, sums, sums0, count, one, lanes)


def _add_to_lanes(e: Emitter, sums: Any, sums0: Any, count: Any, body: Body, lanes: Any) -> None:
    (total,) = e.accumulate(count, [e.zero], body)
    sums, total = e.at(sums, sums0), e.only(total, e.mask(lanes))
    e.store(e.builder.fadd(e.load(sums, align=1), total), sums, align=1)


@partial(vectorised, results=2)
def moments_row(e, x, x0, count, pivot, lanes):
    """Return the sums of x - pivot and of its square over some lanes, given as bits."""
    x = e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.builder.fsub(e.load(e.at(x, i, e.lanes)), pivot)
        return [e.builder.fadd(sums[0], v), e.multiply_add(v, v, sums[1])]

    return e.reduce(count, 2, one, lanes)


@partial(vectorised, results=2)
def sums_row(e, d, x, x0, count, scale, shift, floor, mean, lanes):
    """Return the sums, over `lanes`, of d and of d*(x - mean) where scale*x + shift > floor."""
    d, x = e.at(d, x0), e.at(x, x0)

    def one(i: Any, sums: list[Any]) -> list[Any]:
        v = e.load(e.at(x, i, e.lanes))
        passed = _passed(e, e.load(e.at(d, i, e.lanes)), v, scale, shift, floor)
        product = e.multiply_add(passed, e.builder.fsub(v, mean), sums[1])
        return [e.builder.fadd(sums[0], passed), product]

    return e.reduce(count, 2, one, lanes)


@INNER
def to_lanes(y, y0, y_step, x, x0, x_step, count, valid):
    """y[y0 + i*y_step + v] = x[x0 + v*x_step + i] for i < count; 0 in lanes v >= valid >= 1.

    x may lie anywhere. The first and the last tile overlap their neighbours, and those between are
    aligned in x: 256x3x32x32 float32 images came in a third faster so (measured, AVX-512).
    """
    V = VECTOR_BYTES // y.itemsize
    if count < V:
        for i in range(count):
            for v in range(V):
                y[y0 + i * y_step + v] = x[x0 + v * x_step + i] if v < valid else 0
        return
    for t in range(-((x.ctypes.data // x.itemsize + x0) % V), count, V):
        i = max(0, min(t, count - V))
        _tile_to_lanes(y, y0 + i * y_step, y_step, x, x0 + i, x_step, valid)


@INNER
def from_lanes(y, y0, y_step, x, x0, x_step, count, valid):
    """y[y0 + v*y_step + i] = x[x0 + i*x_step + v] for i < count, v < valid: `to_lanes` undone."""
    V = VECTOR_BYTES // y.itemsize
    if count < V:
        for i in range(count):
            for v in range(valid):
                y[y0 + v * y_step + i] = x[x0 + i * x_step + v]
        return
    for t in range(-((y.ctypes.data // y.itemsize + y0) % V), count, V):
        i = max(0, min(t, count - V))
        _tile_from_lanes(y, y0 + i, y_step, x, x0 + i * x_step, x_step, valid)


@vectorised
def _tile_to_lanes(e, y, y0, y_step, x, x0, x_step, valid):
    y, x, rows = e.at(y, y0), e.at(x, x0), []
    for v in map(e.integer, range(e.lanes)):
        there = e.builder.icmp_signed("<", v, valid)
        row = e.at(x, e.builder.select(there, v, e.integer(0)), x_step)  # one that exists
        rows.append(e.builder.select(there, e.load(row, align=1), e.zero))
    for i, vector in enumerate(e.transpose(rows)):
        e.store(vector, e.at(y, e.integer(i), y_step))


@vectorised
def _tile_from_lanes(e, y, y0, y_step, x, x0, x_step, valid):
    y, x = e.at(y, y0), e.at(x, x0)
    positions = [e.load(e.at(x, e.integer(i), x_step)) for i in range(e.lanes)]
    for v, row in enumerate(e.transpose(positions)):
        with e.builder.if_then(e.builder.icmp_signed("<", e.integer(v), valid)):
            e.store(row, e.at(y, e.integer(v), y_step), align=1)


def _passed(e: Emitter, d: Any, x: Any, scale: Any, shift: Any, floor: Any) -> Any:
    """Return d where scale*x + shift > floor, else 0; without a floor, d whatever x is."""
    b, lowest = e.builder, ir.Constant(e.vector, [float("-inf")] * e.lanes)
    above = b.fcmp_ordered(">", e.multiply_add(x, scale, shift), floor)
    return b.select(b.or_(above, b.fcmp_ordered("==", floor, lowest)), d, e.zero)


def transform(matrix: Any) -> Any:
    """Return the numba intrinsic ``y[:, t] = matrix @ window t of x``; windows begin 4 apart.

    Its arguments: y, y0, y_point, x, x0, count; the points of y lie `y_point` apart.
    """

    @vectorised
    def transform_row(e, y, y0, y_point, x, x0, count):
        y, x = e.at(y, y0), e.at(x, x0)

        def one(t: Any) -> None:
            window = e.at(x, t, WIDTH * e.lanes)
            numbers = range(matrix.shape[1])
            vectors = [e.load(e.at(window, e.integer(n * e.lanes))) for n in numbers]
            for q, vector in enumerate(e.combined(matrix, vectors)):
                e.store(vector, e.at(e.at(y, t, e.lanes), y_point, q))

        e.repeat(count, one)

    return transform_row


input_row, gradient_row = transform(B), transform(D)
