"""Channels as wires: permutations as crossing lines, the block and the four branches as boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from igc_ref.errors import SpecError
from igc_ref.plots.style import PALETTE, Array, Axes, Figure, subplots
from igc_ref.spec.block import IGCSpec

DOT = 70  # area of a channel, in square points


def draw_permutation(
    axes: Axes, matrix: Array, groups: Array, title: str, left: float = 0, right: float = 1
) -> None:
    """Draw a permutation as lines from where a channel stands to where it goes.

    Any matrix will do: it gives a line for each entry that is not zero.

    Parameters
    ----------
    axes : matplotlib Axes
        Channel c stands at height -c.
    matrix : ndarray of zeros and ones, shape (G, G)
        Entry [j, i] is 1 if channel i becomes channel j.
    groups : integer ndarray, shape (G,)
        The colour of each channel; neighbours of different groups also differ in how they are
        dashed, so that they can be told apart without colours.
    title : str
    left, right : float
        Where the lines begin and end.
    """
    for new, channel in np.argwhere(matrix):
        axes.plot([left, right], [-channel, -new], **_line(groups[channel]))
        for at, height in ((left, -channel), (right, -new)):
            axes.scatter(at, height, s=DOT, color=_colour(groups[channel]), zorder=3)
    if title:
        axes.set_title(title, fontsize=13)
    G = len(matrix)
    axes.set(xlim=(left - 0.2, right + 0.2), xticks=[left, right], ylim=(0.6 - G, 0.4))
    axes.set(xticklabels=["channel", "permuted"], yticks=range(0, -G, -1), yticklabels=range(G))
    axes.set_ylabel("channel, from 0")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_wiring(
    spec: IGCSpec, path: tuple[int, int | None] | None = None, order: Sequence[int] | None = None
) -> Figure:
    """Draw a block as boxes and wires: W_p, the crossing Pᵀ, W_d, and P that crosses back.

    Up to ȳ a channel has the colour of its primary partition, from W_d on that of its secondary
    one. A block of W_d that meets every colour once is what "interleaved" means.

    Parameters
    ----------
    spec : IGCSpec
        A square block.
    path : (int, int or None), optional
        An input and an output: the paths between them are drawn fat. None for the output: all
        that the input reaches.
    order : sequence of int, optional
        ȳ[t] = y[order[t]], instead of the order of Pᵀ; P undoes it.

    Raises
    ------
    SpecError
        If the block is not square, or has no such channel or order.
    """
    if not spec.is_square:
        raise SpecError(f"the wiring is drawn for square blocks, L*M channels, not {spec}")
    G, L, M = spec.out_channels, spec.L, spec.M
    if path and not set(path) <= {None, *range(G)}:
        raise SpecError(f"path={path}: the block has channels 0 to {G - 1}")
    if order is not None and sorted(order) != list(range(G)):
        raise SpecError(f"order={order} does not have each of the channels 0 to {G - 1} once")
    figure, axes = subplots(figsize=(7.5, 0.42 * G + 1.9))
    primary, secondary = np.arange(G) // M, np.arange(G) // L + L
    taken = np.arange(G).reshape(L, M).T.ravel() if order is None else np.asarray(order)
    draw_permutation(axes, np.eye(G)[taken], primary, "", 2, 4)
    draw_permutation(axes, np.eye(G)[taken.argsort()], secondary, "", 6, 8)
    for c in range(G):
        for left, group in ((0, primary), (1, primary), (4, primary[taken]), (5, secondary)):
            axes.plot([left, left + 1], [-c, -c], **_line(group[c]))
        axes.scatter(0, -c, s=DOT, color=_colour(primary[c]), zorder=3)
    _boxes(axes, 1, [f"$W_p^{{{b}}}$" for b in range(L)], M)
    _boxes(axes, 5, [f"$W_d^{{{m}}}$" for m in range(M)], L)
    if path:
        _draw_paths(axes, *path, taken, M)
    names = ("$x$", "$W_p$", "$y$", "$P^\\top$", "$\\bar y$", "$W_d$", "$\\bar z$", "$P$", "$x'$")
    axes.set(xlim=(-0.4, 8.4), xticks=range(9), ylim=(0.4 - G, 0.6))
    axes.set_xticklabels(names, fontsize=13)
    axes.tick_params(labeltop=True, labelbottom=False)
    axes.set_ylabel("channel, from 0")
    axes.set_title(f"L = {L} primary, M = {M} secondary partitions, G = {G} channels", pad=12)
    for start, count, kind in ((0, L, "primary"), (L, M, "secondary")):
        lines = [axes.plot([], [], label=f"{i}", **_line(start + i))[0] for i in range(count)]
        place = {"loc": f"outside lower {'left' if start == 0 else 'right'}", "ncols": 4}
        figure.legend(handles=lines, title=f"{kind} partition", **place)
    return figure


def _draw_paths(axes: Axes, start: int, end: int | None, order: Array, M: int) -> None:
    """Draw the paths from one input to one output, or to all, through the boxes of a wiring."""
    G, at = len(order), (0, 0.6, 1.4, 2, 4, 4.6, 5.4, 6, 8)
    for y_bar, z_bar in np.ndindex(G, G):
        c, out, met = order[y_bar], order[z_bar], y_bar // (G // M) == z_bar // (G // M)
        if c // M == start // M and met and end in (None, out):
            heights = -np.array([start, start, c, c, y_bar, y_bar, z_bar, z_bar, out])
            axes.plot(at, heights, color="black", linewidth=4, zorder=4.5)


def draw_branches(n: int = 2) -> Figure:
    """Draw a regular convolution as n² branches, the paper's way (four for n = 2).

    The input is cut into n parts and repeated n times; branch (i, j) convolves x_j with the block
    W_ij of the kernel; the fixed sums of row i give y_i, and are repeated n times as well.
    """
    figure, axes = subplots(figsize=(7, 0.75 * n * n + 0.6))
    for p in range(n):
        for q in range(n):  # the branch (i, j) = (p, q); on the right the copy p of the sum q
            height, faint = -(p * n + q), p > 0
            axes.plot([0, 2], [height, height], color=_colour(p), linestyle=_dashes(p))
            for copy in range(n):
                end = -(copy * n + p)
                axes.plot([2, 4], [height, end], color=_colour(p), linestyle=_dashes(p))
            _label(axes, 0, height, f"$x_{q + 1}$", faint, "black")
            _label(axes, 2, height, f"$W_{{{p + 1}{q + 1}}}$", False, _colour(p))
            _label(axes, 4, height, f"$y_{q + 1}$", faint, _colour(q))
    axes.set(xlim=(-0.5, 4.5), ylim=(0.6 - n * n, 0.6), yticks=[], xticks=[0, 2, 4])
    axes.set_xticklabels([f"input, {n} times", f"$W_p$: {n * n} branches", f"sums, {n} times"])
    axes.text(3, 0.45, "$W_d$: zeros and ones", ha="center")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _boxes(axes: Axes, middle: float, names: Sequence[str], channels: int) -> None:
    """Draw a column of boxes, each as high as `channels` channels and 0.9 wide."""
    from matplotlib.patches import FancyBboxPatch

    for i, name in enumerate(names):
        top, bottom = -i * channels + 0.38, -(i + 1) * channels + 1 - 0.38
        corner = (middle - 0.45, bottom)
        style = "round,pad=0,rounding_size=0.1"
        box = FancyBboxPatch(corner, 0.9, top - bottom, boxstyle=style, fc="white", ec="black")
        axes.add_patch(box).set_zorder(4)
        label = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}  # above a fat path
        axes.text(middle, (top + bottom) / 2, name, ha="center", va="center", zorder=5, bbox=label)


def _label(axes: Axes, x: float, y: float, text: str, faint: bool, colour: str) -> None:
    """Write in a box that hides the lines below it; copies are written faintly."""
    box = {"boxstyle": "round", "fc": "white", "ec": "#AAAAAA" if faint else colour}
    shade = "#888888" if faint else "black"
    axes.text(x, y, text, ha="center", va="center", bbox=box, color=shade, zorder=5)


def _colour(group: int) -> str:
    return PALETTE[int(group) % len(PALETTE)]


def _dashes(group: int) -> str | tuple[int, Iterable[float]]:
    return ("-", "--", (0, (1, 1)), "-.")[int(group) % 4]


def _line(group: int) -> dict[str, Any]:
    return {"color": _colour(group), "linestyle": _dashes(group), "linewidth": 1.8, "zorder": 1}
