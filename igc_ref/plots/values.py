"""Matrices whose numbers matter: signs and sizes, or the phases of complex ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.matrices import FINEST, frame
from igc_ref.plots.style import GRID, PALETTE

Array = npt.NDArray[Any]

POSITIVE, NEGATIVE = PALETTE[0], PALETTE[5]
LARGEST = 0.9  # side of the square of the greatest number, in cells
LONGEST = 0.8  # clock hand, in cells


def draw_values(
    axes: Any,
    matrix: Array,
    title: str,
    rows: str = "",
    columns: str = "",
    greatest: float | None = None,
) -> None:
    """Draw a real matrix as squares: the area is the size, filled is positive, hollow negative.

    Parameters
    ----------
    axes : matplotlib Axes
    matrix : real ndarray, shape (rows, columns)
    title, rows, columns : str
        As in `draw_matrix`.
    greatest : float, optional
        The size that fills a cell, to compare pictures; by default the greatest of this matrix.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    if greatest is None:
        greatest = float(np.abs(matrix).max(initial=0)) or 1.0
    for sign, colour in ((1, POSITIVE), (-1, NEGATIVE)):
        squares = []
        for row, column in np.argwhere(sign * matrix > 0):
            side = LARGEST * min(float(np.sqrt(abs(matrix[row, column]) / greatest)), 1.0)
            corner = (column + (1 - side) / 2, row + (1 - side) / 2)
            squares.append(Rectangle(corner, side, side))
        face = colour if sign > 0 else "white"
        axes.add_collection(PatchCollection(squares, facecolor=face, edgecolor=colour))
    _grid(axes, matrix)
    frame(axes, matrix, title, rows, columns)


def draw_phases(axes: Any, matrix: Array, title: str, rows: str = "", columns: str = "") -> None:
    """Draw a complex matrix as clock hands: length is the modulus, angle the phase (1 is right).

    Parameters
    ----------
    axes : matplotlib Axes
    matrix : complex ndarray, shape (rows, columns)
    title, rows, columns : str
        As in `draw_matrix`.
    """
    row, column = np.nonzero(matrix)
    hands = matrix[row, column] * (LONGEST / float(np.abs(matrix).max(initial=0) or 1.0))
    axes.quiver(
        column + 0.5, row + 0.5, hands.real, -hands.imag, color=PALETTE[0], angles="xy",
        scale_units="xy", scale=1, width=0.07, units="xy", headwidth=4, headlength=4,
        headaxislength=3.5, pivot="mid",
    )  # fmt: skip
    _grid(axes, matrix)
    frame(axes, matrix, title, rows, columns)


def _grid(axes: Any, matrix: Array) -> None:
    height, width = matrix.shape
    if max(height, width) <= FINEST:
        axes.hlines(range(1, height), 0, width, color=GRID, linewidth=0.5, zorder=0)
        axes.vlines(range(1, width), 0, height, color=GRID, linewidth=0.5, zorder=0)
