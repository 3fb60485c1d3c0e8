"""What a machine can do at best: its copy bandwidth and its rate of multiply-adds, measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from igc_ref.bench.clock import Clock

STABLE = 7  # calls in a row that are not faster end a measurement
GAIN = 0.01  # less is not faster: a guess
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
    """Measure both with `threads` threads: the best of many calls, until it is stable.

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
        copy = _best(lambda: list(each(np.copyto, targets, sources)))
    a = np.ones((size, size), np.float32)
    product = np.empty_like(a)
    multiply = math.inf
    for used in {1, threads}:  # on a busy machine one can be faster
        with threadpool_limits(used, user_api="blas"):
            multiply = min(multiply, _best(lambda: np.matmul(a, a, out=product)))
    return Roofline(2 * threads * sources[0].nbytes / copy, 2 * size**3 / multiply)


def _best(f: Callable[[], object]) -> float:
    """Return the least seconds of a call, once it is stable; the first call only warms up."""
    f()
    best, waited = math.inf, 0
    while waited < STABLE:
        (seconds,) = Clock().times(f, 1)
        waited = 0 if seconds < (1 - GAIN) * best else waited + 1
        best = min(best, seconds)
    return best
