"""A batch as the compiled kernels hold it, and the memory it lies in.

V images lie side by side, as the lanes of one vector register: an array (blocks, C, H, W, V).
A shift of the kernel is then a shift by whole vectors, at any stride and any border, and nothing
is ever unaligned. The last block is filled up; sums leave its filling out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.vectors import VECTOR_BYTES, lanes
from igc_ref.backends.operators.lazy import Batch, Derivative, Rule

Numbers = npt.NDArray[Any]


class NumbaBatch(Batch):
    """`count` images in an array (blocks, C, H, W, V)."""

    def __init__(self, data: Numbers, count: int, pending: Rule | Derivative | None = None) -> None:
        super().__init__(data, pending)
        self.count = count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, N, H, W), as of the other backends' arrays."""
        _, C, H, W, _ = self.data.shape
        return C, self.count, H, W

    @property
    def flat(self) -> Numbers:
        """The data as one long row."""
        return self.data.reshape(-1)  # type: ignore[no-any-return]

    @property
    def plane(self) -> tuple[int, int]:
        """How many numbers one channel of one block has, and V."""
        H, W, V = self.data.shape[2:]
        return H * W * V, V


class Pool:
    """Memory that is used again: what is given back serves the next array of its size.

    Fresh memory is slow, since the system clears every page at its first touch. An array of the
    pool gives its memory back when the last reference to it goes.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[Numbers]] = {}
        self.live = self.idle = self.peak = 0  # bytes

    def __reduce__(self) -> tuple[type[Pool], tuple[()]]:
        return Pool, ()  # a copy starts empty

    def batch(self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike) -> NumbaBatch:
        """Return an uninitialised batch of this shape (C, N, H, W)."""
        C, N, H, W = shape
        V = lanes(dtype)
        return NumbaBatch(self.array((-(-N // V), C, H, W, V), dtype), N)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Numbers:
        """Return an uninitialised array, aligned for vectors."""
        dtype = np.dtype(dtype)
        size = max(1, math.prod(shape)) * dtype.itemsize
        loan = _Loan(self, self._take(size))
        return np.asarray(loan)[:size].view(dtype)[: math.prod(shape)].reshape(shape)

    def _take(self, size: int) -> Numbers:
        found = self._free.get(size)
        if found:
            memory = found.pop()
            self.idle -= memory.nbytes
        else:
            # What lies idle may be of sizes no longer needed: keep a quarter more than was used.
            excess = self.live + self.idle + size - (self.peak + self.peak // 4)
            while excess > 0 and self.idle:
                dropped = next(memories for memories in self._free.values() if memories).pop()
                self.idle -= dropped.nbytes
                excess -= dropped.nbytes
            memory = np.empty(size + VECTOR_BYTES, np.uint8)
        self.live += memory.nbytes
        self.peak = max(self.peak, self.live)
        return memory

    def give_back(self, memory: Numbers) -> None:
        """Take memory back; called by the array that had it."""
        self.live -= memory.nbytes
        self.idle += memory.nbytes
        self._free.setdefault(memory.nbytes - VECTOR_BYTES, []).append(memory)


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
