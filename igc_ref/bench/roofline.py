"""What a machine can do at best: its copy bandwidth and its rate of multiply-adds, measured."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from igc_ref.bench.clock import Clock

REPEATS = 7
FLOAT_BYTES = 4


class Pass(NamedTuple):
    """One pass over a layer: numbers that cross the memory, and multiply-adds."""

    numbers: int
    multiply_adds: int


class Roofline(NamedTuple):
    """Bytes per second, read and written, of a copy; operations per second of a float32 GEMM.

    Examples
    --------
    >>> Roofline(bandwidth=4e9, flops=1e9).seconds(Pass(numbers=10**9, multiply_adds=10**9))
    2.0
    """

    bandwidth: float
    flops: float

    def seconds(self, *passes: Pass) -> float:
        """Return the least time for these passes in float32; an addition counts, a product too."""
        return sum(
            max(FLOAT_BYTES * p.numbers / self.bandwidth, 2 * p.multiply_adds / self.flops)
            for p in passes
        )


def measure(threads: int, size: int = 2048, megabytes: int = 256) -> Roofline:
    """Measure both with `threads` threads; medians of several repeats.

    Parameters
    ----------
    threads : int
    size : int
        Rows and columns of the matrices.
    megabytes : int
        Copied by every thread: more than any cache holds.
    """
    sources = [np.ones(megabytes << 18, np.float32) for _ in range(threads)]
    targets = [np.ones_like(source) for source in sources]
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map  # a browser has no threads
        copy = _median(lambda: list(each(np.copyto, targets, sources)))
    a = np.ones((size, size), np.float32)
    product = np.empty_like(a)
    with threadpool_limits(threads, user_api="blas"):
        multiply = _median(lambda: np.matmul(a, a, out=product))
    return Roofline(2 * threads * sources[0].nbytes / copy, 2 * size**3 / multiply)


def _median(f: Callable[[], object]) -> float:
    f()
    return median(Clock().times(f, REPEATS))
