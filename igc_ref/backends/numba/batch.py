"""A batch as the compiled kernels hold it, and the memory it lies in.

V images, or rows of fewer images, lie side by side, as the lanes of one vector register: an array
(blocks, C, R, W, V). `igc_ref.backends.numba.layout` says which number lies where.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.layout import Layout, layout_of
from igc_ref.backends.numba.vectors import VECTOR_BYTES, lanes
from igc_ref.backends.operators.lazy import Batch, Derivative, Rule

Numbers = npt.NDArray[Any]

LARGER = 4  # times what an array needs may be lent to it; with 1, steps of small networks drop and
# take anew 50 arrays each time (traces of five networks; with 2 still 16)
UNUSED = 4096  # arrays later, memory that served none is dropped; steps of deep networks take 1000


class NumbaBatch(Batch):
    """Images in an array (blocks, C, R, W, V)."""

    def __init__(
        self, data: Numbers, layout: Layout, pending: Rule | Derivative | None = None
    ) -> None:
        super().__init__(data, pending)
        self.layout = layout

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, N, H, W), as of the other backends' arrays."""
        _, C, _, W, _ = self.data.shape
        return C, self.layout.images, self.layout.height, W

    @property
    def flat(self) -> Numbers:
        """The data as one long row."""
        return self.data.reshape(-1)  # type: ignore[no-any-return]

    @property
    def plane(self) -> tuple[int, int]:
        """How many numbers one channel of one block has, and V."""
        R, W, V = self.data.shape[2:]
        return R * W * V, V


class Pool:
    """Memory that is used again: what is given back serves the next array that it suits.

    Fresh memory is slow, since the system clears every page at its first touch. An array of the
    pool gives its memory back when the last reference to it goes.
    """

    def __init__(self) -> None:
        # Several threads use both, and the garbage collector may give back in the middle of a line:
        # a lock would wait for itself. Each is changed by one call at a time, and read as a copy.
        self._free: dict[int, list[tuple[int, Numbers]]] = {}  # by bytes; with `served` at the time
        self._lent: dict[int, int] = {}  # bytes, by the memory's id
        self.peak = 0  # bytes
        self.fresh = self.served = self._swept = 0  # arrays: of fresh memory; all; before the sweep

    def __reduce__(self) -> tuple[type[Pool], tuple[()]]:
        return Pool, ()  # a copy starts empty

    @property
    def live(self) -> int:
        """Bytes that are in use."""
        return sum([*self._lent.values()])

    @property
    def idle(self) -> int:
        """Bytes that are kept to be used again."""
        return sum(size * len(memories) for size, memories in [*self._free.items()])

    def batch(
        self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike, layout: Layout | None = None
    ) -> NumbaBatch:
        """Return an uninitialised batch (C, N, H, W), in the layout of its shape or another."""
        C, N, H, W = shape
        a = layout or layout_of(N, H, lanes(dtype))
        return NumbaBatch(self.array((a.blocks, C, a.rows, W, a.lanes), dtype), a)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Numbers:
        """Return an uninitialised array, aligned for vectors."""
        dtype = np.dtype(dtype)
        used = math.prod(shape) * dtype.itemsize
        size = used + VECTOR_BYTES
        self.served += 1
        if self.served > self._swept + UNUSED:
            self._sweep()
        memory = self._kept(size)
        if memory is None:
            memory = self._fresh(size)
        self._lent[id(memory)] = memory.nbytes
        return np.asarray(_Loan(self, memory))[:used].view(dtype).reshape(shape)

    def _kept(self, size: int) -> Numbers | None:
        """Take the smallest that suits; to keep each of a step's sizes would be too much."""
        sizes = [kept for kept in [*self._free] if size <= kept <= LARGER * size]
        for kept in sorted(sizes):
            with suppress(LookupError):  # there is none, or no longer
                return self._free[kept].pop()[1]
        return None

    def _fresh(self, size: int) -> Numbers:
        # What lies idle may be of sizes no longer needed: keep a quarter more than was used.
        live = self.live + size
        self.peak, self.fresh = max(self.peak, live), self.fresh + 1
        excess = live + self.idle - (self.peak + self.peak // 4)
        for memories in [*self._free.values()]:
            with suppress(IndexError):  # no more of this size
                while excess > 0:
                    excess -= memories.pop()[1].nbytes
        return np.empty(size, np.uint8)

    def _sweep(self) -> None:
        """Drop what served none of the last arrays, as when batches have become smaller."""
        last, self._swept = self._swept, self.served
        for size, memories in [*self._free.items()]:
            for _ in range(len(memories)):
                with suppress(IndexError):
                    item = memories.pop(0)
                    if item[0] > last:
                        memories.append(item)
            if not memories:
                self._free.pop(size, None)
        self.peak = min(self.peak, self.live + self.idle)

    def give_back(self, memory: Numbers) -> None:
        """Take memory back; called by the array that had it."""
        # Also at the end of Python, when the names of this module are gone already.
        del self._lent[id(memory)]
        self._free.setdefault(memory.nbytes, []).append((self.served, memory))


class _Loan:
    """Owner of an array's memory: the base that the array and its views refer to."""

    def __init__(self, pool: Pool, memory: Numbers) -> None:
        self.pool, self.memory = pool, memory
        offset = -memory.ctypes.data % VECTOR_BYTES
        self.__array_interface__ = {
            "data": (memory.ctypes.data + offset, False),
            "shape": (memory.nbytes - VECTOR_BYTES,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        self.pool.give_back(self.memory)
