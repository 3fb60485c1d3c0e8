"""A batch as the layers of the cupy backend carry it.

What is cheap per number is not done at once: batch norm and ReLU, and the derivative of both, are
noted as *pending*; whoever reads the numbers next applies them (normalise.cu says how). A pass
over memory is saved each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.operators.library import Array


class Rule(NamedTuple):
    """Read ``max(scale*x + shift, floor)``; the table is (C, 4): scale, shift, mean, 1/std."""

    table: Array
    floor: float


class Derivative(NamedTuple):
    """Read ``a*(d where scale*x + shift > floor, else 0) + b*(x - mean) + c``.

    The table is (C, 8): scale, shift, mean, a, b, c, 0, 0; x is what batch norm normalised.
    """

    table: Array
    floor: float
    x: Array


class Moments(NamedTuple):
    """For each part of the batch and each channel, (parts, C, 3): a pivot, and the sums of
    ``x - pivot`` and of its square; a part has `part` numbers of a channel, the last one fewer.
    """

    values: Array
    part: int


class Sums(NamedTuple):
    """Sums for the derivative of the batch norm that has this rule, (parts, C, 2)."""

    rule: Array
    values: Array


class Batch:
    """A batch inside the cupy backend: what `load` returns and every operator takes.

    Attributes
    ----------
    data : array, shape (C, N, H, W)
        float32 or float64; float16 if the backend stores pictures so.
    pending : Rule, Derivative or None
        How to read the data; None: as they are.
    moments : Moments or None
    sums : Sums or None
    """

    def __init__(
        self,
        data: Array,
        pending: Rule | Derivative | None = None,
        *,
        moments: Moments | None = None,
        sums: Sums | None = None,
    ) -> None:
        self.data, self.pending, self.moments, self.sums = data, pending, moments, sums

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, N, H, W)."""
        C, N, H, W = self.data.shape
        return C, N, H, W

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what operators compute with it: pictures stored as float16 are read as float32."""
        return np.dtype("float32" if self.data.dtype == np.float16 else self.data.dtype)
