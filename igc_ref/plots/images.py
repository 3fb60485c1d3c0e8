"""Images, and what a network makes of them: patches, bands, answers, confusions, filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from igc_ref.plots.style import GRID, PALETTE, Array, Axes, Figure, library, new_figure, subplots

MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}  # of a cell


def draw_pictures(images: Array, titles: Sequence[str], columns: int = 10) -> Figure:
    """Draw small images in rows.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 3, height, width)
    titles : sequence of n str
    columns : int
    """
    rows = -(-len(images) // columns)
    figure, all_axes = subplots(rows, columns, figsize=(0.95 * columns, 1.2 * rows), squeeze=False)
    for axes in all_axes.flat:
        axes.set_axis_off()
    for axes, image, title in zip(all_axes.flat, images, titles, strict=False):
        axes.imshow(np.moveaxis(image, 0, -1))
        axes.set_title(title, fontsize=8)
    return figure


def draw_patch(x: Array, z: Array, row: int, column: int) -> Figure:
    """Draw an image channel by channel, a window in it, and the patch vector of that window.

    Parameters
    ----------
    x : ndarray, shape (C, H, W)
    z : ndarray, shape (C*S,)
        The patch around (row, column), ordered (channel, ky, kx); S is a square.
    row, column : int
        The middle of the window, in pixels.
    """
    C, H, W = x.shape
    k = round((z.size // C) ** 0.5)
    figure = new_figure((9, 3.6))
    tiles = [[f"x{c}" for c in range(C)], ["z"] * C]
    all_axes = figure.subplot_mosaic(tiles, height_ratios=[3, 1])
    shades = {"cmap": "gray_r", "vmin": 0, "vmax": max(float(x.max()), 1.0) * 2}
    vector, corner = all_axes["z"], (column - k // 2, row - k // 2)
    _numbers(vector, z[None], shades, aspect="auto")
    for c in range(C):
        axes = all_axes[f"x{c}"]
        _numbers(axes, x[c], shades)
        edge = {"fill": False, "ec": PALETTE[c % len(PALETTE)], "lw": 3, "clip_on": False}
        axes.add_patch(library().patches.Rectangle(corner, k, k, **edge))
        vector.add_patch(library().patches.Rectangle((c * k * k, 0), k * k, 1, **edge))
        for down, right in np.ndindex(k, k):
            x_, y_ = corner[0] + right, corner[1] + down
            if not (0 <= x_ < W and 0 <= y_ < H):
                axes.text(x_ + 0.5, y_ + 0.5, "0", color="gray", **MIDDLE)
        axes.set(title=f"channel {c} of $x$", xlabel="column (pixels)", xlim=(-1, W + 1))
        axes.set(ylabel="row (pixels)" if c == 0 else "", ylim=(H + 1, -1))
        axes.set(xticks=range(0, W + 1, 2), yticks=range(0, H + 1, 2))
    vector.set(yticks=[], xlabel="entry of $z$: channel, then row, then column of the window")
    vector.set(title="$z$", xticks=np.arange(0, z.size + 1, k * k))
    return figure


def _numbers(axes: Axes, values: Array, shades: dict[str, Any], **options: Any) -> None:
    """Draw one channel, with its numbers written in its cells if there are few."""
    height, width = values.shape
    axes.imshow(values, extent=(0, width, height, 0), **shades, **options)
    if values.size <= 64:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column + 0.5, row + 0.5, f"{value:g}", **MIDDLE)


def draw_band(height: int, band: int, step: int) -> Figure:
    """Draw which rows one step of a banded block with a 3x3 kernel reads, keeps and writes.

    Parameters
    ----------
    height : int
        Rows of the image.
    band : int
        Output rows that one step computes.
    step : int
        Which band, from 0; the last one may be shorter.
    """
    top = min(step * band, height - 1)
    bottom = min(top + band, height)
    first, last = max(0, top - 1), min(height, bottom + 1)
    figure, axes = subplots(figsize=(7, 3.2))
    _rows(axes, 0, 0, height, "white")
    _rows(axes, 1, top, bottom, "white", "...")
    _rows(axes, 2, 0, height, "white")
    _rows(axes, 0, first, last, PALETTE[4], "///")  # its neighbours, read once more
    _rows(axes, 0, top, bottom, PALETTE[4])
    _rows(axes, 1, top, bottom, PALETTE[1], "...")
    _rows(axes, 2, 0, top, GRID)
    _rows(axes, 2, top, bottom, PALETTE[0])
    names = ("x: read", "$\\bar y$: in the cache,\nthen forgotten", "x': written")
    axes.set(xticks=(0, 1, 2), xticklabels=names, xlim=(-0.5, 2.5), ylim=(height + 0.5, -0.5))
    axes.set(ylabel="row of the image (number)", title=f"rows {top} to {bottom - 1} of x'")
    return figure


def _rows(axes: Axes, place: int, first: int, last: int, colour: str, hatch: str = "") -> None:
    style = {"facecolor": colour, "edgecolor": "black", "hatch": hatch, "linewidth": 0.6}
    axes.bar(place, last - first, bottom=first, width=0.6, **style)


def draw_answer(image: Array, probabilities: Array, classes: Sequence[str], truth: int) -> Figure:
    """Draw an image beside the probabilities that a network gives its classes.

    Parameters
    ----------
    image : ndarray of uint8, shape (3, height, width)
    probabilities : ndarray, shape (classes,)
    classes : sequence of str
    truth : int
        The true class: its bar is hatched.
    """
    figure, (left, right) = subplots(1, 2, figsize=(7, 2.8), width_ratios=(1, 2))
    left.imshow(np.moveaxis(image, 0, -1))
    left.set(title=f"truth: {classes[truth]}", xlabel="column (pixel)", ylabel="row (pixel)")
    bars = right.barh(range(len(classes)), 100 * probabilities, color=PALETTE[4])
    bars[truth].set(hatch="///", facecolor=PALETTE[1])
    right.set(yticks=range(len(classes)), yticklabels=classes, xlim=(0, 100))
    right.set(xlabel="probability (%)", title=f"answer: {classes[int(probabilities.argmax())]}")
    right.invert_yaxis()
    return figure


def draw_confusion(counts: Array, classes: Sequence[str]) -> Figure:
    """Draw how often images of each class (rows) got each class as answer (columns).

    Counts are written into the cells of at most 30 classes.

    Parameters
    ----------
    counts : integer ndarray, shape (classes, classes)
    classes : sequence of str
    """
    few, side = len(classes) <= 30, max(5, min(0.35 * len(classes), 14))  # inches: looked well
    figure, axes = subplots(figsize=(side + 1, side))
    drawn = axes.imshow(counts, cmap="Greys", vmin=0)
    size = None if few else 7
    axes.set_xticks(range(len(classes)), classes, rotation=90, size=size)
    axes.set_yticks(range(len(classes)), classes, size=size)
    axes.set(xlabel="answer of the network (class)", ylabel="truth (class)")
    for (row, column), count in np.ndenumerate(counts):
        if few and count:
            dark = count > counts.max() / 2
            axes.text(column, row, count, ha="center", va="center", color="w" if dark else "k")
    figure.colorbar(drawn, label="images (number)")
    return figure


def draw_filters(filters: Array, responses: Array) -> Figure:
    """Draw the filters of a first layer, and below each its response to an image.

    Parameters
    ----------
    filters : ndarray, shape (n, 3, k, k)
        Red, green and blue; grey stands for 0, each filter at its own scale.
    responses : ndarray, shape (n, height, width)
        Black is the least number of each response, white its greatest.
    """
    n = len(filters)
    figure, all_axes = subplots(2, n, figsize=(0.62 * n, 1.6), squeeze=False)
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
