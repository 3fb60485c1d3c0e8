"""The matrices of the block as pictures: coloured cells, empty zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.style import GRID, PALETTE, pyplot
from igc_ref.spec import IGCSpec

Array = npt.NDArray[Any]


def draw_matrix(axes: Any, matrix: Array, groups: Array, title: str) -> None:
    """Draw a matrix cell by cell: zeros empty, every other cell in the colour of its group.

    Parameters
    ----------
    axes : matplotlib Axes
    matrix : ndarray, shape (rows, columns)
    groups : integer ndarray, shape (rows, columns)
        Which colour each cell has if it is not zero.
    title : str
    """
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in PALETTE])
    picture = np.ones((*matrix.shape, 3))
    filled = matrix != 0
    picture[filled] = palette[groups[filled] % len(palette)]
    rows, columns = matrix.shape
    axes.imshow(picture, extent=(0, columns, rows, 0), interpolation="none")
    axes.hlines(range(1, rows), 0, columns, color=GRID, linewidth=0.5)
    axes.vlines(range(1, columns), 0, rows, color=GRID, linewidth=0.5)
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=13, pad=8)
    axes.set_xlabel(f"{rows} x {columns}, {np.count_nonzero(matrix)} cells", fontsize=8)


def draw_block(matrices: Sequence[Array], spec: IGCSpec) -> Any:
    """Draw x' = P W_d Pᵀ W_p x: the four matrices of a block side by side.

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
    P, _, Pt, W_p = matrices
    rows, columns = np.arange(out), np.arange(out)
    secondary_of_column = np.broadcast_to(columns // (out // M), P.shape)
    primary_of_column = np.broadcast_to(columns // (out // L), Pt.shape)
    primary_of_row = np.broadcast_to((rows // (out // L))[:, None], W_p.shape)
    groups = (secondary_of_column + L, secondary_of_column + L, primary_of_column, primary_of_row)
    titles = ("$P$", "$W_d$", "$P^\\top$", "$W_p$")
    figure, all_axes = plt.subplots(
        1,
        4,
        figsize=(11, 2.0),
        width_ratios=[matrix.shape[1] for matrix in matrices],
        layout="constrained",
    )
    for axes, matrix, group, title in zip(all_axes, matrices, groups, titles, strict=True):
        draw_matrix(axes, matrix, group, title)
    all_axes[0].set_ylabel("$x' =$", rotation=0, fontsize=14, labelpad=18, va="center")
    all_axes[-1].yaxis.set_label_position("right")
    all_axes[-1].set_ylabel("$z$", rotation=0, fontsize=14, labelpad=10, va="center")
    figure.suptitle(f"L = {L} primary partitions, M = {M} secondary ones, S = {spec.taps} taps")
    return figure
