"""Pictures, for the command line and the notebooks. Needs matplotlib: ``igc-ref[plots]``."""

from igc_ref.plots.curves import draw_curves, draw_rivals
from igc_ref.plots.matrices import draw_block, draw_matrix
from igc_ref.plots.style import PALETTE, available, pyplot, save
from igc_ref.plots.sweeps import draw_sweep

__all__ = [
    "PALETTE",
    "available",
    "draw_block",
    "draw_curves",
    "draw_matrix",
    "draw_rivals",
    "draw_sweep",
    "pyplot",
    "save",
]
