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


def draw_matrix(
    axes: Any, matrix: Array, groups: Array, title: str, rows: str = "", columns: str = ""
) -> None:
    """Draw a matrix cell by cell: zeros empty, every other cell in the colour of its group.

    Parameters
    ----------
    axes : matplotlib Axes
    matrix : ndarray, shape (rows, columns)
    groups : integer ndarray that broadcasts to that shape
        Which colour each cell has if it is not zero.
    title : str
    rows, columns : str
        What rows and columns number. Below stand the shape and the number of coloured cells.
    """
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in PALETTE])
    picture = np.ones((*matrix.shape, 3))
    filled = matrix != 0
    picture[filled] = palette[np.broadcast_to(groups, matrix.shape)[filled] % len(palette)]
    height, width = matrix.shape
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="none")
    if max(height, width) <= FINEST:
        axes.hlines(range(1, height), 0, width, color=GRID, linewidth=0.5)
        axes.vlines(range(1, width), 0, height, color=GRID, linewidth=0.5)
    frame(axes, matrix, title, rows, columns)


def frame(axes: Any, matrix: Array, title: str, rows: str, columns: str) -> None:
    """Set limits, title and labels of axes on which a matrix is drawn, one unit a cell."""
    height, width = matrix.shape
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=13, pad=8)
    size = f"{height} x {width}, {np.count_nonzero(matrix)} cells"
    axes.set_xlabel(f"{columns}\n{size}" if columns else size, fontsize=8)
    axes.set_ylabel(rows, fontsize=8)


def draw_block(matrices: Sequence[Array], spec: IGCSpec) -> Any:
    """Draw x' = P W_d Pᵀ W_p z: the four matrices of a block side by side.

    Cells of W_p and Pᵀ have the colour of their primary partition, those of W_d and P the colour
    of their secondary one.

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
    titles = ("$P$", "$W_d$", "$P^\\top$", "$W_p$")
    columns = ("place", "place", "channel of $y$", "channel of $x$, tap")
    widths = [matrix.shape[1] for matrix in matrices]
    cell = WIDTH / sum(widths)
    height = max(2.2, min(out * cell, 4.0) + 1.2)
    figure, all_axes = plt.subplots(
        1, 4, figsize=(WIDTH + 1.5, height), width_ratios=widths, layout="constrained"
    )
    for axes, matrix, group, title, column in zip(
        all_axes, matrices, groups, titles, columns, strict=True
    ):
        draw_matrix(axes, matrix, group, title, columns=column)
    all_axes[0].set_ylabel("$x' =$", rotation=0, fontsize=14, labelpad=18, va="center")
    all_axes[-1].yaxis.set_label_position("right")
    all_axes[-1].set_ylabel("$z$", rotation=0, fontsize=14, labelpad=10, va="center")
    figure.suptitle(f"L = {L} primary, M = {M} secondary partitions, S = {spec.taps} taps")
    return figure
