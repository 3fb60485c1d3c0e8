"""What all pictures share: matplotlib on demand, colours, and files that are the same every time.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from igc_ref.errors import IGCError
from igc_ref.files import replacing

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
GRID = "#DDDDDD"
ENDINGS = ("png", "svg")


def pyplot() -> Any:
    """Return matplotlib.pyplot, or raise an error that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise IGCError("pictures need matplotlib: pip install 'igc-ref[plots]'") from None
    return plt


def available() -> bool:
    """Say whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def save(figure: Any, path: str | Path) -> None:
    """Write a figure as SVG or PNG, by its ending, without a date: same figure, same bytes."""
    plt, path = pyplot(), Path(path)
    ending = path.suffix[1:]
    if ending not in ENDINGS:
        raise IGCError(f"{path} must end in .{' or .'.join(ENDINGS)}")
    metadata = {"Date": None} if ending == "svg" else None
    with plt.rc_context({"svg.hashsalt": "igc_ref"}), replacing(path) as file:
        figure.savefig(file, format=ending, metadata=metadata, dpi=150)
    plt.close(figure)
