"""Where time goes: the roofline, the rows that a band touches, and measured ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from igc_ref.plots.lines import DARK, MARKERS, label_plainly
from igc_ref.plots.style import GRID, PALETTE, pyplot


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
