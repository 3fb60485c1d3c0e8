"""Sums of products, a tile of them in vector registers: everything else in this folder feeds these.

    multiply:  y[o, r, p] = sum over taps t of                   w[t, o] * x[taps[t] + (r, p)]
    outer:     dw[o, t] += sum over rows r and positions p of  dy[o, r, p] * x[taps[t] + (r, p)]

The first is a convolution, forward or backward to its data, of any kernel size and stride, and with
one tap per channel it is a product of matrices; the second is the gradient of its weights. A tile
is small enough for the registers and large enough that every vector loaded serves several sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from igc_ref.backends.numba.vectors import INNER, POSITIONS, TAPS, vectorised
from igc_ref.backends.numba.winograd import POINTS, WIDTH, A


class View(NamedTuple):
    """Channels, rows and positions in a flat array: where they start, and how far apart they lie.

    All in numbers. What a kernel does not step over is 0.
    """

    array: Any
    start: int
    channel: int
    row: int
    position: int


class Taps(NamedTuple):
    """`length` entries of a table of taps, from `start` on: distances in the array they read."""

    table: Any
    start: int
    length: int


def multiply_tile(outs: int, positions: int) -> Any:
    """Return the numba intrinsic of `multiply` for a tile of ``outs x positions`` results.

    Its arguments: y, y0, y_channel, y_position, valid_outs, valid_positions; x, x0; taps, t0, T;
    w, w0: three flat arrays and the table of taps, each with where to start, and the distances of
    channels and positions of y, in numbers. Weights are packed ``w[t*outs + o]``; of the results,
    the first `valid_outs` and `valid_positions` are stored. All of x that a full tile reads must
    exist.
    """

    @vectorised
    def tile(
        e, y, y0, y_channel, y_position, valid_outs, valid_positions, x, x0, taps, t0, T, w, w0
    ):
        y, x, taps, w = e.at(y, y0), e.at(x, x0), e.at(taps, t0), e.at(w, w0)
        b = e.builder
        b.function.attributes.add("noinline")  # or LLVM spends most of its time on copies

        def add_tap(t: Any, sums: list[Any]) -> list[Any]:
            base = e.at(x, b.load(e.at(taps, t)))
            xs = [e.load(e.at(base, e.integer(p * e.lanes))) for p in range(positions)]
            w_t = e.at(w, t, outs)
            new = []
            for o in range(outs):
                weight = e.broadcast(b.load(e.at(w_t, e.integer(o))))
                row = sums[o * positions : (o + 1) * positions]
                new += [e.multiply_add(weight, v, s) for v, s in zip(xs, row, strict=True)]
            return new

        sums = e.accumulate(T, [e.zero] * (outs * positions), add_tap)
        for o in range(outs):
            with b.if_then(b.icmp_signed("<", e.integer(o), valid_outs)):
                row, results = e.at(y, e.integer(o), y_channel), sums[o * positions :][:positions]
                full = b.icmp_signed("<=", e.integer(positions), valid_positions)
                with b.if_else(full) as (all_of_them, some):
                    with all_of_them:
                        for p, result in enumerate(results):
                            e.store(result, e.at(row, e.integer(p), y_position))
                    with some:
                        for p, result in enumerate(results[:-1]):
                            with b.if_then(b.icmp_signed("<", e.integer(p), valid_positions)):
                                e.store(result, e.at(row, e.integer(p), y_position))

    return tile


def outer_tile(outs: int, taps_held: int) -> Any:
    """Return the numba intrinsic of `outer` for a tile of ``outs x taps_held`` weights.

    Its arguments: dw, dw0; dy, dy0, dy_channel, dy_row, valid_outs; x, x0, x_row; taps, t0; rows,
    positions, lanes. Positions lie in `rows` rows; only some `lanes`, given as bits, count. The
    sums are added to whole vectors of dw, in the order (taps, outs). The table of taps must hold
    ``t0 + taps_held`` entries.
    """

    @vectorised
    def tile(e, dw, dw0, dy, dy0, dy_channel, dy_row, valid_outs, x, x0, x_row, taps, t0, rows,
             positions, lanes):  # fmt: skip
        dw, dy, x, taps = e.at(dw, dw0), e.at(dy, dy0), e.at(x, x0), e.at(taps, t0)
        b = e.builder
        b.function.attributes.add("noinline")
        last = b.sub(valid_outs, e.integer(1))
        all_outs = map(e.integer, range(outs))  # after the last valid one, that one again
        places = [b.select(b.icmp_signed("<", o, last), o, last) for o in all_outs]
        channels = [e.at(dy, place, dy_channel) for place in places]
        bases = [e.at(x, b.load(e.at(taps, e.integer(t)))) for t in range(taps_held)]

        def add_row(row: Any, sums: list[Any]) -> Any:
            dys = [e.at(channel, row, dy_row) for channel in channels]
            xs = [e.at(base, row, x_row) for base in bases]

            def add_position(p: Any, sums: list[Any]) -> list[Any]:
                left = [e.load(e.at(dy, p, e.lanes)) for dy in dys]
                new = []
                for t in range(taps_held):
                    right = e.load(e.at(xs[t], p, e.lanes))
                    column = sums[t * outs : (t + 1) * outs]
                    new += [e.multiply_add(v, right, s) for v, s in zip(left, column, strict=True)]
                return new

            return e.accumulate(positions, sums, add_position)

        sums = e.accumulate(rows, [e.zero] * (outs * taps_held), add_row)
        for i, totals in enumerate(e.sums_of_lanes(sums, lanes)):
            place = e.at(dw, e.integer(i * e.lanes))
            e.store(b.fadd(e.load(place), totals), place)

    return tile


@vectorised
def winograd_tile(
    e, y, y0, y_channel, valid_outs, valid_positions, x, x0, x_point, taps, t0, T, w, w0
):
    """Four outputs, four positions each, of `winograd`.

    The points of x lie `x_point` apart; weights are packed ``w[(t*4 + o)*POINTS + q]``.
    """
    y, x, taps, w = e.at(y, y0), e.at(x, x0), e.at(taps, t0), e.at(w, w0)
    b = e.builder
    b.function.attributes.add("noinline")

    def add_tap(t: Any, sums: list[Any]) -> list[Any]:
        base = e.at(x, b.load(e.at(taps, t)))
        xs = [e.load(e.at(base, x_point, q)) for q in range(POINTS)]
        w_t = e.at(w, t, len(sums))
        weights = [b.load(e.at(w_t, e.integer(i))) for i in range(len(sums))]
        return [
            e.multiply_add(e.broadcast(weight), xs[i % POINTS], s)
            for i, (weight, s) in enumerate(zip(weights, sums, strict=True))
        ]

    sums = e.accumulate(T, [e.zero] * (4 * POINTS), add_tap)
    for o in range(4):
        with b.if_then(b.icmp_signed("<", e.integer(o), valid_outs)):
            row = e.at(y, e.integer(o), y_channel)
            for p, result in enumerate(e.combined(A, sums[o * POINTS :][:POINTS])):
                with b.if_then(b.icmp_signed("<", e.integer(p), valid_positions)):
                    e.store(result, e.at(row, e.integer(p), e.lanes))


def _multiply_sweep(outs: int) -> Any:
    width = POSITIONS[outs]
    tile = multiply_tile(outs, width)

    @INNER
    def sweep(y, n_outs, x, taps, w, w0, rows, positions):
        # Taken out once: numba counts a reference at every access.
        results, source, table = y.array, x.array, taps.table
        for first in range(0, positions, width):
            p = max(0, min(first, positions - width))  # the last tile overlaps the one before
            for r in range(rows):  # inside: rows share most of what their taps read
                y_r = y.start + r * y.row + p * y.position
                x_r = x.start + r * x.row + p * x.position
                for o in range(0, n_outs, outs):
                    tile(
                        results, y_r + o * y.channel, y.channel, y.position, n_outs - o, positions,
                        source, x_r, table, taps.start, taps.length, w, w0 + o * taps.length,
                    )  # fmt: skip

    sweep.py_func.__qualname__ += str(outs)  # or kernels from two processes' caches mix them up
    return sweep


def _outer_sweep(outs: int) -> Any:
    held = TAPS[outs]
    tile = outer_tile(outs, held)

    @INNER
    def sweep(dw, dw0, n_outs, dy, x, taps, rows, positions, lanes):
        left, right, table = dy.array, x.array, taps.table
        record = -(-outs * held // x.position) * x.position
        for o in range(0, n_outs, outs):
            for t in range(0, taps.length, held):  # inside: taps share most of what they read
                tile(
                    dw, dw0, left, dy.start + o * dy.channel, dy.channel, dy.row, n_outs - o,
                    right, x.start, x.row, table, taps.start + t, rows, positions, lanes,
                )  # fmt: skip
                dw0 += record

    sweep.py_func.__qualname__ += str(outs)
    return sweep


_four, _two, _one = (_multiply_sweep(outs) for outs in (4, 2, 1))
_four_out, _two_out, _one_out = (_outer_sweep(outs) for outs in (4, 2, 1))


@INNER
def multiply(height, y, n_outs, x, taps, w, w0, rows, positions):
    """y[o, r, p] = sum over t of w[t, o] * x[taps[t] + (r, p)], with tiles of `height` outputs.

    y and x are a `View`, taps are `Taps`; the packed weights w begin at w0.
    """
    if height == 4:
        _four(y, n_outs, x, taps, w, w0, rows, positions)
    elif height == 2:
        _two(y, n_outs, x, taps, w, w0, rows, positions)
    else:
        _one(y, n_outs, x, taps, w, w0, rows, positions)


@INNER
def outer(height, dw, dw0, n_outs, dy, x, taps, rows, positions, lanes):
    """dw[o, t] += sum over rows r and positions p of dy[o, r, p] * x[taps[t] + (r, p)].

    dy and x are a `View`, taps are `Taps`; only `lanes`, given as bits, count. In dw the weights
    lie from dw0 on, tile after tile, as `Plan.shares` says.
    """
    if height == 4:
        _four_out(dw, dw0, n_outs, dy, x, taps, rows, positions, lanes)
    elif height == 2:
        _two_out(dw, dw0, n_outs, dy, x, taps, rows, positions, lanes)
    else:
        _one_out(dw, dw0, n_outs, dy, x, taps, rows, positions, lanes)


@INNER
def winograd(y, n_outs, x, point, taps, w, w0, rows, positions):
    """Compute `multiply` of three taps in a row by Winograd's transform, in tiles of four outputs.

    x are rows at Winograd's points, `point` apart; a tap is one row of the kernel.
    """
    results, source, table = y.array, x.array, taps.table
    for p in range(0, positions, WIDTH):
        for r in range(rows):
            y_r = y.start + r * y.row + p * y.position
            x_r = x.start + r * x.row + p // WIDTH * x.position
            for o in range(0, n_outs, 4):
                winograd_tile(
                    results, y_r + o * y.channel, y.channel, n_outs - o, positions - p,
                    source, x_r, point, table, taps.start, taps.length,
                    w, w0 + o * taps.length * POINTS,
                )  # fmt: skip
