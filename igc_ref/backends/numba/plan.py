"""Where every number lies: sizes, distances and tables of taps, computed once for each shape.

The kernels of `convolve` contain no index arithmetic of kernels, strides or permutations; they
follow the tables made here. A block is an array (C, R, W, V); see `igc_ref.backends.numba.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.layout import Layout, apart, counts_of, layout_of
from igc_ref.backends.numba.vectors import POSITIONS, TAPS
from igc_ref.backends.numba.winograd import POINTS
from igc_ref.spec.block import output_length

Table = npt.NDArray[np.int64]

WINOGRAD = 8
KEPT = 8
UNITS = 64  # pieces that a batch is cut into if it can be, so that threads have something to share
SPANS = 4  # pieces of a block at most: each reads and computes some rows of its neighbours again
ROWS = 4  # a piece has about this many rows of a block at least,
WORK = 1 << 26  # or so many multiplications, about 1.5 ms, if a block has few rows


class Shape(NamedTuple):
    """A group convolution with its secondary one (M = 0: without) on a batch of images."""

    in_channels: int
    out_channels: int
    L: int
    M: int
    k: int
    stride: int
    images: int
    height: int
    width: int
    lanes: int
    itemsize: int
    tile_bytes: int  # scratch memory for ybar or dy in one band of rows


class Sizes(NamedTuple):
    """The numbers that the kernels use; all lengths in numbers, not bytes."""

    L: int
    M: int
    inp: int  # input channels of a group
    out: int  # output channels of a group
    mix: int  # channels of a secondary partition
    taps: int  # inp*k*k
    k: int
    stride: int
    padding: int
    x: Layout
    y: Layout
    lanes: int
    blocks: int
    H: int  # input rows of a block,
    W: int  # input columns
    rows: int  # output rows of a block,
    columns: int  # W', output columns
    spans: int  # pieces of a block
    band: int  # output rows that are worked on together
    above: int  # rows and columns of dy that dx needs before its own
    below: int  # and after
    z_rows: int
    z_columns: int
    y_columns: int  # of the scratch for ybar and dy
    y_plane: int  # distance between channels of ybar or dy, and of dz̄
    dz_plane: int
    y_group: int  # distance from a group to the next one in that scratch
    y_channel: int  # distance from a channel of a group to its next one
    height: int  # outputs in a register tile: of the primary convolution,
    mix_height: int  # of the secondary one,
    back_height: int  # and of the primary one backward
    tiles: int  # of four positions in a row, for Winograd's transform; 0: without
    kept_plane: int  # distance between channels of ybar in memory; 0: it is computed again
    share: int  # numbers of a group in a piece's share of dW_p,
    mix_share: int  # of a partition in one of dW_d
    zt_point: int  # of z at Winograd's points: distance between points
    zt_plane: int  # and between channels;
    dt_point: int  # of dy at the points, or of its gradient's
    dt_plane: int


@dataclass(frozen=True)
class Plan:
    """Sizes and tables of one direction of one shape; `size` is its scratch, in numbers."""

    sizes: Sizes
    taps: Table  # (i, ky, kx) in the padded input rows, for W_p forward and its gradient
    primary: Table  # where the packed weights come from
    mixes: Table  # channels of a partition: taps of W_d in one partition of dz̄, or in ybar
    ybar_mixes: Table  # the same in ybar, for the gradient of W_d
    secondary: Table
    back_taps: Table  # (o, ky, kx) in dy, pass after pass
    back_starts: Table  # first tap and first weight of every pass, (2, passes + 1)
    back_primary: Table
    back_secondary: Table
    shares: Table  # where the gradients of W_p lie in a piece's share,
    mix_shares: Table  # and those of W_d
    counts: npt.NDArray[np.float64]  # how many numbers of a channel of x' each piece has
    size: int


def tile_height(outs: int) -> int:
    """Return how many outputs a register tile should hold to waste little."""
    return min((4, 2, 1), key=lambda height: -(-outs // height) * (height + 1))


@lru_cache(maxsize=1024)
def plan(shape: Shape, backward: bool) -> Plan:
    """Return the plan of a shape, forward or backward."""
    g = _sizes(shape, backward)
    V, k = g.lanes, g.k
    plane, row = g.z_rows * g.z_columns * V, g.z_columns * V
    weights = np.arange(shape.out_channels * g.taps).reshape(g.L, g.out, g.taps)
    if g.tiles:
        weights = np.arange(shape.out_channels * g.taps * POINTS).reshape(g.L, g.out, g.taps, POINTS)
        i, ky = (t.ravel() for t in np.mgrid[: g.inp, :k])
        taps = i * g.zt_plane + ky * g.tiles * V
    else:
        i, ky, kx = (t.ravel() for t in np.mgrid[: g.inp, :k, :k])
        column = kx % g.stride * (g.z_columns // g.stride) + kx // g.stride
        taps = i * plane + ky * row + column * V
    mixing = np.arange(shape.out_channels * g.mix).reshape(max(g.M, 1), -1, max(g.mix, 1))
    back_taps, back_starts, back_primary = (_back if g.tiles else _passes)(g, weights)
    in_scratch = backward or (g.M and not g.kept_plane)
    after_z = g.L * g.out * g.y_plane if in_scratch else 0  # ybar or dy
    after_z += g.mix * g.dz_plane if backward else 0  # one partition of dz̄
    return Plan(
        sizes=g,
        taps=_padded(taps),
        primary=_packed(weights, g.height),
        mixes=_padded(np.arange(g.mix) * (g.dz_plane if backward else g.y_plane)),
        ybar_mixes=_padded(np.arange(g.mix) * (g.kept_plane or g.y_plane)),
        secondary=_packed(mixing, g.mix_height),
        back_taps=back_taps,
        back_starts=back_starts,
        back_primary=back_primary,
        back_secondary=_packed(mixing.swapaxes(1, 2), g.mix_height),
        shares=_shared(g.L, g.out, g.taps, g.height, V),
        mix_shares=_shared(g.M, g.mix, g.mix, g.mix_height, V),
        counts=counts_of(g.y, g.columns, g.spans),
        size=g.inp * plane + after_z + max(POSITIONS.values()) * V
        + g.inp * g.zt_plane + (g.out * g.dt_plane if backward else 0),
    )


def _sizes(s: Shape, backward: bool) -> Sizes:
    inp, out, mix = s.in_channels // s.L, s.out_channels // s.L, s.out_channels // max(s.M, 1)
    rows, columns = (output_length(n, s.k, s.stride) for n in (s.height, s.width))
    y, p = layout_of(s.images, rows, s.lanes), s.k // 2
    x = apart(s.images, s.height, s.lanes)
    if y.together < s.lanes:  # a lane of x has the rows that the same lane of y is made of
        x = x._replace(together=y.together, rows=y.rows * s.stride)
    rows, blocks = y.rows, y.blocks
    above, below = (s.k - 1 - p) // s.stride, (s.stride - 1 + p) // s.stride
    work = s.out_channels * columns * s.lanes * (inp * s.k**2 + mix * (s.M > 0))  # of a row
    least = ROWS if y.together == s.lanes else min(ROWS, -(-WORK // work))
    spans = min(-(-UNITS // blocks), -(-rows // least), SPANS)
    longest = -(-rows // spans)
    bytes_each = s.out_channels * columns * s.lanes * s.itemsize
    band = max(1, min(longest, s.tile_bytes // bytes_each))
    edge = above + below if backward else 0
    y_rows, y_columns = band + edge, columns + edge
    # An odd number of vectors: channels then do not compete for the same cache lines.
    tiles = -(-columns // 4) if s.k == 3 and s.stride == 1 and min(inp, out) >= WINOGRAD else 0
    if tiles:
        y_columns = 4 * tiles + edge
    plane = (y_rows * y_columns | 1) * s.lanes
    kept_plane = (rows * columns | 1) * s.lanes if s.M and inp >= KEPT else 0
    if kept_plane and not backward:
        plane = kept_plane  # ybar is written there
    z_rows = (band + (below if backward else 0) - 1) * s.stride + s.k
    zt_point, dt_point = (z_rows * tiles | 1) * s.lanes, (y_rows * tiles | 1) * s.lanes
    taps, height, mix_height = inp * s.k * (1 if tiles else s.k), tile_height(out), tile_height(mix)
    return Sizes(
        kept_plane=kept_plane, share=_share(out, taps, height, s.lanes),
        mix_share=_share(mix, mix, mix_height, s.lanes) if s.M else 0,
        tiles=tiles, zt_point=zt_point, zt_plane=(zt_point * POINTS + s.lanes) * (tiles > 0),
        dt_point=dt_point, dt_plane=(dt_point * POINTS + s.lanes) * (tiles > 0),
        L=s.L, M=s.M, inp=inp, out=out, mix=mix if s.M else 0, k=s.k,
        taps=taps,
        stride=s.stride, padding=p, x=x, y=y, lanes=s.lanes, blocks=blocks,
        H=x.rows, W=s.width, rows=rows, columns=columns, spans=spans, band=band,
        above=above, below=below,
        z_rows=z_rows,
        z_columns=4 * tiles + 2 if tiles else (columns - 1 + -(-s.k // s.stride)) * s.stride,
        y_columns=y_columns, y_plane=plane, dz_plane=(y_rows * columns | 1) * s.lanes,
        y_group=plane if s.M else out * plane,  # Pᵀ: channel j of group l lies at j*L + l
        y_channel=s.L * plane if s.M else plane,
        height=height, mix_height=mix_height, back_height=tile_height(inp),
    )  # fmt: skip


def _passes(g: Sizes, weights: Table) -> tuple[Table, Table, Table]:
    """Return taps, starts and packed weights of the convolution that takes dy to dx.

    Input pixels of the same remainders (fy, fx) by the stride see the same taps: one pass each.
    ``iy = oy*stride + ky - padding``: tap ky reads row ``iy//stride + (fy + padding - ky)/stride``.
    """
    V, s, p = g.lanes, g.stride, g.padding
    taps, packed, starts = [], [], [(0, 0)]
    by_tap = weights.reshape(g.L, g.out, g.inp, g.k, g.k)
    for fy in range(min(s, g.H)):
        for fx in range(min(s, g.W)):
            ky = np.arange((fy + p) % s, g.k, s)
            kx = np.arange((fx + p) % s, g.k, s)
            o = np.arange(g.out)[:, None, None]
            row = ((fy + p - ky) // s)[:, None]
            column = (fx + p - kx) // s
            taps.append((o * g.y_channel + (row * g.y_columns + column) * V).ravel())
            seen = by_tap[:, :, :, ky[:, None], kx]  # (L, out, inp, ky, kx)
            seen = seen.swapaxes(1, 2).reshape(g.L, g.inp, -1)
            packed.append(_packed(seen, g.back_height))
            starts.append((starts[-1][0] + taps[-1].size, starts[-1][1] + packed[-1].size))
    return _padded(np.concatenate(taps)), np.array(starts).T.copy(), np.concatenate(packed)


def _back(g, weights):
    o, ky = (t.ravel() for t in np.mgrid[: g.out, : g.k])
    taps = o * g.dt_plane + (2 - ky) * g.tiles * g.lanes
    seen = weights.reshape(g.L, g.out, g.inp, g.k).swapaxes(1, 2).reshape(g.L, g.inp, -1)
    return _padded(taps), np.zeros((2, 2), int), _packed(seen, g.back_height)


def _packed(weights: Table, height: int) -> Table:
    """Order weights (groups, outs, taps) as tiles read them: (groups, tiles, taps, height).

    Outputs that fill up the last tile are -1: zeros.
    """
    groups, outs, taps = weights.shape
    tiles = -(-outs // height)
    filled = np.full((groups, tiles * height, taps), -1)
    filled[:, :outs] = weights
    return filled.reshape(groups, tiles, height, taps).swapaxes(2, 3).ravel()


def _record(height: int, lanes: int) -> int:
    return -(-height * TAPS[height] // lanes) * lanes


def _share(outs: int, taps: int, height: int, lanes: int) -> int:
    """How many numbers a group has in a piece's share of a gradient."""
    return -(-taps // TAPS[height]) * -(-outs // height) * _record(height, lanes)


def _shared(groups: int, outs: int, taps: int, height: int, lanes: int) -> Table:
    """Where the tiles of `outer` put the gradients of weights (groups, outs, taps)."""
    l, o, t = np.ogrid[:groups, :outs, :taps]
    record = t // TAPS[height] * -(-outs // height) + o // height
    place = t % TAPS[height] * height + o % height
    size = _share(outs, taps, height, lanes)
    return (l * size + record * _record(height, lanes) + place).ravel()


def _padded(taps: Table) -> Table:
    """Lengthen a table of taps, so that a register tile may read beyond its end."""
    return np.concatenate([taps, np.zeros(max(TAPS.values()), taps.dtype)]).astype(np.int64)
