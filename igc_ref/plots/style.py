"""What all figures share: matplotlib on demand, colours, markers, and the same bytes every time.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. `Figure` and `Axes` are
matplotlib's, which is imported only when something is drawn.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt

from igc_ref.errors import IGCError, user_path
from igc_ref.files import replacing

Array = npt.NDArray[Any]
Figure = Any
Axes = Any

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
DARK = (PALETTE[0], PALETTE[5], PALETTE[2], PALETTE[7], PALETTE[3], PALETTE[4], PALETTE[1])
GRID = "#DDDDDD"
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx")
ENDINGS = ("png", "svg")


def library() -> Any:
    """Return matplotlib, or raise an error that says what to install.

    Not pyplot: it loads the backend that MPLBACKEND names, often that of a notebook, though a file
    needs none.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.figure
        import matplotlib.patches
    except ImportError:
        raise IGCError("figures need matplotlib: pip install matplotlib") from None
    if backend:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):  # there is no such backend: the import would have failed
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def available() -> bool:
    """Say whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(size: tuple[float, float]) -> Figure:
    """Return a new figure of a width and height in inches; pyplot's where it can be shown."""
    make = library().figure.Figure
    if not {"IPython", "matplotlib.pyplot"}.isdisjoint(sys.modules):
        from matplotlib import pyplot

        make = pyplot.figure
    return make(figsize=size, layout="constrained")


def subplots(*shape: int, figsize: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Return a new figure and its axes, from the arguments of `matplotlib.pyplot.subplots`."""
    figure = new_figure(figsize)
    return figure, figure.subplots(*shape, **options)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG or PNG, by its ending, without a date: same figure, same bytes."""
    path = user_path("path", path)
    ending = path.suffix[1:]
    if ending not in ENDINGS:
        raise IGCError(f"{path} must end in .{' or .'.join(ENDINGS)}")
    metadata = {"Date": None} if ending == "svg" else None
    with library().rc_context({"svg.hashsalt": "igc_ref"}), replacing(path) as file:
        figure.savefig(file, format=ending, metadata=metadata, dpi=150)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)


def line_style(number: int) -> dict[str, Any]:
    """Return the colour, marker and dash of line `number`; also told apart when printed grey."""
    return {
        "color": DARK[number % len(DARK)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 5,
    }


def label_plainly(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10, 20, ... instead of powers."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")
