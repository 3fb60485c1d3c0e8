"""A matrix as a product of sparse ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.plots.matrices import draw_matrix
from igc_ref.plots.style import pyplot

Array = npt.NDArray[Any]


def draw_product(factors: Sequence[Array], product: Array, titles: Sequence[str]) -> Any:
    """Draw factors side by side, an equals sign, and their product.

    Parameters
    ----------
    factors : sequence of ndarrays
        In the order of the equation: the one that acts first stands last.
    product : ndarray
    titles : sequence of str
        One for every factor, and one for the product.

    Returns
    -------
    matplotlib Figure
    """
    everything = [*factors, product]
    heights, widths = zip(*(matrix.shape for matrix in everything), strict=True)
    height = 0.9 + 8.5 * max(heights) / sum(widths)  # cells of all matrices are of one size
    figure, all_axes = pyplot().subplots(
        1, len(everything), figsize=(9.5, height), width_ratios=widths, layout="constrained"
    )
    for axes, matrix, title in zip(all_axes, everything, titles, strict=True):
        draw_matrix(axes, matrix, blocks_of(matrix), title)
    all_axes[-1].set_ylabel("=", rotation=0, fontsize=16, labelpad=14, va="center")
    return figure


def blocks_of(matrix: Array) -> npt.NDArray[np.int64]:
    """Number the blocks of a matrix, cell by cell: rows that mix the same columns are one block.

    It finds them wherever a permutation has put them.

    Parameters
    ----------
    matrix : ndarray, shape (rows, columns)

    Returns
    -------
    integer ndarray, shape (rows, columns)
    """
    filled = (matrix != 0).astype(np.int64)
    together = filled @ filled.T + np.eye(len(matrix)) > 0  # rows that share a column
    for _ in range(len(matrix).bit_length()):  # and those that share with such a row, and so on
        together = together @ together
    first = together.argmax(axis=1)
    number = np.unique(first, return_inverse=True)[1]
    return np.broadcast_to(number[:, None], matrix.shape).astype(np.int64)
