"""Several cores: pieces of a batch are shared out among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba

from igc_ref.errors import integer


@cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Return this process's threads, which teams share: a fork has our memory, but not them."""
    return ThreadPoolExecutor(count, "igc_ref")


class Team:
    """`count` threads, this one among them, for kernels that let go of the interpreter lock.

    What a piece computes does not depend on the thread that computes it, and no two pieces write to
    the same place: the result has the same bits for any number of threads.

    Parameters
    ----------
    count : int, optional
        See `NumbaBackend`.
    """

    def __init__(self, count: int | None = None) -> None:
        count = numba.config.NUMBA_NUM_THREADS if count is None else count
        self.count = integer("threads", count, maximum=1024)  # no processor has as many cores

    def run(self, kernel: Callable[..., None], pieces: int, *arguments: Any) -> None:
        """Call ``kernel(first, last, thread, *arguments)`` for shares of ``range(pieces)``."""
        shares = max(1, min(self.count, pieces))  # none to do: nothing is done
        edges = [i * pieces // shares for i in range(shares + 1)]
        started = []
        try:
            for i in range(1, shares):
                piece = (edges[i], edges[i + 1], i, *arguments)
                try:
                    others = _threads(os.getpid(), self.count - 1)
                    started.append(others.submit(kernel, *piece))
                except RuntimeError as error:
                    if not str(error).startswith("cannot schedule"):
                        raise
                    kernel(*piece)  # Python is ending: its threads take no more work
            kernel(0, edges[1], 0, *arguments)
        finally:
            for other in started:
                other.result()
