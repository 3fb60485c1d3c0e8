"""Pictures, for the command line and the notebooks. Needs matplotlib: ``igc-ref[plots]``."""

from igc_ref.plots.curves import draw_curves, draw_rivals
from igc_ref.plots.matrices import draw_block, draw_matrix
from igc_ref.plots.patches import draw_patch
from igc_ref.plots.ranks import draw_singular_values
from igc_ref.plots.style import PALETTE, available, pyplot, save
from igc_ref.plots.sweeps import draw_sweep
from igc_ref.plots.values import draw_phases, draw_values
from igc_ref.plots.wires import draw_branches, draw_permutation, draw_wiring

__all__ = [
    "PALETTE",
    "available",
    "draw_block",
    "draw_branches",
    "draw_curves",
    "draw_matrix",
    "draw_patch",
    "draw_permutation",
    "draw_phases",
    "draw_rivals",
    "draw_singular_values",
    "draw_sweep",
    "draw_values",
    "draw_wiring",
    "pyplot",
    "save",
]
