"""The GPU backend: CuPy. CuPy is imported here and nowhere else."""

from __future__ import annotations

from typing import Any

import cupy
import numpy.typing as npt

from igc_ref.backends.generic import GenericBackend
from igc_ref.backends.library import Array


class CupyBackend(GenericBackend):
    """The generic operators on CuPy arrays; tiles are large, since a GPU wants long rows."""

    name = "cupy"
    xp = cupy
    tile_bytes = 1 << 30

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Copy an array from the device to the host."""
        self.check("array", array)
        return cupy.asnumpy(array)  # type: ignore[no-any-return]


def device_problem() -> str | None:
    """Say why no kernel can run here, or return None if a device answers."""
    # Importing CuPy succeeds without a driver, so only asking the driver tells.
    if not cupy.cuda.is_available():
        return "CuPy finds no CUDA device or driver on this machine"
    return None
