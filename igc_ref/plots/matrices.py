"""The matrices of the block as pictures: coloured cells, empty zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.style import GRID, PALETTE, pyplot
from igc_ref.spec import IGCSpec

Array = npt.NDArray[Any]


WIDTH = 9.5  # of all matrices of a block together, in inches
FINEST = 64  # rows or columns; a grid finer than that is grey all over
MOST_TICKS = 9  # on one side of a matrix


def draw_matrix(
    axes: Any,
    matrix: Array,
    groups: Array,
    title: str,
    rows: str = "",
    columns: str = "",
    taps: int = 1,
) -> None:
    """Draw a matrix cell by cell: zeros empty, every other cell in the colour of its group.

    Parameters
    ----------
    axes : matplotlib Axes
    matrix : ndarray, shape (rows, columns)
    groups : integer ndarray that broadcasts to that shape
        Which colour each cell has if it is not zero: 16 colours, then the first again.
    title : str
    rows, columns : str
        What rows and columns number. Below stand the shape and the number of coloured cells.
    taps : int
        So many columns have one number, as the taps of one channel have, and a line after them.
    """
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in PALETTE])
    palette = np.concatenate([palette, (palette + 1) / 2])  # a second, paler round
    picture = np.ones((*matrix.shape, 3))
    filled = matrix != 0
    picture[filled] = palette[np.broadcast_to(groups, matrix.shape)[filled] % len(palette)]
    height, width = matrix.shape
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="none")
    if max(height, width) <= FINEST:
        axes.hlines(range(1, height), 0, width, color=GRID, linewidth=0.5)
        axes.vlines(range(1, width), 0, height, color=GRID, linewidth=0.5)
    if taps > 1:
        axes.vlines(range(taps, width, taps), 0, height, color="#888888", linewidth=0.5)
    frame(axes, matrix, title, rows, columns, taps)


def frame(axes: Any, matrix: Array, title: str, rows: str, columns: str, taps: int = 1) -> None:
    """Set limits, title, ticks and labels of axes on which a matrix is drawn, one unit a cell."""
    height, width = matrix.shape
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    across, down = numbers(width // taps), numbers(height)
    axes.set_xticks((across + 0.5) * taps, across)
    axes.set_yticks(down + 0.5, down)
    axes.tick_params(length=0, labelsize=6, pad=1)
    axes.set_title(title, fontsize=13, pad=8)
    size = f"{height} x {width}\n{counted(int(np.count_nonzero(matrix)), 'cell')}"
    axes.set_xlabel(f"{columns}\n{size}" if columns else size, fontsize=8)
    axes.set_ylabel(rows, fontsize=8)


def numbers(n: int) -> npt.NDArray[np.int64]:
    """Return which of the numbers below n are written beside a matrix."""
    return np.arange(0, n, -(-n // MOST_TICKS))


def counted(n: int, word: str) -> str:
    """Return "1 cell", "2 cells"."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def draw_block(matrices: Sequence[Array], spec: IGCSpec) -> Any:
    """Draw x' = P W_d Pᵀ W_p z: the four matrices of a block side by side.

    Cells of W_p and Pᵀ have the colour of their primary partition, those of W_d and P the colour
    of their secondary one. Where the first permutation is not Pᵀ, it is called P_1.

    Parameters
    ----------
    matrices : sequence of ndarrays
        P, W_d, Pᵀ, W_p, dense, in the order of the equation.
    spec : IGCSpec

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    L, M, out = spec.L, spec.M, spec.out_channels
    channels = np.arange(out)
    secondary = channels // (out // M) + L  # of a column of P and W_d
    primary = channels // (out // L)  # of a column of Pᵀ, of a row of W_p
    groups = (secondary, secondary, primary, primary[:, None])
    first = "$P^\\top$" if np.array_equal(matrices[2], matrices[0].T) else "$P_1$"
    titles = ("$x' = P$", "$W_d$", first, "$W_p\\,z$")
    rows = ("channel of $x'$", "place", "place", "channel of $y$")
    columns = ("place", "place", "channel of $y$", "channel of $x$" + ", tap" * (spec.taps > 1))
    widths = [matrix.shape[1] for matrix in matrices]
    cell = WIDTH / sum(widths)
    height = max(2.2, min(out * cell, 4.0) + 1.4)
    figure, all_axes = plt.subplots(
        1, 4, figsize=(WIDTH + 2, height), width_ratios=widths, layout="constrained"
    )
    taps = (1, 1, 1, spec.taps)
    for i, axes in enumerate(all_axes):
        draw_matrix(axes, matrices[i], groups[i], titles[i], rows[i], columns[i], taps[i])
    partitions = counted(M, "secondary partition")
    figure.suptitle(f"L = {L} primary, M = {partitions}, S = {counted(spec.taps, 'tap')}")
    return figure
