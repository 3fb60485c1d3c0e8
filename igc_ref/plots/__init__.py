"""Pictures, for the command line and the notebooks. Needs matplotlib: ``igc-ref[plots]``."""

from igc_ref.plots.curves import draw_bars, draw_curves, draw_lines, draw_rivals, draw_sweep
from igc_ref.plots.images import (
    draw_answer,
    draw_confusion,
    draw_filters,
    draw_pictures,
    draw_singular_values,
    draw_weights,
)
from igc_ref.plots.matrices import draw_block, draw_matrix, draw_phases, draw_product, draw_values
from igc_ref.plots.style import PALETTE, available, pyplot, save
from igc_ref.plots.widths import (
    draw_band,
    draw_equal_cost,
    draw_ratios,
    draw_roofline,
    draw_width_map,
    draw_width_trade,
)
from igc_ref.plots.wires import draw_branches, draw_patch, draw_permutation, draw_wiring

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
