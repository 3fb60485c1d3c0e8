"""Which number of a batch lies where: in which block, row and lane.

A block is an array (C, R, W, V). Its V numbers side by side, the lanes of a vector, belong to
`together` images and, of each of them, to rows R apart: row h of image n lies in

    block n // together,   row h % R,   lane n % together + h // R * together

With together = V and R = H every lane has an image of its own: a shift of the kernel is then a
shift by whole vectors, and nothing is unaligned. With together = 1 a block is one image, and lane v
holds its rows v*R to v*R + R - 1; the row below the last one of a lane is then the first row of
the next lane. So one image does not cost as much as V.

Lanes beyond the last image, and rows beyond the last row, are filling: no sum counts it, and it is
never read as a neighbour. What it holds does not matter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.vectors import INNER

ALL = -1  # lanes, as bits
HALO = 0.5  # what a block costs beside its rows, in rows, since a lane reads its neighbours' rows


class Layout(NamedTuple):
    """Where the images of a batch lie."""

    images: int
    height: int  # H
    lanes: int  # V
    together: int  # images of a block
    rows: int  # R

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.images // self.together)


@lru_cache(maxsize=1024)
def layout_of(images: int, height: int, lanes: int) -> Layout:
    """Return the layout of a batch: of the shape alone, so that equal shapes can be added.

    It is the one with the fewest rows of vectors. Whole multiples of V images lie one in a lane.
    """

    def rows(together: int) -> int:
        return -(-height * together // lanes)

    def cost(together: int) -> float:
        return -(-images // together) * (rows(together) + (HALO if together < lanes else 0))

    together = min((lanes >> i for i in range(lanes.bit_length())), key=cost)
    return Layout(images, height, lanes, together, rows(together))


def apart(images: int, height: int, lanes: int) -> Layout:
    """Return the layout of images that lie one in a lane."""
    return Layout(images, height, lanes, lanes, height)


def counts_of(a: Layout, columns: int, spans: int) -> npt.NDArray[np.float64]:
    """Return how many numbers of a channel each piece has, of blocks cut into spans of rows."""
    edges = np.arange(spans) * a.rows // spans
    images = np.minimum(a.together, a.images - a.together * np.arange(a.blocks))
    rows = np.add.reduceat(-(-(a.height - np.arange(a.rows)) // a.rows), edges)
    return (images[:, None] * rows * float(columns)).ravel()


@INNER
def source(row, a):
    """Return where lanes find a row, counted from their first one, that may be their neighbours'.

    That is the row of the block, the distance in numbers to the lanes that have it, and, as bits,
    which lanes get a row of the image.
    """
    if 0 <= row < a.rows and a.together == a.lanes:  # the same as below, without divisions
        return row, 0, ALL
    other = row // a.rows
    own, shift = row - other * a.rows, other * a.together
    if abs(shift) >= a.lanes:
        return own, 0, 0
    there = _filled(own, a)
    return own, shift, (there >> max(shift, 0) << max(-shift, 0)) & ((1 << a.lanes) - 1)


@INNER
def inside(row, b, a):
    """Return, as bits, which lanes of a row of block b hold a row of an image."""
    images = (1 << min(a.together, a.images - b * a.together)) - 1
    every = ((1 << a.lanes) - 1) // ((1 << a.together) - 1)  # a bit for every row
    return _filled(row, a) & images * every


@INNER
def parts(first, last, b, a):
    """Cut rows of block b where fewer lanes hold rows of images: (first, last, lanes), twice."""
    cut = (a.height - 1) % a.rows + 1
    return (
        (first, min(last, cut), inside(0, b, a)),
        (max(first, cut), last, inside(a.rows - 1, b, a)),
    )


@INNER
def _filled(row, a):
    """Return, as bits, the lanes whose row is one of the image's H rows."""
    return (1 << -(-(a.height - row) // a.rows) * a.together) - 1
