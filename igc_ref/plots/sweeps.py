"""What a sweep over L and M reached, with the width of every network beside it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from igc_ref.plots.style import GRID, PALETTE, pyplot

MARKERS = "osD^v"


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
