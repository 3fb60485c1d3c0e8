"""Numbers as lines, points and bars: learning curves, sweeps, rooflines, singular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from igc_ref.plots.style import (
    DARK,
    GRID,
    HATCHES,
    MARKERS,
    PALETTE,
    Array,
    Axes,
    Figure,
    label_plainly,
    line_style,
    subplots,
)


def draw_lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    title: str = "",
    log: str = "",
    dots: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> Figure:
    """Draw one line for every series.

    Parameters
    ----------
    series : mapping of name to (xs, ys)
        In the order of the legend.
    x, y, title : str
        Labels of the axes, with their units, and of the figure.
    log : str
        Axes with a logarithmic scale: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
    dots : (xs, ys)
        Without lines, behind the series.
    """
    figure, axes = subplots(figsize=(7, 3.6))
    axes.scatter(*dots, s=14, color=PALETTE[4])
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
) -> Figure:
    """Draw groups of bars: a group for every label, a bar in it for every series.

    Parameters
    ----------
    labels : sequence of str
    series : mapping of name to numbers, one for each label
    y, title : str
        Label of the axis, with its unit, and of the figure.
    """
    figure, axes = subplots(figsize=(8, 3.4))
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
    axes.margins(y=0.3)
    axes.legend(loc="upper left", ncols=len(series))
    return figure


def draw_ratios(ratios: Mapping[str, float], x: str, title: str) -> Figure:
    """Draw ratios as bars, with a line at 1.

    Parameters
    ----------
    ratios : mapping of name to number
    x, title : str
        Label of the axis, what is divided by what, and of the figure.
    """
    figure, axes = subplots(figsize=(8, 0.9 + 0.32 * len(ratios)))
    bars = axes.barh(list(ratios), list(ratios.values()), color=PALETTE[4], edgecolor="black")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.axvline(1, color="black", linestyle="--")
    axes.invert_yaxis()
    axes.set(xlabel=x, title=title, xlim=(0, 1.12 * max(ratios.values())))
    return figure


def draw_curves(records: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw loss and accuracy against epochs.

    Parameters
    ----------
    records : sequence of dict
        As in ``log.jsonl``: one for each epoch.
    title : str
    """
    epochs = [record["epoch"] for record in records]
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.4))
    for split, colour, marker in (("train", PALETTE[0], "o"), ("test", PALETTE[5], "s")):
        style = {"color": colour, "marker": marker, "markersize": 4, "label": split}
        left.plot(epochs, [record[f"{split}_loss"] for record in records], **style)
        percent = [100 * record[f"{split}_accuracy"] for record in records]
        right.plot(epochs, percent, **style)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (left, right):
        _whole_numbers(axes)
        axes.legend()
    figure.suptitle(title)
    return figure


def draw_intervals(
    groups: Mapping[str, tuple[Sequence[float], float | None]], *, y: str, title: str = ""
) -> Figure:
    """Draw the mean of each group with its interval as a bar, and its values as dots beside it.

    Parameters
    ----------
    groups : mapping of name to (values, half)
        From left to right; `half` is half the width of the interval, None where there is none.
    y, title : str
        Label of the axis, with its unit, and of the figure.
    """
    figure, axes = subplots(figsize=(8, 3.8))
    for place, (values, half) in enumerate(groups.values()):
        axes.plot([place + 0.15] * len(values), values, ".", color=DARK[1])
        style = {"color": DARK[0], "marker": "o", "capsize": 5}
        axes.errorbar([place], [mean(values)], yerr=half, **style)
    axes.set(xticks=range(len(groups)), xticklabels=list(groups), ylabel=y, title=title)
    axes.grid(color=GRID, axis="y")
    return figure


def draw_sweep(results: Sequence[Any], title: str) -> Figure:
    """Draw accuracy, and the width G = L*M, against L and against M.

    Parameters
    ----------
    results : sequence
        Each with ``L``, ``M``, ``width``, ``depth`` and ``test_accuracy`` (0 to 1), as
        `igc_ref.studies.sweep.Result`. A dot each; the line goes through the means over seeds.
    title : str
    """
    figure, axes = subplots(2, 2, figsize=(9, 5.4), sharex="col", height_ratios=(3, 2))
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
        values = sorted({getattr(r, name) for r in results})  # not powers of two
        lower.set_xticks(values, labels=values)
        lower.minorticks_off()
        for part in (upper, lower):
            part.grid(color=GRID)
    if len({r.depth for r in results}) > 1:
        axes[0, 0].legend()
    figure.suptitle(title)
    return figure


def _whole_numbers(axes: Axes) -> None:
    """Draw the grid, with ticks at whole numbers only."""
    axes.grid(color=GRID)
    axes.xaxis.get_major_locator().set_params(integer=True)


def draw_roofline(
    bandwidth: float, flops: float, points: Mapping[str, tuple[float, float]], title: str
) -> Figure:
    """Draw the roofline of a machine, and points; the legend says which of them lie above it.

    Parameters
    ----------
    bandwidth, flops : float
        Bytes and operations per second.
    points : mapping of name to (intensity, rate)
        Operations per byte that crosses to memory, and operations per second.
    title : str
    """
    figure, axes = subplots(figsize=(8, 4))
    ridge, drawn = flops / bandwidth, [x for x, _ in points.values()]
    intensity = np.geomspace(min(0.5, ridge / 8, *drawn), max(100, 8 * ridge, *drawn), 200)
    axes.plot(intensity, np.minimum(flops, bandwidth * intensity) / 1e9, color="black", linewidth=2)
    axes.axvline(ridge, color="black", linestyle=":", linewidth=1)
    top = {"transform": axes.get_xaxis_transform(), "va": "top"}  # above the roof and the points
    axes.text(ridge / 1.1, 0.97, "memory sets the pace", ha="right", **top)
    axes.text(ridge * 1.1, 0.97, "arithmetic sets the pace", **top)
    for number, (name, (x, rate)) in enumerate(points.items()):
        style = {"color": DARK[number % len(DARK)], "marker": MARKERS[number % len(MARKERS)]}
        above = rate > 1.001 * min(flops, bandwidth * x)  # more than rounding
        label = f"{name} (above the roof)" if above else name
        axes.plot([x], [rate / 1e9], linestyle="", markersize=9, label=label, **style)
    axes.set(xscale="log", yscale="log", title=title)
    axes.set_ylim(top=3e-9 * max(flops, *(rate for _, rate in points.values())))
    axes.set(xlabel="intensity (operations per byte)", ylabel="rate (GFLOP/s)")
    for axis in (axes.xaxis, axes.yaxis):
        label_plainly(axis)
    axes.grid(color=GRID)
    axes.legend(loc="lower right")
    return figure


def draw_singular_values(axes: Axes, spectra: Mapping[str, Array], title: str) -> None:
    """Draw the median and the range of the singular values of all slices, relative to the greatest.

    A kernel is a square IGC if and only if its range falls to zero at the second value.

    Parameters
    ----------
    axes : matplotlib Axes
    spectra : mapping of str to ndarray, shape (M, L, rank)
        From `igc_ref.reference.singular_values`, by the name of the kernel.
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
    _whole_numbers(axes)
    axes.legend(title="median, range of slices", loc="upper left", bbox_to_anchor=(1.01, 1))
