"""Figures, for the command line and the notebooks. Needs matplotlib.

- `matrices`: matrices cell by cell.
- `wires`: permutations, the block and the four branches as wires.
- `images`: images, patches, and what a network answers.
- `widths`: the width of a block beside the regular convolution of equal cost.
- `curves`: lines, points and bars.
- `style`: colours, markers, and `save`.

Functions named ``draw_...`` return a matplotlib figure, or draw on the axes that they are given.
"""

from igc_ref.plots.curves import (
    draw_bars,
    draw_curves,
    draw_intervals,
    draw_lines,
    draw_ratios,
    draw_roofline,
    draw_singular_values,
    draw_sweep,
)
from igc_ref.plots.images import (
    draw_answer,
    draw_band,
    draw_confusion,
    draw_filters,
    draw_patch,
    draw_pictures,
)
from igc_ref.plots.matrices import (
    draw_block,
    draw_matrix,
    draw_phases,
    draw_product,
    draw_slices,
    draw_values,
    draw_weights,
)
from igc_ref.plots.style import PALETTE, available, save
from igc_ref.plots.widths import draw_equal_cost, draw_width_map, draw_width_trade
from igc_ref.plots.wires import draw_branches, draw_permutation, draw_wiring

__all__ = [
    "PALETTE", "available", "draw_answer", "draw_band", "draw_bars", "draw_block", "draw_branches",
    "draw_confusion", "draw_curves", "draw_equal_cost", "draw_filters", "draw_intervals",
    "draw_lines", "draw_matrix", "draw_patch", "draw_permutation", "draw_phases", "draw_pictures",
    "draw_product", "draw_ratios", "draw_roofline", "draw_singular_values", "draw_slices",
    "draw_sweep", "draw_values", "draw_weights", "draw_width_map", "draw_width_trade",
    "draw_wiring", "save",
]  # fmt: skip
