"""x' = P W_d Pᵀ W_p x, forward and backward, on one piece of the batch after the other.

A piece is some rows of a block of V images. It is worked through in bands of rows, so that
what is between the two convolutions, ybar = Pᵀ W_p x, lives and dies in the cache. What comes
before is applied while a band is read: the batch norm and the ReLU that made x on the way
forward, the derivative of the batch norm that follows on the way back. What comes after is begun
while a band is still there: the moments of x' for its batch norm, and the sums that the batch
norm of x needs.

M = 0 means a group convolution without the secondary one.

Letters: b a block, l a primary group, m a secondary partition, iy and oy rows of x and of x'.
Rules and derivatives say how numbers are read: see `igc_ref.backends.operators.lazy`.
"""

from __future__ import annotations

from igc_ref.backends.numba.rows import derive_row, moments_row, scale_row, sums_row
from igc_ref.backends.numba.tiles import multiply, outer
from igc_ref.backends.numba.vectors import INNER, kernel


@kernel
def forward(first, last, thread, y, moments, x, rule, floor, W_p, taps, W_d, mixes, g, scratch):
    """Write x' and its moments, (pieces, out, 3): pivot, sum and sum of squares about it."""
    for piece in range(first, last):
        _forward_piece(piece, y, moments, x, rule, floor, W_p, taps, W_d, mixes, g, scratch[thread])


@kernel
def backward(
    first, last, thread, dx, dW_p, dW_d, sums, d, d_table, d_floor, bn_x, x, rule, floor, W_p, taps,
    back_W_p, back_taps, starts, W_dT, mixes, y_mixes, g, scratch,
):  # fmt: skip
    """Write dx and, for every piece, its share of dW_p, of dW_d and of the sums for batch norm."""
    for piece in range(first, last):
        _backward_piece(
            piece, dx, dW_p[piece], dW_d[piece], sums, d, d_table, d_floor, bn_x, x, rule, floor,
            W_p, taps, back_W_p, back_taps, starts, W_dT, mixes, y_mixes, g, scratch[thread],
        )  # fmt: skip


@INNER
def _forward_piece(piece, y, moments, x, rule, floor, W_p, taps, W_d, mixes, g, scratch):
    V, b = g.lanes, piece // g.spans
    first, last = _rows_of(piece % g.spans, g)
    z = scratch[: g.inp * g.z_rows * g.z_columns * V]
    ybar = scratch[len(z) :] if g.M else y
    z[:] = 0
    out_row = g.columns * V
    out_channel = g.rows * out_row
    for top in range(first, last, g.band):
        rows = min(g.band, last - top)
        band0 = b * g.L * g.out * out_channel + top * out_row  # of channel 0 in y
        for l in range(g.L):
            _read_input(z, x, rule, floor, b, l, top * g.stride - g.padding,
                        (rows - 1) * g.stride + g.k, g)  # fmt: skip
            # y = W_p z, written to its places in ybar = Pᵀ y
            y0 = l * g.y_group if g.M else band0 + l * g.out * out_channel
            multiply(g.height, ybar, y0, g.y_channel if g.M else out_channel, out_row, V, g.out,
                     z, 0, g.stride * g.z_columns * V, V, taps, 0, g.taps,
                     W_p, l * _tiled(g.out, g.height) * g.taps, rows, g.columns)  # fmt: skip
        for m in range(g.M):  # x' = P W_d ybar: channel j of partition m goes to j*M + m
            multiply(g.mix_height, y, band0 + m * out_channel, g.M * out_channel, 0, V, g.mix,
                     ybar, m * g.mix * g.y_plane, 0, V, mixes, 0, g.mix,
                     W_d, m * _tiled(g.mix, g.mix_height) * g.mix, 1, rows * g.columns)  # fmt: skip
        _add_moments(moments[piece], top == first, y, band0, out_channel, rows * g.columns, b, g)


@INNER
def _backward_piece(
    piece, dx, dW_p, dW_d, sums, d, d_table, d_floor, bn_x, x, rule, floor, W_p, taps, back_W_p,
    back_taps, starts, W_dT, mixes, y_mixes, g, scratch,
):  # fmt: skip
    V, b = g.lanes, piece // g.spans
    first, last = _rows_of(piece % g.spans, g)
    z_size, y_size = g.inp * g.z_rows * g.z_columns * V, g.L * g.out * g.y_plane
    z, dy, dz = scratch[:z_size], scratch[z_size : z_size + y_size], scratch[z_size + y_size :]
    z[:] = 0
    dy[:] = 0
    ready = first - g.above  # rows of dy before this one have been made
    for top in range(first, last, g.band):
        bottom = min(top + g.band, last)
        origin, until = top - g.above, bottom + g.below  # rows of dy in the scratch
        own, own_end = max(ready, first), min(until, last)  # new rows whose dW is this piece's
        if g.M:
            _ybar_rows(dy, z, x, rule, floor, W_p, taps, b, own, own_end, origin, g)
            _dy_rows(dy, dz, dW_d, d, d_table, d_floor, bn_x, W_dT, mixes, y_mixes, b, ready,
                     until, own, own_end, origin, g)  # fmt: skip
        else:
            for c in range(g.L * g.out):
                _read_gradient(dy, c * g.y_plane + ((ready - origin) * g.y_columns + g.above) * V,
                               g.y_columns * V, d, d_table, d_floor, bn_x, b, c, ready, until,
                               g)  # fmt: skip
        for l in range(g.L):
            if own < own_end:
                _read_input(z, x, rule, floor, b, l, own * g.stride - g.padding,
                            (own_end - own - 1) * g.stride + g.k, g)  # fmt: skip
                dy0 = l * g.y_group + ((own - origin) * g.y_columns + g.above) * V
                outer(g.height, dW_p, l * g.out * g.taps, g.out, g.taps,
                      dy, dy0, g.y_channel, g.y_columns * V,
                      z, 0, g.stride * g.z_columns * V, taps,
                      own_end - own, g.columns, _valid(b, g))  # fmt: skip
            _dx_rows(dx, dy, back_W_p, back_taps, starts, b, l, top, bottom, origin, g)
        _add_sums(sums[piece], dx, x, rule, floor, b, top * g.stride,
                  min(bottom * g.stride, g.H), g)  # fmt: skip
        for c in range(g.L * g.out):  # the last rows of dy are the next band's first
            plane = dy[c * g.y_plane : (c + 1) * g.y_plane]
            moved = (bottom - top) * g.y_columns * V
            for i in range((g.above + g.below) * g.y_columns * V):
                plane[i] = plane[i + moved]
        ready = until


@INNER
def _ybar_rows(ybar, z, x, rule, floor, W_p, taps, b, own, own_end, origin, g):
    """Compute ybar = Pᵀ W_p x again, where dy will be: less work than to keep it in memory."""
    V = g.lanes
    for l in range(g.L if own < own_end else 0):
        _read_input(z, x, rule, floor, b, l, own * g.stride - g.padding,
                    (own_end - own - 1) * g.stride + g.k, g)  # fmt: skip
        y0 = l * g.y_group + ((own - origin) * g.y_columns + g.above) * V
        multiply(g.height, ybar, y0, g.y_channel, g.y_columns * V, V, g.out,
                 z, 0, g.stride * g.z_columns * V, V, taps, 0, g.taps,
                 W_p, l * _tiled(g.out, g.height) * g.taps, own_end - own, g.columns)  # fmt: skip


@INNER
def _dy_rows(
    dy,
    dz,
    dW_d,
    d,
    d_table,
    d_floor,
    bn_x,
    W_dT,
    mixes,
    y_mixes,
    b,
    ready,
    until,
    own,
    own_end,
    origin,
    g,
):
    """dW_d += dz̄ ȳᵀ for the piece's own rows, then dȳ = W_dᵀ dz̄ over ȳ, partition by partition."""
    V = g.lanes
    dz_row, dy_row = g.columns * V, g.y_columns * V
    plane = g.y_plane
    for m in range(g.M):
        for j in range(g.mix):  # dz̄ = Pᵀ d: channel j of partition m comes from j*M + m
            _read_gradient(dz, j * g.dz_plane, dz_row, d, d_table, d_floor, bn_x, b, j * g.M + m,
                           ready, until, g)  # fmt: skip
        if own < own_end:
            x0 = m * g.mix * plane + (own - origin) * dy_row + g.above * V
            outer(g.mix_height, dW_d, m * g.mix * g.mix, g.mix, g.mix,
                  dz, (own - ready) * dz_row, g.dz_plane, dz_row,
                  dy, x0, dy_row, y_mixes, own_end - own, g.columns, _valid(b, g))  # fmt: skip
        y0 = m * g.mix * plane + (ready - origin) * dy_row + g.above * V
        multiply(g.mix_height, dy, y0, plane, dy_row, V, g.mix,
                 dz, 0, dz_row, V, mixes, 0, g.mix, W_dT,
                 m * _tiled(g.mix, g.mix_height) * g.mix, until - ready, g.columns)  # fmt: skip


@INNER
def _dx_rows(dx, dy, W, taps, starts, b, l, top, bottom, origin, g):
    """Compute dz = W_pᵀ dy, folded: every input pixel gathers the taps that read it."""
    V, s = g.lanes, g.stride
    row = g.W * V
    for fy in range(min(s, g.H - top * s)):
        rows = (min(bottom * s, g.H) - top * s - fy + s - 1) // s
        dx0 = ((b * g.L + l) * g.inp * g.H + top * s + fy) * row
        y0 = l * g.y_group + ((top - origin) * g.y_columns + g.above) * V
        for fx in range(min(s, g.W)):
            n = fy * min(s, g.W) + fx
            t, T = starts[0, n], starts[0, n + 1] - starts[0, n]
            positions = (g.W - fx + s - 1) // s
            w0 = starts[1, n] + l * _tiled(g.inp, g.back_height) * T
            if T:
                multiply(g.back_height, dx, dx0 + fx * V, g.H * row, s * row, s * V, g.inp,
                         dy, y0, g.y_columns * V, V, taps, t, T, W, w0, rows,
                         positions)  # fmt: skip
            else:  # pixels that no tap reads
                for i in range(g.inp):
                    for r in range(rows):
                        for p in range(positions):
                            at = dx0 + i * g.H * row + r * s * row + (fx + p * s) * V
                            dx[at : at + V] = 0


@INNER
def _read_input(z, x, rule, floor, b, l, top, rows, g):
    """Compute z = max(scale*x + shift, floor), rows from `top` of group l; 0 outside the image.

    Columns lie sorted by their remainder by the stride: a tap then reads neighbours.
    """
    V, s = g.lanes, g.stride
    wide = min(g.W, g.z_columns - g.padding)
    for i in range(g.inp):
        c = l * g.inp + i
        for r in range(rows):
            z0 = (i * g.z_rows + r) * g.z_columns * V
            x0 = ((b * g.L * g.inp + c) * g.H + top + r) * g.W * V
            if not 0 <= top + r < g.H:
                z[z0 : z0 + g.z_columns * V] = 0
                continue
            for q in range(min(s, g.W)):  # every s-th pixel, from the first s on
                column = q + g.padding
                place = z0 + (column % s * (g.z_columns // s) + column // s) * V
                scale_row(z, place, V, x, x0 + q * V, s * V, (wide - q + s - 1) // s,
                          rule[c, 0], rule[c, 1], floor)  # fmt: skip


@INNER
def _read_gradient(dy, y0, y_row, d, table, floor, bn_x, b, c, top, until, g):
    """Write the rows of one channel of the gradient, read by its rule; 0 outside the image."""
    row = g.columns * g.lanes
    for oy in range(top, until):
        at = y0 + (oy - top) * y_row
        if 0 <= oy < g.rows:
            d0 = ((b * g.L * g.out + c) * g.rows + oy) * row
            derive_row(dy, at, d, bn_x, d0, g.columns, table[c, 0], table[c, 1], floor,
                       table[c, 2], table[c, 3], table[c, 4], table[c, 5])  # fmt: skip
        else:
            dy[at : at + row] = 0


@INNER
def _add_moments(moments, fresh, y, y0, channel, positions, b, g):
    """Add a band of x' to the sums of (v - pivot) and of its square; the pivot is the first v."""
    for c in range(g.L * g.out):
        at = y0 + c * channel
        if fresh:
            moments[c, 0], moments[c, 1], moments[c, 2] = y[at], 0, 0
        total, squares = moments_row(y, at, positions, moments[c, 0], _valid(b, g))
        moments[c, 1] += total
        moments[c, 2] += squares


@INNER
def _add_sums(sums, dx, x, rule, floor, b, top, bottom, g):
    """Add rows of dx to the sums of dx and of dx*(x - mean) where scale*x + shift > floor."""
    for c in range(g.L * g.inp):
        at = ((b * g.L * g.inp + c) * g.H + top) * g.W * g.lanes
        total, product = sums_row(dx, x, at, (bottom - top) * g.W, rule[c, 0], rule[c, 1],
                                  floor, rule[c, 2], _valid(b, g))  # fmt: skip
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


@INNER
def _valid(b, g):
    """Return how many of a block's V images there are; the rest of the lanes are filling."""
    return min(g.lanes, g.images - b * g.lanes)
