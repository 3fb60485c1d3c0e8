"""A batch as the compiled kernels hold it, and the memory it lies in.

V images, or rows of fewer images, lie side by side, as the lanes of one vector register: an array
(blocks, C, R, W, V). `igc_ref.backends.numba.layout` says which number lies where.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from operator import attrgetter
from sys import getrefcount
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.layout import Layout
from igc_ref.backends.numba.vectors import VECTOR_BYTES
from igc_ref.backends.operators.lazy import Batch, Derivative, Rule

Numbers = npt.NDArray[Any]

LARGER = 4  # times what an array needs may be lent to it; with 1, steps of small networks drop and
# take anew 50 arrays each time (traces of five networks; with 2 still 16)
ALONE = 2  # references to memory in which no array lies: its `_Memory`'s and an argument
UNUSED = 4096  # arrays later, memory that served none is dropped; steps of deep networks take 1000


class NumbaBatch(Batch):
    """Images in an array (blocks, C, R, W, V)."""

    def __init__(
        self, data: Numbers, layout: Layout, pending: Rule | Derivative | None = None
    ) -> None:
        super().__init__(data, pending)
        self.layout, self.flat = layout, data.reshape(-1)  # one long row
        self.shape = data.shape[1], layout.images, layout.height, data.shape[3]

    @property
    def rows(self) -> int:
        """How many rows all blocks have, of all channels each."""
        return self.layout.blocks * self.layout.rows

    @property
    def plane(self) -> tuple[int, int]:
        """How many numbers one channel of one block has, and V."""
        R, W, V = self.data.shape[2:]
        return R * W * V, V


class Pool:
    """Memory that is used again: what no array lies in any more serves the next that it suits.

    Fresh memory is slow, since the system clears every page at its first touch. At most a quarter
    more is held than was ever in use at once.
    """

    def __init__(self) -> None:
        self._memories: list[_Memory] = []  # by size
        self._lock = Lock()
        self.peak = 0  # bytes
        self.fresh = self.served = 0  # arrays: of fresh memory; all

    def __reduce__(self) -> tuple[type[Pool], tuple[()]]:
        return Pool, ()  # a copy starts empty

    @property
    def live(self) -> int:
        """Bytes that are in use."""
        return sum(memory.size for memory in self._memories if not memory.idle)

    @property
    def idle(self) -> int:
        """Bytes that are kept to be used again."""
        return sum(memory.size for memory in self._memories if memory.idle)

    def batch(self, C: int, W: int, dtype: npt.DTypeLike, a: Layout) -> NumbaBatch:
        """Return an uninitialised batch of C channels and W columns."""
        return NumbaBatch(self.array((a.blocks, C, a.rows, W, a.lanes), dtype), a)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Numbers:
        """Return an uninitialised array, aligned for vectors."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return np.empty(shape, dtype)
        with self._lock:
            memory = self._kept(size) or self._fresh(size)
            self.served += 1
            memory.served = self.served
            if self.served % UNUSED == 0:
                self._sweep()
            return np.ndarray(shape, dtype, memory.bytes, memory.start)

    def _kept(self, size: int) -> _Memory | None:
        """Return the smallest that suits; to keep each of a step's sizes would be too much."""
        for i in range(bisect_left(self._memories, size, key=_size), len(self._memories)):
            memory = self._memories[i]
            if memory.size > LARGER * size:
                break
            if getrefcount(memory.bytes) == ALONE:
                return memory
        return None

    def _fresh(self, size: int) -> _Memory:
        live = self.live + size
        self.peak, self.fresh = max(self.peak, live), self.fresh + 1
        excess = live + self.idle - self.peak * 5 // 4
        for memory in sorted(self._memories, key=_served):  # those that served longest ago
            if excess > 0 and memory.idle:
                self._memories.remove(memory)
                excess -= memory.size
        insort(self._memories, memory := _Memory(size), key=_size)
        return memory

    def _sweep(self) -> None:
        """Drop what served none of the last arrays, as when batches have become smaller."""
        oldest = self.served - UNUSED
        self._memories = [m for m in self._memories if m.served > oldest or not m.idle]
        self.peak = min(self.peak, sum(map(_size, self._memories)))


class _Memory:
    """Bytes, to which every array that lies there refers, and which array that was."""

    def __init__(self, size: int) -> None:
        self.bytes = np.empty(size + VECTOR_BYTES, np.uint8)
        self.start = -self.bytes.ctypes.data % VECTOR_BYTES
        self.size, self.served = size, 0

    @property
    def idle(self) -> bool:
        """Whether no array and no view of one lies there."""
        return getrefcount(self.bytes) == ALONE


_size, _served = attrgetter("size"), attrgetter("served")
