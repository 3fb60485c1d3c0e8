"""What L and M buy: the width of a block beside the regular convolution of as many parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igc_ref.plots.curves import DARK, MARKERS, label_plainly
from igc_ref.plots.style import GRID, PALETTE, pyplot
from igc_ref.spec.block import IGCSpec, equal_cost_width, maximal_width


def draw_equal_cost(spec: IGCSpec) -> Any:
    """Draw the matrices of a block and of the regular convolution of as many parameters.

    All to one scale: the coloured areas are equal, cell for cell a parameter.

    Parameters
    ----------
    spec : IGCSpec
        A square block.

    Returns
    -------
    matplotlib Figure
    """
    G, S, C = spec.out_channels, spec.taps, equal_cost_width(spec.parameters, spec.kernel_size)
    figure, axes = pyplot().subplots(figsize=(9, 2.2), layout="constrained")
    gap = G / 2
    _blocks(axes, (0, 0), (C, C * S), 1, (PALETTE[4],))
    _blocks(axes, (0, C + gap), (G, G), spec.M, (PALETTE[1], PALETTE[6]))
    _blocks(axes, (G + gap, C + gap), (G, G * S), spec.L, (PALETTE[0], PALETTE[4]))
    axes.text(C * S + gap, C / 2, f"regular: C = {C:.1f} rows", va="center")
    axes.text(G + gap, C + gap * 0.8, f"$W_p$: G = {G} rows, {spec.L} blocks")
    axes.text(0, C + gap * 0.8, f"$W_d$: {spec.M} blocks")
    axes.set(xlim=(-1, G * (S + 1) + gap + 1), ylim=(C + gap + G + 1, -1), aspect="equal")
    axes.set(xlabel="column of the matrix (number)", ylabel="row (channel)")
    axes.spines[:].set_visible(False)
    return figure


def _blocks(
    axes: Any,
    corner: tuple[float, float],
    shape: tuple[float, float],
    count: int,
    colours: Sequence[str],
) -> None:
    """Draw a matrix of (rows, columns) with so many diagonal blocks, its corner at (x, y)."""
    from matplotlib.patches import Rectangle

    (x, y), (rows, columns) = corner, shape
    axes.add_patch(Rectangle(corner, columns, rows, facecolor="white", edgecolor="black"))
    width, height = columns / count, rows / count
    for b in range(count):
        colour = colours[b % len(colours)]
        place = (x + b * width, y + b * height)
        axes.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor="none"))


def draw_width_map(kernel_sizes: Sequence[int] = (1, 3), limit: int = 32) -> Any:
    """Draw G/C, how much wider a block is than the regular convolution of equal cost, over L and M.

    Parameters
    ----------
    kernel_sizes : sequence of int
        One panel each.
    limit : int
        Greatest L and M.

    Returns
    -------
    matplotlib Figure
    """
    figure, all_axes = pyplot().subplots(
        1, len(kernel_sizes), figsize=(9, 3.6), squeeze=False, layout="constrained"
    )
    L, M = np.meshgrid(np.arange(1, limit + 1), np.arange(1, limit + 1))
    for axes, k in zip(all_axes[0], kernel_sizes, strict=True):
        S = k * k
        ratio = np.sqrt(S / (S / L + 1 / M))  # G²S = C²S * S/(S/L + 1/M) at equal cost
        mesh = axes.pcolormesh(L, M, ratio, cmap="cividis", vmin=0, vmax=6, shading="nearest")
        lines = axes.contour(L, M, ratio, levels=(1, 2, 3, 4, 5), colors="white", linewidths=1)
        axes.clabel(lines, fmt="%g times")
        axes.set(xlabel="L (primary partitions)", title=f"{k}x{k} kernel, S = {S}")
    figure.colorbar(mesh, ax=all_axes, label="width G / C (a ratio)")
    all_axes[0][0].set_ylabel("M (secondary partitions)")
    return figure


def draw_width_trade(parameters: float, kernel_size: int = 3) -> Any:
    """Draw the width G against L at a fixed number of parameters; M follows from both.

    Parameters
    ----------
    parameters : float
        T, for which the curve solves L*M*(M*S + L) = T.
    kernel_size : int

    Returns
    -------
    matplotlib Figure
    """
    T, S = parameters, kernel_size**2
    C, G_max = equal_cost_width(T, kernel_size), maximal_width(T, kernel_size)
    last = (math.sqrt(1 + 4 * T * S) - 1) / (2 * S)  # M where L = 1: M*(M*S + 1) = T
    M = np.geomspace(1, last, 400)
    figure, axes = pyplot().subplots(figsize=(8, 4), layout="constrained")
    axes.plot(_L(M, T, S), M * _L(M, T, S), color=PALETTE[0], label="IGC, G = LM")
    axes.axhline(G_max, color=PALETTE[5], linestyle="--", label=f"bound $G_{{max}}$ = {G_max:.1f}")
    axes.axhline(C, color=PALETTE[7], linestyle=":", label=f"regular, C = {C:.1f}")
    whole = np.arange(1, int(last) + 1)
    places = np.stack([_L(whole, T, S), whole * _L(whole, T, S)], axis=1)  # (L, G)
    axes.plot(*places.T, "o", color=PALETTE[0], label="M = 1, 2, 3, ...")
    for m, place in enumerate(places[:8], start=1):
        axes.annotate(f"{m}", place, xytext=(0, -15), textcoords="offset points", ha="center")
    best = math.sqrt(G_max / S)  # G = M*(M*S)
    axes.plot([best * S], [G_max], "*", color=PALETTE[5], markersize=13, label="L = MS")
    axes.set_xscale("log")
    label_plainly(axes.xaxis)
    axes.set(xlabel="L (primary partitions)", ylabel="G (channels)", ylim=(0, 1.12 * G_max))
    axes.set_title(f"T = {T:,.0f} parameters, {kernel_size}x{kernel_size} kernel")
    axes.grid(color=GRID)
    axes.legend(loc="lower center", ncols=3)
    return figure


def _L(M: Any, T: float, S: int) -> Any:
    """Return the real L of the block with T parameters: M*L² + M²*S*L = T."""
    return (np.sqrt((M * S) ** 2 + 4 * T / M) - M * S) / 2


def draw_roofline(
    bandwidth: float, flops: float, points: Mapping[str, tuple[float, float]], title: str
) -> Any:
    """Draw what a machine can do at best, and points below that roof.

    Parameters
    ----------
    bandwidth : float
        Bytes per second.
    flops : float
        Operations per second.
    points : mapping of name to (intensity, rate)
        Operations per byte that crosses to memory, and operations per second.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    figure, axes = pyplot().subplots(figsize=(8, 4), layout="constrained")
    ridge = flops / bandwidth
    intensity = np.geomspace(0.5, 100, 200)
    roof = np.minimum(flops, bandwidth * intensity)
    axes.plot(intensity, roof / 1e9, color="black", linewidth=2)
    axes.axvline(ridge, color="black", linestyle=":", linewidth=1)
    axes.annotate("memory sets the pace", (0.55, flops / 1.5e9))
    axes.annotate("arithmetic sets the pace", (ridge * 1.1, flops / 1e9 * 1.1))
    for number, (name, (x, rate)) in enumerate(points.items()):
        colour, marker = DARK[number % len(DARK)], MARKERS[number % len(MARKERS)]
        axes.plot([x], [rate / 1e9], marker, color=colour, markersize=9, label=name)
    axes.set(xscale="log", yscale="log", title=title, ylim=(None, flops / 1e9 * 1.6))
    axes.set(xlabel="intensity (operations per byte)", ylabel="rate (GFLOP/s)")
    for axis in (axes.xaxis, axes.yaxis):
        label_plainly(axis)
    axes.grid(color=GRID)
    axes.legend(loc="lower right")
    return figure


def draw_band(height: int, band: int, step: int, padding: int = 1) -> Any:
    """Draw which rows one step of a banded block reads, keeps and writes.

    Parameters
    ----------
    height : int
        Rows of the picture.
    band : int
        Output rows that are worked on together.
    step : int
        Which band, from 0; the last one may be shorter.
    padding : int
        Rows that the kernel needs above and below.

    Returns
    -------
    matplotlib Figure
    """
    top = min(step * band, height - 1)
    bottom = min(top + band, height)
    first, last = max(0, top - padding), min(height, bottom + padding)
    figure, axes = pyplot().subplots(figsize=(7, 3.2), layout="constrained")
    for place, hatch in ((0, ""), (1, "..."), (2, "")):
        rows = height if place != 1 else bottom - top
        start = 0 if place != 1 else top
        _rows(axes, place, start, start + rows, "white", hatch)
    _rows(axes, 0, first, last, PALETTE[4], "///")  # its neighbours, read once more
    _rows(axes, 0, top, bottom, PALETTE[4])
    _rows(axes, 1, top, bottom, PALETTE[1], "...")
    _rows(axes, 2, 0, top, GRID)
    _rows(axes, 2, top, bottom, PALETTE[0])
    names = ("x: read", "$\\bar y$: in the cache,\nthen forgotten", "x': written")
    axes.set(xticks=(0, 1, 2), xticklabels=names, xlim=(-0.5, 2.5), ylim=(height + 0.5, -0.5))
    axes.set(ylabel="row of the picture (number)", title=f"rows {top} to {bottom - 1} of x'")
    return figure


def _rows(axes: Any, place: int, first: int, last: int, colour: str, hatch: str = "") -> None:
    style = {"facecolor": colour, "edgecolor": "black", "hatch": hatch, "linewidth": 0.6}
    axes.bar(place, last - first, bottom=first, width=0.6, **style)


def draw_ratios(ratios: Mapping[str, float], x: str, title: str) -> Any:
    """Draw ratios as bars, with a line at 1.

    Parameters
    ----------
    ratios : mapping of name to number
    x : str
        Label of the axis: what is divided by what.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    figure, axes = pyplot().subplots(figsize=(8, 0.9 + 0.32 * len(ratios)), layout="constrained")
    bars = axes.barh(list(ratios), list(ratios.values()), color=PALETTE[4], edgecolor="black")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.axvline(1, color="black", linestyle="--")
    axes.invert_yaxis()
    axes.set(xlabel=x, title=title, xlim=(0, 1.12 * max(ratios.values())))
    return figure
