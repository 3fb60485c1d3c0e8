"""Matrices cell by cell: coloured blocks, numbers as squares, complex numbers as clock hands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from igc_ref.errors import divides
from igc_ref.plots.style import GRID, PALETTE, Array, Axes, Figure, library, new_figure, subplots
from igc_ref.spec.block import IGCSpec

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: which grey a colour is
FINEST = 64  # rows or columns; a finer grid would be grey all over
MOST_TICKS = 9  # on one side of a matrix
LARGEST = 0.9  # side of the square of the greatest number, in cells
LONGEST = 0.8  # clock hand, in cells


def draw_matrix(
    axes: Axes,
    matrix: Array,
    groups: Array,
    title: str,
    rows: str = "",
    columns: str = "",
    taps: int = 1,
    numbers: Array | None = None,
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
        Columns that share one number, as the taps of one channel do; a line follows each channel.
    numbers : ndarray of the shape of `matrix`, optional
        Written into the coloured cells.
    """
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in PALETTE])
    palette = np.concatenate([palette, (palette + 1) / 2])  # a second, paler round
    colours = np.ones((*matrix.shape, 3))
    filled = matrix != 0
    colours[filled] = palette[np.broadcast_to(groups, matrix.shape)[filled] % len(palette)]
    height, width = matrix.shape
    axes.imshow(colours, extent=(0, width, height, 0), interpolation="none")
    if numbers is not None:
        for row, column in np.argwhere(filled):
            ink = "black" if colours[row, column] @ LUMINANCE > 0.4 else "white"
            style = {"ha": "center", "va": "center", "color": ink}
            axes.text(column + 0.5, row + 0.5, f"{numbers[row, column]:g}", **style)
    frame(axes, matrix, title, rows, columns, taps, zorder=2)


def draw_block(matrices: Sequence[Array], spec: IGCSpec) -> Figure:
    """Draw x' = P W_d Pᵀ W_p z: the four matrices of a block, with its signs between them.

    Cells of W_p and Pᵀ have the colour of their primary partition, those of W_d and P the colour
    of their secondary one. Where the first permutation is not Pᵀ, it is called P_1. A wide W_p
    stands on a line of its own, or the others would be too small.

    Parameters
    ----------
    matrices : sequence of ndarrays
        P, W_d, Pᵀ, W_p, dense, in the order of the equation.
    spec : IGCSpec
    """
    L, M, out = spec.L, spec.M, spec.out_channels
    channels = np.arange(out)
    secondary = channels // (out // M) + L  # of a column of P and W_d
    primary = channels // (out // L)  # of a column of Pᵀ, of a row of W_p
    groups = (secondary, secondary, primary, primary[:, None])
    first = "$P^\\top$" if np.array_equal(matrices[2], matrices[0].T) else "$P_1$"
    names = ("$P$", "$W_d$", first, "$W_p$")
    numbered = [f"channel of ${name}$" for name in ("x'", "\\bar z", "\\bar y", "y", "x")]
    numbered[-1] += ", tap" * (spec.taps > 1)
    wide = matrices[3].shape[1] > 2 * out
    rows, last = (["abc", "ddd"], 7 * out / matrices[3].shape[1]) if wide else (["abcd"], 0.0)
    height = 2.5 + min(last, 2.5) + wide
    figure = new_figure((7.5, height + 0.4))
    ratios = {"height_ratios": (2.5, height - 2.5)} if wide else {}
    all_axes = figure.subplot_mosaic("\n".join(rows), **ratios)
    for i, axes in enumerate(all_axes.values()):
        taps = spec.taps if i == 3 else 1
        down, across = numbered[i : i + 2]
        draw_matrix(axes, matrices[i], groups[i], names[i], down, across, taps)
        _sign(axes, "$x'=$" if i == 0 else "$\\cdot$", -42)
    _sign(axes, "$\\cdot\\;z$", 8)
    partitions = counted(M, "secondary partition")
    figure.suptitle(f"L = {L} primary, M = {partitions}, S = {counted(spec.taps, 'tap')}")
    return figure


def _sign(axes: Axes, text: str, points: float) -> None:
    """Write a sign of the equation beside a matrix: to the left, or to the right of it."""
    edge, align = ((0, 0.5), "right") if points < 0 else ((1, 0.5), "left")
    style = {"textcoords": "offset points", "ha": align, "va": "center", "fontsize": 16}
    axes.annotate(text, edge, (points, 0), xycoords="axes fraction", **style)


def draw_product(factors: Sequence[Array], product: Array, titles: Sequence[str]) -> Figure:
    """Draw factors side by side, an equals sign, and their product.

    Parameters
    ----------
    factors : sequence of ndarrays
        In the order of the equation: the one that acts first stands last.
    product : ndarray
    titles : sequence of str
        One for every factor, and one for the product.
    """
    everything = [*factors, product]
    heights, widths = zip(*(matrix.shape for matrix in everything), strict=True)
    height = 1.2 + 8.5 * max(heights) / sum(widths)  # cells of all matrices are of one size
    figure, all_axes = subplots(1, len(everything), figsize=(9.5, height), width_ratios=widths)
    signs = ["", *["·"] * (len(factors) - 1), "="]
    for axes, matrix, title, sign in zip(all_axes, everything, titles, signs, strict=True):
        _draw_shades(axes, matrix, blocks_of(matrix), title, "channel out", "channel in")
        if sign:
            axes.set_ylabel(sign, rotation=0, fontsize=18, labelpad=10, va="center")
    return figure


def draw_slices(axes: Axes, kernel: Array, L: int, M: int, title: str) -> None:
    """Draw a dense kernel as a matrix: cells of one shade and label "m, b" are one slice.

    The slice of secondary partition m and primary partition b is `igc_ref.reference.slices`'s
    [m, b]. The shades differ in lightness, so that grey tells them apart; neighbours have a label.

    Parameters
    ----------
    axes : matplotlib Axes
    kernel : ndarray, shape (out, in, k, k)
    L, M : int
        Partitions of the block; L divides in, M divides out.
    title : str

    Raises
    ------
    SpecError
        If L does not divide in, or M does not divide out.
    """
    (out, channels), taps = kernel.shape[:2], kernel[0, 0].size
    divides("M", M, "out_channels", out)
    wide = divides("L", L, "in_channels", channels) * taps
    matrix = kernel.reshape(out, -1)
    m, b = np.arange(out)[:, None] % M, np.arange(matrix.shape[1]) // wide
    columns = "channel of $x$" + ", tap" * (taps > 1)
    _draw_shades(axes, matrix, m * L + b, title, "channel of $x'$", columns, taps)
    for row, part in np.ndindex(out, L):
        text = axes.text((part + 0.5) * wide, row + 0.5, f"{row % M}, {part}", size=8)
        text.set(ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 0.8})


def _draw_shades(
    axes: Axes, matrix: Array, groups: Array, title: str, rows: str, columns: str, taps: int = 1
) -> None:
    """Draw as `draw_matrix` does, each group in a shade of its own, from dark to light."""
    groups = np.broadcast_to(groups, matrix.shape)
    shades = library().colormaps["viridis"](np.linspace(0.1, 0.95, int(groups.max()) + 1))
    colours = np.where((matrix != 0)[..., None], shades[groups, :3], 1.0)
    height, width = matrix.shape
    axes.imshow(colours, extent=(0, width, height, 0), interpolation="none")
    frame(axes, matrix, title, rows, columns, taps, zorder=2)


def blocks_of(matrix: Array) -> npt.NDArray[np.int64]:
    """Number the blocks of a matrix, cell by cell: rows that share columns are one block.

    Permutations of rows and columns do not hide a block.
    """
    filled = (matrix != 0).astype(np.int64)
    together = filled @ filled.T + np.eye(len(matrix)) > 0  # rows that share a column
    for _ in range(len(matrix).bit_length()):  # and those that share with such a row, and so on
        together = together @ together
    first = together.argmax(axis=1)
    number = np.unique(first, return_inverse=True)[1]
    return np.broadcast_to(number[:, None], matrix.shape).astype(np.int64)


def draw_values(
    axes: Axes,
    matrix: Array,
    title: str,
    rows: str = "",
    columns: str = "",
    greatest: float | None = None,
) -> None:
    """Draw a real matrix as squares: the area is the size, filled is positive, hollow negative.

    Parameters
    ----------
    matrix : real ndarray, shape (rows, columns)
    axes, title, rows, columns
        As in `draw_matrix`.
    greatest : float, optional
        The size that fills a cell, to compare figures; by default the greatest of this matrix.
    """
    from matplotlib.collections import PatchCollection

    if greatest is None:
        greatest = float(np.abs(matrix).max(initial=0)) or 1.0
    for sign, colour in ((1, PALETTE[0]), (-1, PALETTE[5])):
        squares = []
        for row, column in np.argwhere(sign * matrix > 0):
            side = LARGEST * min(float(np.sqrt(abs(matrix[row, column]) / greatest)), 1.0)
            corner = (column + (1 - side) / 2, row + (1 - side) / 2)
            squares.append(library().patches.Rectangle(corner, side, side))
        face = colour if sign > 0 else "white"
        axes.add_collection(PatchCollection(squares, facecolor=face, edgecolor=colour))
    frame(axes, matrix, title, rows, columns)


def draw_phases(axes: Axes, matrix: Array, title: str, rows: str = "", columns: str = "") -> None:
    """Draw a complex matrix as clock hands: length is the modulus, angle the phase (1 is right).

    Parameters
    ----------
    matrix : complex ndarray, shape (rows, columns)
    axes, title, rows, columns
        As in `draw_matrix`.
    """
    row, column = np.nonzero(matrix)
    hands = matrix[row, column] * (LONGEST / float(np.abs(matrix).max(initial=0) or 1.0))
    axes.quiver(
        column + 0.5, row + 0.5, hands.real, -hands.imag, color=PALETTE[0], angles="xy",
        scale_units="xy", scale=1, width=0.07, units="xy", headwidth=4, headlength=4,
        headaxislength=3.5, pivot="mid",
    )  # fmt: skip
    frame(axes, matrix, title, rows, columns)


def draw_weights(matrices: Sequence[Array], titles: Sequence[str], x: str, y: str) -> Figure:
    """Draw small matrices side by side as `draw_values` does, all at one scale.

    Parameters
    ----------
    matrices : sequence of ndarrays, shape (rows, columns)
    titles : sequence of str
    x, y : str
        What columns and rows are, with the unit.
    """
    n, greatest = len(matrices), max(abs(matrix).max() for matrix in matrices)
    figure, all_axes = subplots(1, n, figsize=(2.0 * n, 2.9), squeeze=False)
    for axes, matrix, title in zip(all_axes[0], matrices, titles, strict=True):
        draw_values(axes, matrix, title, greatest=greatest)
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure


def frame(
    axes: Axes, matrix: Array, title: str, rows: str, columns: str, taps: int = 1, zorder: int = 0
) -> None:
    """Set limits, grid, title and labels of axes on which a matrix is drawn, one unit a cell."""
    height, width = matrix.shape
    if max(height, width) <= FINEST:
        axes.hlines(range(1, height), 0, width, color=GRID, linewidth=0.5, zorder=zorder)
        axes.vlines(range(1, width), 0, height, color=GRID, linewidth=0.5, zorder=zorder)
    if taps > 1:
        axes.vlines(range(taps, width, taps), 0, height, color="#888888", linewidth=0.5)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    most = (MOST_TICKS, MOST_TICKS // (1 + (width > 8 * height)))  # a flat matrix has less room
    across, down = (
        np.arange(0, n, -(-n // m)) for n, m in zip((width // taps, height), most, strict=True)
    )
    axes.set_xticks((across + 0.5) * taps, across)
    axes.set_yticks(down + 0.5, down)
    axes.tick_params(length=0, labelsize=8, pad=1)
    axes.set_title(title, fontsize=13, pad=8)
    size, filled = f"{height} x {width} cells", int(np.count_nonzero(matrix))
    size += f"\n{filled} not zero" * (filled < matrix.size)
    axes.set_xlabel(f"{columns}\n{size}" if columns else size, fontsize=9)
    axes.set_ylabel(rows, fontsize=9)


def counted(n: int, word: str) -> str:
    """Return "1 cell", "2 cells"."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
