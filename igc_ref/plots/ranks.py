"""How far a dense kernel is from an IGC: the singular values of its slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.style import GRID, PALETTE

Array = npt.NDArray[Any]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_singular_values(axes: Any, spectra: Mapping[str, Array], title: str) -> None:
    """Draw the median and the range of the singular values of all slices, relative to the greatest.

    A kernel is an IGC exactly when its range falls to zero at the second value.

    Parameters
    ----------
    axes : matplotlib Axes
    spectra : mapping of str to ndarray, shape (M, L, rank)
        What `igc_ref.reference.singular_values` returns, by the name of the kernel.
    title : str
    """
    for i, (name, sigma) in enumerate(spectra.items()):
        lines = sigma.reshape(-1, sigma.shape[-1])
        lines = lines / np.maximum(lines[:, :1], np.finfo(float).tiny)
        number = np.arange(1, lines.shape[1] + 1)
        colour = PALETTE[i % len(PALETTE)]
        axes.fill_between(number, lines.min(0), lines.max(0), color=colour, alpha=0.2, linewidth=0)
        marker = MARKERS[i % len(MARKERS)]
        axes.plot(number, np.median(lines, axis=0), marker=marker, color=colour, label=name)
    axes.set(xlabel="number of the singular value", ylim=(-0.03, 1.03), title=title)
    axes.set_ylabel("singular value / greatest of its slice")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color=GRID)
    axes.legend(title="median, range of slices", loc="upper left", bbox_to_anchor=(1.01, 1))
