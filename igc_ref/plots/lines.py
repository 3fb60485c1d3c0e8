"""Several lines or bars in one picture, told apart by more than their colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igc_ref.plots.style import GRID, PALETTE, pyplot

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx")
DARK = (PALETTE[0], PALETTE[5], PALETTE[2], PALETTE[7], PALETTE[3], PALETTE[4], PALETTE[1])


def line_style(number: int) -> dict[str, Any]:
    """Return the colour, marker and dash of line `number`; also told apart when printed grey."""
    return {
        "color": DARK[number % len(DARK)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 5,
    }


def label_plainly(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10, 20, ..., not with powers."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def draw_lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    title: str = "",
    log: str = "",
) -> Any:
    """Draw one line for every series.

    Parameters
    ----------
    series : mapping of name to (xs, ys)
        In the order of the legend.
    x, y : str
        Labels of the axes, with their units.
    title : str
    log : str
        Axes with a logarithmic scale: ``""``, ``"x"``, ``"y"`` or ``"xy"``.

    Returns
    -------
    matplotlib Figure
    """
    figure, axes = pyplot().subplots(figsize=(7, 3.6), layout="constrained")
    for number, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, label=name, **line_style(number))
    for letter in log:
        getattr(axes, f"set_{letter}scale")("log")
        label_plainly(getattr(axes, f"{letter}axis"))
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(color=GRID)
    axes.legend()
    return figure


def draw_bars(
    labels: Sequence[str], series: Mapping[str, Sequence[float]], *, y: str, title: str = ""
) -> Any:
    """Draw groups of bars: a group for every label, a bar in it for every series.

    Parameters
    ----------
    labels : sequence of str
    series : mapping of name to numbers, one for each label
    y : str
        Label of the axis, with its unit.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    figure, axes = pyplot().subplots(figsize=(8, 3.4), layout="constrained")
    width, places = 0.8 / len(series), np.arange(len(labels))
    for number, (name, numbers) in enumerate(series.items()):
        bars = axes.bar(
            places + (number - (len(series) - 1) / 2) * width,
            numbers,
            width,
            label=name,
            color=PALETTE[(4, 1, 2, 3)[number % 4]],
            edgecolor="black",
            hatch=HATCHES[number % len(HATCHES)],
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set(xticks=places, xticklabels=labels, ylabel=y, title=title)
    axes.margins(y=0.15)
    axes.legend()
    return figure
