"""The plain backend: NumPy on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits

from igc_ref.backends.operators.generic import GenericBackend


class NumpyBackend(GenericBackend):
    """The generic operators on NumPy arrays; a tile fits into the second-level cache."""

    name = "numpy"
    xp = np
    tile_bytes = 1 << 19

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compute on one core: a tile's GEMM is too small to share.

        Threads that wait for each other cost more than they give, and many times more where
        another program keeps a core busy.
        """
        with super().session(), threadpool_limits(limits=1, user_api="blas"):
            yield
