"""Matrices and learning curves as pictures. Needs matplotlib: ``pip install 'igc-ref[plots]'``.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import IGCError
from igc_ref.files import replacing
from igc_ref.history import Record
from igc_ref.spec import IGCSpec

Array = npt.NDArray[Any]
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
GRID = "#DDDDDD"
ENDINGS = ("png", "svg")


def pyplot() -> Any:
    """Return matplotlib.pyplot, or raise an error that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise IGCError("pictures need matplotlib: pip install 'igc-ref[plots]'") from None
    return plt


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


def draw_curves(records: Sequence[Record], title: str) -> Any:
    """Draw loss and accuracy against epochs.

    Parameters
    ----------
    records : sequence of dict
        As in ``log.jsonl``: one for each epoch.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    epochs = [record["epoch"] for record in records]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for split, colour, marker in (("train", PALETTE[0], "o"), ("test", PALETTE[5], "s")):
        style = {"color": colour, "marker": marker, "markersize": 4, "label": split}
        left.plot(epochs, [record[f"{split}_loss"] for record in records], **style)
        percent = [100 * record[f"{split}_accuracy"] for record in records]
        right.plot(epochs, percent, **style)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (left, right):
        axes.grid(color=GRID)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    figure.suptitle(title)
    return figure


def save(figure: Any, path: str | Path) -> None:
    """Write a figure as SVG or PNG, by its ending, without a date: same figure, same bytes."""
    plt, path = pyplot(), Path(path)
    ending = path.suffix[1:]
    if ending not in ENDINGS:
        raise IGCError(f"{path} must end in .{' or .'.join(ENDINGS)}")
    metadata = {"Date": None} if ending == "svg" else None
    with plt.rc_context({"svg.hashsalt": "igc_ref"}), replacing(path) as file:
        figure.savefig(file, format=ending, metadata=metadata, dpi=150)
    plt.close(figure)
