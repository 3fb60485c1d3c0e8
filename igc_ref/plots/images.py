"""What a network sees and says: pictures, answers, confusions, filters, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.curves import MARKERS
from igc_ref.plots.style import GRID, PALETTE, pyplot

Array = npt.NDArray[Any]


def draw_pictures(images: Array, titles: Sequence[str], columns: int = 10) -> Any:
    """Draw small pictures in rows.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 3, height, width)
    titles : sequence of n str
    columns : int

    Returns
    -------
    matplotlib Figure
    """
    rows = -(-len(images) // columns)
    figure, all_axes = pyplot().subplots(
        rows, columns, figsize=(0.95 * columns, 1.2 * rows), squeeze=False, layout="constrained"
    )
    for axes in all_axes.flat:
        axes.set_axis_off()
    for axes, image, title in zip(all_axes.flat, images, titles, strict=False):
        axes.imshow(np.moveaxis(image, 0, -1))
        axes.set_title(title, fontsize=8)
    return figure


def draw_answer(image: Array, probabilities: Array, classes: Sequence[str], truth: int) -> Any:
    """Draw a picture beside the probabilities that a network gives its classes.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, height, width)
    probabilities : ndarray, shape (classes,)
    classes : sequence of str
    truth : int
        The right class: its bar is hatched.

    Returns
    -------
    matplotlib Figure
    """
    figure, (left, right) = pyplot().subplots(
        1, 2, figsize=(7, 2.8), width_ratios=(1, 2), layout="constrained"
    )
    left.imshow(np.moveaxis(image, 0, -1))
    left.set(title=f"truth: {classes[truth]}", xlabel="column (pixel)", ylabel="row (pixel)")
    bars = right.barh(range(len(classes)), 100 * probabilities, color=PALETTE[4])
    bars[truth].set(hatch="///", facecolor=PALETTE[1])
    right.set(yticks=range(len(classes)), yticklabels=classes, xlim=(0, 100))
    right.set(xlabel="probability (%)", title=f"answer: {classes[int(probabilities.argmax())]}")
    right.invert_yaxis()
    return figure


def draw_confusion(counts: Array, classes: Sequence[str]) -> Any:
    """Draw how often pictures of each class (rows) were taken for each class (columns).

    Parameters
    ----------
    counts : integer ndarray, shape (classes, classes)
    classes : sequence of str

    Returns
    -------
    matplotlib Figure
    """
    figure, axes = pyplot().subplots(figsize=(6, 5), layout="constrained")
    drawn = axes.imshow(counts, cmap="Greys", vmin=0)
    places = range(len(classes))
    axes.set(xticks=places, yticks=places, yticklabels=classes)
    axes.set_xticklabels(classes, rotation=45, ha="right")
    axes.set(xlabel="answer of the network (class)", ylabel="truth (class)")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = count > counts.max() / 2
            axes.text(column, row, count, ha="center", va="center", color="w" if dark else "k")
    figure.colorbar(drawn, label="pictures (number)")
    return figure


def draw_filters(filters: Array, responses: Array) -> Any:
    """Draw the filters of a first layer, and below each what it makes of a picture.

    Parameters
    ----------
    filters : ndarray, shape (n, 3, k, k)
        Red, green and blue; grey stands for 0, each filter at its own scale.
    responses : ndarray, shape (n, height, width)
        Black is each response's least number, white its greatest.

    Returns
    -------
    matplotlib Figure
    """
    n = len(filters)
    figure, all_axes = pyplot().subplots(
        2, n, figsize=(0.62 * n, 1.6), squeeze=False, layout="constrained"
    )
    for number in range(n):
        weight, (top, below) = filters[number], all_axes[:, number]
        top.imshow(np.moveaxis(0.5 + 0.5 * weight / abs(weight).max(), 0, -1))
        top.set_title(number, fontsize=8)
        below.imshow(responses[number], cmap="gray")
        for axes in (top, below):
            axes.set(xticks=[], yticks=[])
    all_axes[0, 0].set_ylabel("filter", fontsize=8)
    all_axes[1, 0].set_ylabel("response", fontsize=8)
    figure.supxlabel("output channel of the first layer (number)", fontsize=9)
    return figure


def draw_weights(matrices: Sequence[Array], titles: Sequence[str], x: str, y: str) -> Any:
    """Draw small matrices as squares: area for size, white for plus, black for minus (Hinton).

    Parameters
    ----------
    matrices : sequence of ndarrays, shape (rows, columns)
        All at one scale.
    titles : sequence of str
    x, y : str
        What columns and rows are, with the unit.

    Returns
    -------
    matplotlib Figure
    """
    from matplotlib.patches import Rectangle

    n, greatest = len(matrices), max(abs(matrix).max() for matrix in matrices)
    figure, all_axes = pyplot().subplots(
        1, n, figsize=(2.0 * n, 2.5), squeeze=False, layout="constrained"
    )
    for axes, matrix, title in zip(all_axes[0], matrices, titles, strict=True):
        rows, columns = matrix.shape
        for (row, column), weight in np.ndenumerate(matrix):
            side = np.sqrt(abs(weight) / greatest)
            corner = (column - side / 2, row - side / 2)
            colour = "white" if weight > 0 else "black"
            axes.add_patch(Rectangle(corner, side, side, facecolor=colour, edgecolor="none"))
        axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6), aspect="equal")
        axes.set(xticks=range(columns), yticks=range(rows), facecolor="#999999", title=title)
    figure.supxlabel(x)
    figure.supylabel(y)
    return figure


def draw_singular_values(axes: Any, spectra: Mapping[str, Array], title: str) -> None:
    """Draw the median and the range of the singular values of all slices, relative to the greatest.

    A kernel is an IGC exactly when its range falls to zero at the second value.

    Parameters
    ----------
    axes : matplotlib Axes
    spectra : mapping of str to ndarray, shape (M, L, rank)
        What `igc_ref.reference.singular_values` returns, by the name of the kernel.
    title : str
    """
    for i, (name, sigma) in enumerate(spectra.items()):
        lines = sigma.reshape(-1, sigma.shape[-1])
        lines = lines / np.maximum(lines[:, :1], np.finfo(float).tiny)
        number = np.arange(1, lines.shape[1] + 1)
        colour = PALETTE[i % len(PALETTE)]
        axes.fill_between(number, lines.min(0), lines.max(0), color=colour, alpha=0.2, linewidth=0)
        marker = MARKERS[i % len(MARKERS)]
        axes.plot(number, np.median(lines, axis=0), marker=marker, color=colour, label=name)
    axes.set(xlabel="number of the singular value", ylim=(-0.03, 1.03), title=title)
    axes.set_ylabel("singular value / greatest of its slice")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=GRID)
    axes.legend(title="median, range of slices", loc="upper left", bbox_to_anchor=(1.01, 1))
