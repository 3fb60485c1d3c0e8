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
from igc_ref.backends.numba.vectors import POSITIONS, TAPS, WINOGRAD
from igc_ref.backends.numba.winograd import POINTS, WIDTH
from igc_ref.spec.block import output_size

Table = npt.NDArray[np.int64]

UNITS = 64  # pieces that a batch is cut into if it can be, so that threads have something to share
SPANS = 4  # pieces of a block at most: each reads and computes some rows of its neighbours again
ROWS = 4  # a piece has about this many rows of a block at least,
WORK = 1 << 26  # or so many multiplications, about 1.5 ms, if a block has few rows
LEAST = 32  # positions of a band, if a piece has them; measured
# Inputs of a group from which on Winograd's transform saves more than it costs, and it is less work
# to keep ybar than to compute it again; measured.
WIDE = 8
BEYOND = max(POSITIONS.values())  # vectors that a tile may read beyond the last of its results


class Shape(NamedTuple):
    """A group convolution with its secondary one (M = 0: without) on a batch of images."""

    in_channels: int
    out_channels: int
    L: int
    M: int
    kh: int
    kw: int
    stride: int
    images: int
    whole: int  # images of the batch, if several processes share it; it decides how it is cut
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
    taps: int  # inp*kh*kw; inp*kh if each is a row of the kernel
    kh: int
    kw: int
    stride: int
    py: int  # padding above and below,
    px: int  # and beside the image
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
    above: int  # rows of dy that dx needs before its own
    below: int  # and after
    left: int  # and columns beside them
    z_rows: int
    z_columns: int
    y_columns: int  # of the scratch for ybar and dy
    y_plane: int  # distance between channels of ybar or dy, and of dz̄
    dz_plane: int
    y_group: int  # distance from a group to the next one in that scratch
    y_channel: int  # distance from a channel of a group to its next one
    kept_plane: int  # distance between channels of ybar in memory; 0: it is computed again
    height: int  # outputs in a register tile: of the primary convolution,
    mix_height: int  # of the secondary one,
    back_height: int  # and of the primary one backward
    share: int  # numbers of a group in a piece's share of dW_p
    mix_share: int  # and of a partition in one of dW_d
    tiles: int  # Winograd's tiles in a row; 0: taps are multiplied one by one
    z_point: int  # distance between the points of z,
    z_points: int  # and between its channels at all points
    d_point: int  # the same for dy
    d_points: int


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
    apart = g.kw if g.tiles else 1
    weights = _weights(g.L, g.out, g.taps, apart)
    mixing = _weights(g.M, g.mix, g.mix, 1)
    back_taps, back_starts, back_primary = (_back if g.tiles else _passes)(g, weights)
    return Plan(
        sizes=g,
        taps=_padded(_taps(g)),
        primary=packing(g.L, g.out, g.taps, g.height, apart),
        mixes=_padded(np.arange(g.mix) * (g.dz_plane if backward else g.y_plane)),
        ybar_mixes=_padded(np.arange(g.mix) * (g.kept_plane or g.y_plane)),
        secondary=packing(g.M, g.mix, g.mix, g.mix_height),
        back_taps=back_taps,
        back_starts=back_starts,
        back_primary=back_primary,
        back_secondary=_packed(mixing.swapaxes(1, 2), g.mix_height),
        shares=_shared(g.L, g.out, g.taps, g.height, g.lanes),
        mix_shares=_shared(g.M, g.mix, g.mix, g.mix_height, g.lanes),
        counts=counts_of(g.y._replace(images=shape.whole), g.columns, g.spans),
        size=_scratch(g, backward),
    )


def _sizes(s: Shape, backward: bool) -> Sizes:
    inp, out, mix = s.in_channels // s.L, s.out_channels // s.L, s.out_channels // max(s.M, 1)
    rows, columns = output_size((s.height, s.width), (s.kh, s.kw), s.stride)
    y = layout_of(s.whole, rows, s.lanes)
    x = apart(s.images, s.height, s.lanes)
    if y.together < s.lanes:  # a lane of x has the rows that the same lane of y is made of
        x = x._replace(together=y.together, rows=y.rows * s.stride)
    (above, below), (left, right) = _margins(s.kh, s.stride), _margins(s.kw, s.stride)
    spans = _spans(s, y, columns * (inp * s.kh * s.kw + mix * (s.M > 0)))
    y = y._replace(images=s.images)
    bytes_each = s.out_channels * columns * s.lanes * s.itemsize
    # A band of few positions would read all weights, and add up vectors of dW, for little work.
    longest, fit = -(-y.rows // spans), max(1, s.tile_bytes // bytes_each, LEAST // columns)
    band = -(-longest // -(-longest // fit))  # near-equal bands
    rows_of_three = WINOGRAD and (s.kh, s.kw, s.stride) == (3, 3, 1)
    tiles = -(-columns // WIDTH) if rows_of_three and min(inp, out) >= WIDE else 0
    positions = tiles * WIDTH or columns
    y_rows, edge = band + (above + below) * backward, (left + right) * backward
    z_rows = (band + below * backward - 1) * s.stride + s.kh
    # An odd number of vectors: channels then do not compete for the same cache lines.
    plane = (y_rows * (positions + edge) | 1) * s.lanes
    kept_plane = (y.rows * columns | 1) * s.lanes if s.M and inp >= WIDE else 0
    if kept_plane and not backward:
        plane = kept_plane  # ybar is written there
    z_point, d_point = ((n * tiles | 1) * s.lanes for n in (z_rows, y_rows))
    height, mix_height = tile_height(out), tile_height(mix)
    taps = inp * s.kh * (1 if tiles else s.kw)
    return Sizes(
        L=s.L, M=s.M, inp=inp, out=out, mix=mix if s.M else 0, kh=s.kh, kw=s.kw,
        taps=taps, stride=s.stride, py=s.kh // 2, px=s.kw // 2,
        x=x, y=y, lanes=s.lanes, blocks=y.blocks, H=x.rows, W=s.width, rows=y.rows,
        columns=columns, spans=spans, band=band, above=above, below=below, left=left,
        z_rows=z_rows, z_columns=(positions - 1 + -(-s.kw // s.stride)) * s.stride,
        y_columns=positions + edge, y_plane=plane, dz_plane=(y_rows * columns | 1) * s.lanes,
        y_group=plane if s.M else out * plane,  # Pᵀ: channel j of group l lies at j*L + l
        y_channel=s.L * plane if s.M else plane, kept_plane=kept_plane,
        height=height, mix_height=mix_height, back_height=tile_height(inp),
        share=_share(out, taps, height, s.lanes), mix_share=_share(mix, mix, mix_height, s.lanes),
        tiles=tiles, z_point=z_point, z_points=(z_point * POINTS + s.lanes) * (tiles > 0),
        d_point=d_point, d_points=(d_point * POINTS + s.lanes) * (tiles > 0),
    )  # fmt: skip


def _margins(k: int, stride: int) -> tuple[int, int]:
    """Return how many rows, or columns, of dy dx needs before its own, and after."""
    return (k - 1 - k // 2) // stride, (stride - 1 + k // 2) // stride


def _spans(s: Shape, y: Layout, work: int) -> int:
    """Return the pieces of a block; `work`: multiplications of one row of one channel and image."""
    least = ROWS
    if y.together < s.lanes:
        least = min(ROWS, -(-WORK // (s.out_channels * work * s.lanes)))
    return min(-(-UNITS // y.blocks), -(-y.rows // least), SPANS)


def _scratch(g: Sizes, backward: bool) -> int:
    """Return the numbers of a thread's scratch memory, as `convolve` cuts it."""
    z = g.inp * (g.z_rows * g.z_columns * g.lanes + g.z_points)
    dy = g.L * g.out * g.y_plane
    after = dy + 2 * g.mix * g.dz_plane + g.out * g.d_points
    before = 0 if g.kept_plane or not g.M else dy  # ybar
    return z + (after if backward else before) + BEYOND * g.lanes


def _taps(g: Sizes) -> Table:
    """Return where a tap reads in z, or in z at Winograd's points."""
    if g.tiles:
        i, ky = (t.ravel() for t in np.mgrid[: g.inp, : g.kh])
        return np.asarray(i * g.z_points + ky * g.tiles * g.lanes)
    i, ky, kx = (t.ravel() for t in np.mgrid[: g.inp, : g.kh, : g.kw])
    column = kx % g.stride * (g.z_columns // g.stride) + kx // g.stride
    return np.asarray(((i * g.z_rows + ky) * g.z_columns + column) * g.lanes)


def _passes(g: Sizes, weights: Table) -> tuple[Table, Table, Table]:
    """Return taps, starts and packed weights of the convolution that takes dy to dx.

    Input pixels of the same remainders (fy, fx) by the stride see the same taps: one pass each.
    ``iy = oy*stride + ky - py``: tap ky reads row ``iy//stride + (fy + py - ky)/stride``.
    """
    V, s = g.lanes, g.stride
    taps, packed, starts = [], [], [(0, 0)]
    by_tap = weights.reshape(g.L, g.out, g.inp, g.kh, g.kw)
    for fy in range(min(s, g.H)):
        for fx in range(min(s, g.W)):
            ky = np.arange((fy + g.py) % s, g.kh, s)
            kx = np.arange((fx + g.px) % s, g.kw, s)
            o = np.arange(g.out)[:, None, None]
            row = ((fy + g.py - ky) // s)[:, None]
            column = (fx + g.px - kx) // s
            taps.append((o * g.y_channel + (row * g.y_columns + column) * V).ravel())
            seen = by_tap[:, :, :, ky[:, None], kx]  # (L, out, inp, ky, kx)
            seen = seen.swapaxes(1, 2).reshape(g.L, g.inp, -1)
            packed.append(_packed(seen, g.back_height))
            starts.append((starts[-1][0] + taps[-1].size, starts[-1][1] + packed[-1].size))
    return _padded(np.concatenate(taps)), np.array(starts).T.copy(), np.concatenate(packed)


def _back(g: Sizes, weights: Table) -> tuple[Table, Table, Table]:
    """Return the same for Winograd's points: a single pass, over the rows of the kernel."""
    o, ky = (t.ravel() for t in np.mgrid[: g.out, : g.kh])
    taps = o * g.d_points + (g.kh - 1 - ky) * g.tiles * g.lanes
    seen = weights.reshape(g.L, g.out, g.inp, g.kh).swapaxes(1, 2).reshape(g.L, g.inp, -1)
    return _padded(taps), np.zeros((2, 2), np.int64), _packed(seen, g.back_height)


@lru_cache(maxsize=1024)
def packing(groups: int, outs: int, taps: int, height: int, apart: int = 1) -> Table:
    """Return where tiles' weights come from, `apart` from each other: one table for all batches."""
    return _packed(_weights(groups, outs, taps, apart), height)


def _weights(groups: int, outs: int, taps: int, apart: int) -> Table:
    """Return where the weights (groups, outs, taps) lie."""
    return apart * np.arange(groups * outs * taps).reshape(groups, outs, taps)


def _packed(weights: Table, height: int) -> Table:
    """Order weights (groups, outs, taps) as tiles read them: (groups, tiles, taps, height).

    Outputs that fill up the last tile have any weights: they are not stored.
    """
    groups, outs, taps = weights.shape
    tiles = -(-outs // height)
    filled = np.zeros((groups, tiles * height, taps), np.int64)
    filled[:, :outs] = weights
    return filled.reshape(groups, tiles, height, taps).swapaxes(2, 3).ravel()


def _record(height: int, lanes: int) -> int:
    """Return how many numbers a tile of `outer` writes: whole vectors."""
    return -(-height * TAPS[height] // lanes) * lanes


def _share(outs: int, taps: int, height: int, lanes: int) -> int:
    """Return how many numbers a group has in a piece's share of a gradient."""
    return -(-taps // TAPS[height]) * -(-outs // height) * _record(height, lanes)


def _shared(groups: int, outs: int, taps: int, height: int, lanes: int) -> Table:
    """Return where the tiles of `outer` put the gradients of weights (groups, outs, taps)."""
    group, o, t = np.ogrid[:groups, :outs, :taps]
    tile = o // height * -(-taps // TAPS[height]) + t // TAPS[height]
    start = group * _share(outs, taps, height, lanes) + tile * _record(height, lanes)
    return np.ravel(start + t % TAPS[height] * height + o % height)


def _padded(taps: Table) -> Table:
    """Lengthen a table of taps, so that a register tile may read beyond its end."""
    return np.concatenate([taps, np.zeros(max(TAPS.values()), taps.dtype)]).astype(np.int64)
