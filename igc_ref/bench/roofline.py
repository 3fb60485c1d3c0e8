"""What this machine can do at best: its copy bandwidth and its rate of multiply-adds, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

REPEATS = 7


class Roofline(NamedTuple):
    """Bytes per second, read and written, of a copy; operations per second of a float32 GEMM."""

    bandwidth: float
    flops: float


def measure(threads: int, size: int = 2048, megabytes: int = 256) -> Roofline:
    """Measure both with so many threads; medians of several repeats.

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
        copy = _median(lambda: list(pool.map(np.copyto, targets, sources)))
    a = np.ones((size, size), np.float32)
    product = np.empty_like(a)
    with threadpool_limits(threads, user_api="blas"):
        multiply = _median(lambda: np.matmul(a, a, out=product))
    return Roofline(2 * threads * sources[0].nbytes / copy, 2 * size**3 / multiply)


def _median(f: Callable[[], object]) -> float:
    f()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
