"""Several cores: pieces of a batch are shared out among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

from igc_ref.errors import integer


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
        self._start()

    def __reduce__(self) -> tuple[type[Team], tuple[int]]:
        return Team, (self.count,)  # a copy has threads of its own

    def _start(self) -> None:
        self._process = os.getpid()
        self._others = ThreadPoolExecutor(max(1, self.count - 1), "igc_ref")

    def run(self, kernel: Callable[..., None], pieces: int, *arguments: Any) -> None:
        """Call ``kernel(first, last, thread, *arguments)`` for shares of ``range(pieces)``."""
        if self._process != os.getpid():  # a fork has our memory, but not our threads
            self._start()
        shares = min(self.count, pieces)
        edges = [i * pieces // shares for i in range(shares + 1)]
        started = []
        try:
            for i in range(1, shares):
                piece = (edges[i], edges[i + 1], i, *arguments)
                try:
                    started.append(self._others.submit(kernel, *piece))
                except RuntimeError as error:
                    if not str(error).startswith("cannot schedule"):
                        raise
                    kernel(*piece)  # Python is ending: its threads take no more work
            kernel(0, edges[1], 0, *arguments)
        finally:
            for other in started:
                other.result()
