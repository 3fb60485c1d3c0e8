"""Pictures, for the command line and the notebooks. Needs matplotlib: ``igc-ref[plots]``."""

from igc_ref.plots.curves import draw_curves
from igc_ref.plots.factors import draw_product
from igc_ref.plots.lines import draw_bars, draw_lines
from igc_ref.plots.matrices import draw_block, draw_matrix
from igc_ref.plots.pictures import (
    draw_answer,
    draw_confusion,
    draw_filters,
    draw_pictures,
    draw_weights,
)
from igc_ref.plots.roofline import draw_band, draw_ratios, draw_roofline
from igc_ref.plots.style import PALETTE, pyplot, save
from igc_ref.plots.widths import draw_equal_cost, draw_width_map, draw_width_trade

__all__ = [
    "PALETTE",
    "draw_answer",
    "draw_band",
    "draw_bars",
    "draw_block",
    "draw_confusion",
    "draw_curves",
    "draw_equal_cost",
    "draw_filters",
    "draw_lines",
    "draw_matrix",
    "draw_pictures",
    "draw_product",
    "draw_ratios",
    "draw_roofline",
    "draw_weights",
    "draw_width_map",
    "draw_width_trade",
    "pyplot",
    "save",
]
