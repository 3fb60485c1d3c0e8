"""The plain backend: NumPy on the CPU."""

from __future__ import annotations

import numpy as np

from igc_ref.backends.generic import GenericBackend


class NumpyBackend(GenericBackend):
    """The generic operators on NumPy arrays; a tile takes half of a core's second-level cache."""

    name = "numpy"
    xp = np
    tile_bytes = 1 << 19
