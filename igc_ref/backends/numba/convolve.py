"""x' = P W_d Pᵀ W_p x, forward and backward, on one piece of the batch after the other.

A piece is some rows of a block; `igc_ref.backends.numba.layout` says what a block is. A thread
works through it in bands of rows: what is between the two convolutions, ybar = Pᵀ W_p x, is still
in the cache when the second one reads it. While a band is read, pending work is applied: forward
the batch norm and the ReLU before the block, backward the derivative of the batch norm after it.
While a band of results is still in the cache, sums for batch norm are taken: the moments of x', or
the sums that the derivative of the batch norm before the block needs.

The way back, with d the gradient of x' and z the windows of x (y = W_p z, ybar = Pᵀ y):

    dz̄ = Pᵀ d,   dW_d = blockmask(dz̄ ȳᵀ),   dȳ = W_dᵀ dz̄,
    dy = P dȳ,   dW_p = blockmask(dy zᵀ),    dz = W_pᵀ dy,  which is folded into dx

Backward, the scratch `z` holds the rows of x as they are read, `dz` holds dz̄ of one partition, and
`dy` holds dȳ, which Pᵀ only addresses otherwise: dy. dW_d needs ybar. If a group has few inputs,
ybar is computed again, in `dy`, and then replaced by dȳ, one partition after the other: that is
less work than to write and read it. If a group has `plan.WIDE` inputs or more, it is the other way
round, and forward keeps ybar in memory.

Groups that are wide in inputs and outputs are convolved by Winograd's transform if the kernel is
3x3 with stride 1 (`winograd`, `plan.Sizes.tiles`): rows of z go to Winograd's points in `zt`, rows
of dy in `dt`, and a tap is then a row of the kernel.

M = 0 means a group convolution without the secondary one; it has no ybar.

With gates y = D W_p z, and dȳ is multiplied by them as soon as it is made. The gradient of a gate
is a sum of dȳ W_p z: of dȳ ȳ, what there is, it is that sum over the gate.

Letters: b a block, l a primary group, m a secondary partition, iy and oy rows of x and of x'.
Rules and derivatives say how numbers are read: see `igc_ref.backends.operators.lazy`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from igc_ref.backends.numba.layout import inside, parts, source
from igc_ref.backends.numba.rows import (
    derive_row,
    gate_row,
    gradient_row,
    input_row,
    moments_row,
    products_row,
    scale_row,
    sums_row,
)
from igc_ref.backends.numba.tiles import Taps, View, multiply, outer, winograd
from igc_ref.backends.numba.vectors import INNER, kernel, take
from igc_ref.backends.numba.winograd import POINTS
from igc_ref.backends.operators.lazy import NO_FLOOR


class Weights(NamedTuple):
    """Packed weights, and the taps to which they belong."""

    packed: Any
    taps: Any


class BackwardWeights(NamedTuple):
    """What the way back multiplies by."""

    primary: Weights  # W_p, for ybar and for the taps of dW_p
    folded: Weights  # W_pᵀ, for dx: the taps of pass n are starts[0, n] to starts[0, n + 1]
    starts: Any  # of the taps and of the packed weights, (2, passes + 1)
    secondary: Weights  # W_dᵀ, with taps in one partition of dz̄
    ybar_mixes: Any  # the same taps in ybar


class Band(NamedTuple):
    """Rows of one block that are worked on together, on the way back."""

    b: int  # the block
    top: int  # rows of x' whose dx is computed,
    bottom: int
    ready: int  # rows of dy to be made
    until: int
    own: int  # those of them whose dW is this piece's: none if own >= own_end
    own_end: int
    lanes: int  # of the block that have images, as bits


@kernel
def forward(first, last, thread, counter, y, kept, moments, x, primary, secondary, gates, g,
            scratch):  # fmt: skip
    """Write x' and its moments, (pieces, out, 3): pivot, sum and sum of squares about it.

    x is a tuple: the numbers as one long row, and the rule by which they are read. Where a plan
    says so, ybar is kept for the way back. Threads take a new piece when they are done with one.
    Gates, if there are any, have shape (blocks, L, V): y = D W_p x, computed where one is not 0.
    """
    pieces, piece = g.blocks * g.spans, take(counter)
    while piece < pieces:
        _forward_piece(piece, y, kept, moments, x, primary, secondary, gates, g, scratch[thread])
        piece = take(counter)


@kernel
def backward(first, last, thread, counter, dx, dW_p, dW_d, sums, d, x, kept, weights, gates, g,
             scratch):  # fmt: skip
    """Write dx and, for every piece, its share of dW_p, of dW_d and of the sums for batch norm.

    d is a tuple, as x is: the upstream gradient, and the derivative by which it is read. gates is
    one too: the gates, and sums (pieces, L, V), to which each adds its gradient times itself.
    An empty dx is not computed.
    """
    pieces, piece = g.blocks * g.spans, take(counter)
    while piece < pieces:
        _backward_piece(piece, dx, dW_p[piece], dW_d[piece], sums[piece], d, x, kept, weights,
                        gates, g, scratch[thread])  # fmt: skip
        piece = take(counter)


@INNER
def _forward_piece(piece, y, kept, moments, x, primary, secondary, gates, g, scratch):
    V, b = g.lanes, piece // g.spans
    first, last = _rows_of(piece % g.spans, g)
    z, zt, ybar, _, _, _ = _cut(scratch, g)
    if g.kept_plane or not g.M:
        ybar = kept if g.M else y
    z[:] = 0
    out_row = g.columns * V
    out_channel = g.rows * out_row
    mixes = Taps(secondary.taps, 0, g.mix)
    for top in range(first, last, g.band):
        rows = min(g.band, last - top)
        band0 = b * g.L * g.out * out_channel + top * out_row  # of channel 0 in y
        ybar0 = b * g.L * g.out * g.kept_plane + top * out_row if g.kept_plane else 0
        for l in range(g.L):
            # y = W_p z, written to its places in ybar = Pᵀ y
            y0 = ybar0 + l * g.y_group if g.M else band0 + l * g.out * out_channel
            group = View(ybar, y0, g.y_channel if g.M else out_channel, out_row, V)
            _gated(group, z, zt, x, l, primary, gates, b, top, rows, g)
        for m in range(g.M):  # x' = P W_d ybar: channel j of partition m goes to j*M + m
            partition = View(ybar, ybar0 + m * g.mix * g.y_plane, 0, 0, V)
            dealt = View(y, band0 + m * out_channel, g.M * out_channel, 0, V)
            w0 = m * _tiled(g.mix, g.mix_height) * g.mix
            multiply(g.mix_height, dealt, g.mix, partition, mixes, secondary.packed, w0,
                     min(rows, 1), rows * g.columns)  # fmt: skip
        _add_moments(moments[piece], top == first, y, band0, out_channel, top, top + rows, b, g)


@INNER
def _gated(y, z, zt, x, l, primary, gates, b, top, rows, g):
    """Compute rows from `top` of y = W_p z of group l, times the gates of the images in the lanes.

    If all those are 0, nothing is computed.
    """
    is_open = len(gates) == 0 or gates[b, l].any()
    if is_open:
        _read_input(z, x, b, l, top * g.stride - g.py, (rows - 1) * g.stride + g.kh, g)
        _primary(y, z, zt, l, primary, rows, g)
    for o in range(g.out if len(gates) else 0):
        at, count = y.start + o * y.channel, (rows - 1) * (y.row // g.lanes) + g.columns
        if is_open:
            gate_row(y.array, at, y.array, at, count, 1.0, 0.0, NO_FLOOR, gates,
                     (b * g.L + l) * g.lanes)  # fmt: skip
        else:
            y.array[at : at + count * g.lanes] = 0


@INNER
def _backward_piece(piece, dx, dW_p, dW_d, sums, d, x, kept, weights, gates, g, scratch):
    b, (first, last) = piece // g.spans, _rows_of(piece % g.spans, g)
    z, zt, dy, dz, ungated, dt = _cut(scratch, g)
    z[:] = 0
    _clear_margins(dy, g)
    dW_p[:] = 0
    dW_d[:] = 0
    ready = first - g.above  # rows of dy before this one have been made
    for top in range(first, last, g.band):
        bottom = min(top + g.band, last)
        until = bottom + g.below
        band = Band(b, top, bottom, ready, until,
                    max(ready, first), min(until, last), inside(0, b, g.y))  # fmt: skip
        if g.M:
            if not g.kept_plane:
                _ybar_rows(dy, z, zt, x, weights.primary, gates[0], band, g)
            _dy_rows(dy, dz, ungated, dW_d, d, kept, weights.secondary, weights.ybar_mixes, gates,
                     piece, band, g)  # fmt: skip
        else:
            for c in range(g.L * g.out):
                dy0 = c * g.y_plane + _dy_at(ready, band, g)
                _read_gradient(dy, dy0, g.y_columns * g.lanes, d, c, band, g)
        for l in range(g.L):
            if band.own < band.own_end:
                _read_input(z, x, b, l, band.own * g.stride - g.py,
                            (band.own_end - band.own - 1) * g.stride + g.kh, g)  # fmt: skip
                _dW_rows(dW_p, dy, dt, z, zt, l, Taps(weights.primary.taps, 0, g.taps), band, g)
            if len(dx) and g.tiles:
                _dx_points(dx, dy, dt, weights.folded, l, band, g)
            elif len(dx):
                _dx_rows(dx, dy, weights.folded, weights.starts, l, band, g)
        if len(dx):
            _add_sums(sums, dx, x, b, top * g.stride, min(bottom * g.stride, g.H), g)
        if bottom < last:
            _move_rows(dy, bottom - top, g)
        ready = until


@INNER
def _cut(scratch, g):
    """Return the scratch: z, z at Winograd's points, dy, dz̄, dȳ before its gates, dy at points."""
    z = g.inp * g.z_rows * g.z_columns * g.lanes
    zt = z + g.inp * g.z_points
    dy = zt + g.L * g.out * g.y_plane
    dz = dy + g.mix * g.dz_plane
    ungated = dz + g.mix * g.dz_plane
    cut = scratch[:z], scratch[z:zt], scratch[zt:dy], scratch[dy:dz]
    return *cut, scratch[dz:ungated], scratch[ungated:]


@INNER
def _clear_margins(dy, g):
    """Set the columns beside the image to 0."""
    V, row = g.lanes, g.y_columns * g.lanes
    for c in range(g.L * g.out):
        for at in range(c * g.y_plane, (c + 1) * g.y_plane - row + 1, row):
            dy[at : at + g.left * V] = 0
            dy[at + (g.left + g.columns) * V : at + row] = 0


@INNER
def _move_rows(dy, rows, g):
    """Move the last rows of dy to its top: they are the next band's first."""
    moved = rows * g.y_columns * g.lanes
    for c in range(g.L * g.out):
        plane = dy[c * g.y_plane : (c + 1) * g.y_plane]
        for i in range((g.above + g.below) * g.y_columns * g.lanes):
            plane[i] = plane[i + moved]


@INNER
def _primary(y, z, zt, l, primary, rows, g):
    """Compute y = W_p z of group l; with Winograd's tiles, z goes to its points first."""
    V, taps = g.lanes, Taps(primary.taps, 0, g.taps)
    w0 = l * _tiled(g.out, g.height) * g.taps
    if g.tiles:
        _to_points(zt, g.z_points, g.z_point, z, 0, g.z_rows * g.z_columns * V, g.z_columns * V,
                   g.inp, rows + g.kh - 1, g)  # fmt: skip
        patches = View(zt, 0, 0, g.tiles * V, V)
        winograd(y, g.out, patches, g.z_point, taps, primary.packed, POINTS * w0, rows,
                 g.columns)  # fmt: skip
    else:
        patches = View(z, 0, 0, g.stride * g.z_columns * V, V)
        multiply(g.height, y, g.out, patches, taps, primary.packed, w0, rows, g.columns)


@INNER
def _to_points(at, channel, point, x, x0, x_channel, x_row, channels, rows, g):
    """Take rows of some channels, padding included, to Winograd's points."""
    for c in range(channels):
        for r in range(rows):
            input_row(at, c * channel + r * g.tiles * g.lanes, point,
                      x, x0 + c * x_channel + r * x_row, g.tiles)  # fmt: skip


@INNER
def _dW_rows(dW_p, dy, dt, z, zt, l, taps, band, g):
    """dW_p += dy zᵀ for the piece's own rows of group l."""
    V, rows = g.lanes, band.own_end - band.own
    dy_row, dy0 = g.y_columns * V, l * g.y_group + _dy_at(band.own, band, g)
    if not g.tiles:
        gradient = View(dy, dy0, g.y_channel, dy_row, V)
        outer(g.height, dW_p, l * g.share, g.out, gradient,
              View(z, 0, 0, g.stride * g.z_columns * V, V), taps, rows, g.columns,
              band.lanes)  # fmt: skip
        return
    _to_points(zt, g.z_points, g.z_point, z, 0, g.z_rows * g.z_columns * V, g.z_columns * V,
               g.inp, rows + g.kh - 1, g)  # fmt: skip
    for o in range(g.out):
        for r in range(rows):
            gradient_row(dt, o * g.d_points + r * g.tiles * V, g.d_point,
                         dy, dy0 + o * g.y_channel + r * dy_row, g.tiles)  # fmt: skip
    for q in range(POINTS):  # the rows of a point lie one after the other
        outer(g.height, dW_p, (q * g.L + l) * g.share, g.out,
              View(dt, q * g.d_point, g.d_points, 0, V), View(zt, q * g.z_point, 0, 0, V), taps,
              min(rows, 1), rows * g.tiles, band.lanes)  # fmt: skip


@INNER
def _dx_points(dx, dy, dt, weights, l, band, g):
    """Compute `_dx_rows` by Winograd's transform."""
    V, rows, taps = g.lanes, band.bottom - band.top, Taps(weights.taps, 0, g.out * g.kh)
    dy0, dy_row = l * g.y_group, g.y_columns * V  # the first row of the scratch is the first here
    _to_points(dt, g.d_points, g.d_point, dy, dy0, g.y_channel, dy_row, g.out, rows + g.kh - 1, g)
    dx0 = ((band.b * g.L + l) * g.inp * g.H + band.top) * g.W * V
    pixels, gradients = View(dx, dx0, g.H * g.W * V, g.W * V, V), View(dt, 0, 0, g.tiles * V, V)
    w0 = l * _tiled(g.inp, g.back_height) * taps.length * POINTS
    winograd(pixels, g.inp, gradients, g.d_point, taps, weights.packed, w0, rows,
             g.columns)  # fmt: skip


@INNER
def _dy_at(row, band, g):
    """Where a row of the image begins in a channel of the scratch of dy or ybar."""
    return ((row - band.top + g.above) * g.y_columns + g.left) * g.lanes


@INNER
def _ybar_rows(ybar, z, zt, x, primary, gates, band, g):
    """Compute ybar = Pᵀ W_p x again, where dy will be; gated, if there are gates."""
    V = g.lanes
    for l in range(g.L if band.own < band.own_end else 0):
        y0 = l * g.y_group + _dy_at(band.own, band, g)
        group = View(ybar, y0, g.y_channel, g.y_columns * V, V)
        rows = band.own_end - band.own
        _gated(group, z, zt, x, l, primary, gates, band.b, band.own, rows, g)


@INNER
def _dy_rows(dy, dz, ungated, dW_d, d, kept, secondary, ybar_mixes, gates, piece, band, g):
    """dW_d += dz̄ ȳᵀ for the piece's own rows, then dȳ = W_dᵀ dz̄ over ȳ, partition by partition."""
    V, dz_row, dy_row = g.lanes, g.columns * g.lanes, g.y_columns * g.lanes
    ready, until = band.ready, band.until
    if g.y.together == V:  # no lane has a neighbour: rows outside of the image are 0
        ready, until = max(ready, 0), max(ready, 0, min(until, g.rows))
    for m in range(g.M):
        for j in range(g.mix):  # dz̄ = Pᵀ d: channel j of partition m comes from j*M + m
            _read_gradient(dz, j * g.dz_plane, dz_row, d, j * g.M + m, band, g)
        partition = m * g.mix * g.y_plane
        ybar = View(dy, partition + _dy_at(band.own, band, g), g.y_plane, dy_row, V)
        if g.kept_plane:
            ybar0 = (band.b * g.M + m) * g.mix * g.kept_plane + band.own * dz_row
            ybar = View(kept, ybar0, g.kept_plane, dz_row, V)
        if band.own < band.own_end:
            dz_own = View(dz, (band.own - band.ready) * dz_row, g.dz_plane, dz_row, V)
            outer(g.mix_height, dW_d, m * g.mix_share, g.mix, dz_own, ybar,
                  Taps(ybar_mixes, 0, g.mix), band.own_end - band.own, g.columns,
                  band.lanes)  # fmt: skip
        dy_bar = View(dy, partition + _dy_at(ready, band, g), g.y_plane, dy_row, V)
        if len(gates[0]):
            dy_bar = View(ungated, 0, g.dz_plane, dz_row, V)
        w0 = m * _tiled(g.mix, g.mix_height) * g.mix
        multiply(g.mix_height, dy_bar, g.mix, View(dz, (ready - band.ready) * dz_row, 0, dz_row, V),
                 Taps(secondary.taps, 0, g.mix), secondary.packed, w0,
                 until - ready, g.columns)  # fmt: skip
        if len(gates[0]):
            _gate_rows(dy, m, dy_bar, ybar, gates, piece, ready, until, band, g)
        for oy in range(band.ready, band.until):
            for j in range(0 if ready <= oy < until else g.mix):
                at = partition + j * g.y_plane + _dy_at(oy, band, g)
                dy[at : at + dz_row] = 0


@INNER
def _gate_rows(dy, m, ungated, ybar, gates, piece, ready, until, band, g):
    """Write dȳ, times the gates, to its place, after the sums for the gates of dȳ times D ȳ."""
    V, (gate, sums) = g.lanes, gates
    for j in range(g.mix):
        place, y0 = m * g.mix + j, ybar.start + j * ybar.channel
        l = place % g.L  # Pᵀ has dealt out the groups
        for oy in range(ready, until):
            at = j * g.dz_plane + (oy - ready) * ungated.row
            if band.own <= oy < band.own_end:
                products_row(sums, (piece * g.L + l) * V, ungated.array, at, ybar.array,
                             y0 + (oy - band.own) * ybar.row, g.columns, 1.0, 0.0, NO_FLOOR,
                             band.lanes)  # fmt: skip
            gate_row(dy, place * g.y_plane + _dy_at(oy, band, g), ungated.array, at,
                     g.columns, 1.0, 0.0, NO_FLOOR, gate, (band.b * g.L + l) * V)  # fmt: skip


@INNER
def _dx_rows(dx, dy, weights, starts, l, band, g):
    """Compute dz = W_pᵀ dy, folded: every input pixel gathers the taps that read it."""
    V, s = g.lanes, g.stride
    row, top = g.W * V, band.top * s
    dy0 = l * g.y_group + _dy_at(band.top, band, g)
    gradients = View(dy, dy0, 0, g.y_columns * V, V)
    for fy in range(min(s, g.H - top)):
        rows = (min(band.bottom * s, g.H) - top - fy + s - 1) // s
        dx0 = ((band.b * g.L + l) * g.inp * g.H + top + fy) * row
        for fx in range(min(s, g.W)):
            n = fy * min(s, g.W) + fx
            taps = Taps(weights.taps, starts[0, n], starts[0, n + 1] - starts[0, n])
            positions = (g.W - fx + s - 1) // s
            if taps.length:
                pixels = View(dx, dx0 + fx * V, g.H * row, s * row, s * V)
                w0 = starts[1, n] + l * _tiled(g.inp, g.back_height) * taps.length
                multiply(g.back_height, pixels, g.inp, gradients, taps, weights.packed, w0, rows,
                         positions)  # fmt: skip
            else:  # pixels that no tap reads
                for i in range(g.inp):
                    for r in range(rows):
                        for p in range(positions):
                            at = dx0 + i * g.H * row + r * s * row + (fx + p * s) * V
                            dx[at : at + V] = 0


@INNER
def _read_input(z, x, b, l, top, rows, g):
    """Compute z = max(scale*x + shift, floor), rows from `top` of group l; 0 outside the image.

    Columns lie sorted by their remainder by the stride: a tap then reads neighbours.
    """
    V, s = g.lanes, g.stride
    wide = min(g.W, g.z_columns - g.px)
    array, table, floor = x
    for i in range(g.inp):
        c = l * g.inp + i
        for r in range(rows):
            z0 = (i * g.z_rows + r) * g.z_columns * V
            row, shift, lanes = source(top + r, g.x)
            x0 = ((b * g.L * g.inp + c) * g.H + row) * g.W * V + shift
            if not lanes:
                z[z0 : z0 + g.z_columns * V] = 0
                continue
            for q in range(min(s, g.W)):  # every s-th pixel, from the first s on
                column = q + g.px
                place = z0 + (column % s * (g.z_columns // s) + column // s) * V
                scale_row(z, place, V, array, x0 + q * V, s * V, (wide - q + s - 1) // s,
                          table[c, 0], table[c, 1], floor, lanes)  # fmt: skip


@INNER
def _read_gradient(dy, dy0, dy_row, d, c, band, g):
    """Write the rows of one channel of the gradient, read by its rule; 0 outside the image."""
    row = g.columns * g.lanes
    array, table, floor, bn_x = d
    for oy in range(band.ready, band.until):
        at = dy0 + (oy - band.ready) * dy_row
        source_row, shift, lanes = source(oy, g.y)
        if lanes:
            d0 = ((band.b * g.L * g.out + c) * g.rows + source_row) * row + shift
            derive_row(dy, at, array, bn_x, d0, g.columns, table[c, 0], table[c, 1], floor,
                       table[c, 2], table[c, 3], table[c, 4], table[c, 5], lanes)  # fmt: skip
        else:
            dy[at : at + row] = 0


@INNER
def _add_moments(moments, fresh, y, y0, channel, top, bottom, b, g):
    """Add a band of x' to the sums of (v - pivot) and of its square; the pivot is the first v."""
    for first, last, lanes in parts(top, bottom, b, g.y):
        for c in range(g.L * g.out if first < last else 0):
            at = y0 + c * channel
            if fresh and first == top:
                moments[c, 0], moments[c, 1], moments[c, 2] = y[at], 0, 0
            at += (first - top) * g.columns * g.lanes
            total, squares = moments_row(y, at, (last - first) * g.columns, moments[c, 0], lanes)
            moments[c, 1] += total
            moments[c, 2] += squares


@INNER
def _add_sums(sums, dx, x, b, top, bottom, g):
    """Add rows of dx to the sums of dx and of dx*(x - mean) where scale*x + shift > floor."""
    array, rule, floor = x
    for first, last, lanes in parts(top, bottom, b, g.x):
        for c in range(g.L * g.inp if first < last else 0):
            at = ((b * g.L * g.inp + c) * g.H + first) * g.W * g.lanes
            total, product = sums_row(dx, array, at, (last - first) * g.W, rule[c, 0], rule[c, 1],
                                      floor, rule[c, 2], lanes)  # fmt: skip
            sums[c, 0] += total
            sums[c, 1] += product


@INNER
def _rows_of(span, g):
    """Return the output rows of a piece: near-equal shares."""
    return span * g.rows // g.spans, (span + 1) * g.rows // g.spans


@INNER
def _tiled(outs, height):
    """Return the outputs with those that fill up the last tile."""
    return -(-outs // height) * height
