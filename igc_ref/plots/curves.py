"""What training reached, against epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
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


def draw_curves(records: Sequence[Mapping[str, float]], title: str) -> Any:
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


def draw_rivals(curves: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> Any:
    """Draw train and test accuracy of several networks against epochs.

    Parameters
    ----------
    curves : dict of records
        By the name of the network; records as in `draw_curves`.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    figure, both = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for split, axes in zip(("train", "test"), both, strict=True):
        for number, (name, records) in enumerate(curves.items()):
            axes.plot(
                [record["epoch"] for record in records],
                [100 * record[f"{split}_accuracy"] for record in records],
                color=PALETTE[number % len(PALETTE)],
                marker="osD^vPX*"[number % 8],
                markersize=4,
                label=name,
            )
        axes.set(xlabel="epoch", ylabel=f"{split} accuracy (%)")
        axes.grid(color=GRID)
        axes.xaxis.get_major_locator().set_params(integer=True)
    both[0].legend(fontsize=8)
    figure.suptitle(title)
    return figure


def draw_sweep(results: Sequence[Any], title: str) -> Any:
    """Draw accuracy, and the width G = L*M, against L and against M.

    Parameters
    ----------
    results : sequence
        Each with ``L``, ``M``, ``width``, ``depth`` and ``test_accuracy`` (0 to 1), as
        `igc_ref.studies.sweep.Result`. A dot each; the line goes through the means over seeds.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        2, 2, figsize=(9, 5.4), sharex="col", height_ratios=(3, 2), layout="constrained"
    )
    for column, name in enumerate(("L", "M")):
        upper, lower = axes[:, column]
        for number, depth in enumerate(sorted({r.depth for r in results})):
            style = {"color": PALETTE[number % 6], "marker": MARKERS[number % len(MARKERS)]}
            dots = sorted((getattr(r, name), 100 * r.test_accuracy, r.width)
                          for r in results if r.depth == depth)  # fmt: skip
            upper.scatter([d[0] for d in dots], [d[1] for d in dots], s=14, alpha=0.5, **style)
            places = sorted({(d[0], d[2]) for d in dots})  # one for each (L, M)
            means = [mean(d[1] for d in dots if (d[0], d[2]) == place) for place in places]
            upper.plot([place[0] for place in places], means, label=f"depth {depth}", **style)
        widths = sorted({(getattr(r, name), r.width) for r in results})
        lower.plot(*zip(*widths, strict=True), color=PALETTE[7], linestyle="--", marker="x")
        text = {"L": "L, primary partitions", "M": "M, secondary partitions (first stage)"}[name]
        lower.set(xlabel=text, ylabel="width G = L·M (channels)")
        upper.set_ylabel("test accuracy (%)")
        lower.set_xscale("log", base=2)
        _ticks(lower, sorted({getattr(r, name) for r in results}))
        for part in (upper, lower):
            part.grid(color=GRID)
    if len({r.depth for r in results}) > 1:
        axes[0, 0].legend()
    figure.suptitle(title)
    return figure


def _ticks(axes: Any, values: Sequence[int]) -> None:
    """Write the values that occur below their dots, not powers of two."""
    axes.set_xticks(values, labels=[str(value) for value in values])
    axes.minorticks_off()
