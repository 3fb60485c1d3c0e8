"""Pictures, for the command line and the notebooks. Needs matplotlib: ``igc-ref[plots]``."""

from igc_ref.plots.curves import draw_curves, draw_rivals
from igc_ref.plots.factors import draw_product
from igc_ref.plots.lines import draw_bars, draw_lines
from igc_ref.plots.matrices import draw_block, draw_matrix
from igc_ref.plots.patches import draw_patch
from igc_ref.plots.pictures import (
    draw_answer,
    draw_confusion,
    draw_filters,
    draw_pictures,
    draw_weights,
)
from igc_ref.plots.ranks import draw_singular_values
from igc_ref.plots.roofline import draw_band, draw_ratios, draw_roofline
from igc_ref.plots.style import PALETTE, available, pyplot, save
from igc_ref.plots.sweeps import draw_sweep
from igc_ref.plots.values import draw_phases, draw_values
from igc_ref.plots.widths import draw_equal_cost, draw_width_map, draw_width_trade
from igc_ref.plots.wires import draw_branches, draw_permutation, draw_wiring

__all__ = [
    "PALETTE",
    "available",
    "draw_answer",
    "draw_band",
    "draw_bars",
    "draw_block",
    "draw_branches",
    "draw_confusion",
    "draw_curves",
    "draw_equal_cost",
    "draw_filters",
    "draw_lines",
    "draw_matrix",
    "draw_patch",
    "draw_permutation",
    "draw_phases",
    "draw_pictures",
    "draw_product",
    "draw_ratios",
    "draw_rivals",
    "draw_roofline",
    "draw_singular_values",
    "draw_sweep",
    "draw_values",
    "draw_weights",
    "draw_width_map",
    "draw_width_trade",
    "draw_wiring",
    "pyplot",
    "save",
]
