"""What a kernel sees at one position: the window in the picture, and the patch vector z."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.style import PALETTE, pyplot

Array = npt.NDArray[Any]

MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}  # of a cell


def draw_patch(x: Array, z: Array, row: int, column: int) -> Any:
    """Draw a picture channel by channel, a window in it, and the patch vector that it gives.

    Parameters
    ----------
    x : ndarray, shape (C, H, W)
    z : ndarray, shape (C*S,)
        The patch around (row, column), ordered (channel, ky, kx); S is a square.
    row, column : int
        The middle of the window, in pixels.

    Returns
    -------
    matplotlib Figure
    """
    from matplotlib.patches import Rectangle

    plt = pyplot()
    C, H, W = x.shape
    k = round((z.size // C) ** 0.5)
    figure, all_axes = plt.subplot_mosaic(
        [[f"x{c}" for c in range(C)], ["z"] * C], figsize=(9, 3.6), height_ratios=[3, 1],
        layout="constrained",
    )  # fmt: skip
    shades = {"cmap": "gray_r", "vmin": 0, "vmax": max(float(x.max()), 1.0) * 2}
    for c in range(C):
        axes = all_axes[f"x{c}"]
        _numbers(axes, x[c], shades)
        corner = (column - k // 2, row - k // 2)
        colour = PALETTE[c % len(PALETTE)]
        axes.add_patch(Rectangle(corner, k, k, fill=False, ec=colour, lw=3, clip_on=False))
        for down, right in np.ndindex(k, k):
            x_, y_ = corner[0] + right, corner[1] + down
            if not (0 <= x_ < W and 0 <= y_ < H):
                axes.text(x_ + 0.5, y_ + 0.5, "0", color="gray", **MIDDLE)
        axes.set(title=f"channel {c} of $x$", xlabel="column (pixels)", xlim=(-1, W + 1))
        axes.set(ylabel="row (pixels)" if c == 0 else "", ylim=(H + 1, -1))
        axes.set(xticks=range(0, W + 1, 2), yticks=range(0, H + 1, 2))
    axes = all_axes["z"]
    _numbers(axes, z[None], shades, aspect="auto")
    for c in range(C):
        colour = PALETTE[c % len(PALETTE)]
        box = Rectangle((c * k * k, 0), k * k, 1, fill=False, ec=colour, lw=3, clip_on=False)
        axes.add_patch(box)
    axes.set(yticks=[], xlabel="entry of $z$: channel, then row, then column of the window")
    axes.set_title("$z$")
    axes.set_xticks(np.arange(0, z.size + 1, k * k))
    return figure


def _numbers(axes: Any, values: Array, shades: dict[str, Any], **options: Any) -> None:
    """Draw a picture with its numbers, if there are few, written in its cells."""
    height, width = values.shape
    axes.imshow(values, extent=(0, width, height, 0), **shades, **options)
    if values.size <= 64:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column + 0.5, row + 0.5, f"{value:g}", **MIDDLE)
