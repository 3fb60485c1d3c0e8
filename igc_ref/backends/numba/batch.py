"""Batch as the compiled kernels hold them, and the memory they lie in.

V pictures lie side by side, as the lanes of one vector register: an array (blocks, C, H, W, V).
A shift of the kernel is then a shift by whole vectors, at any stride and any border, and nothing
is ever unaligned. The last block is filled up; sums leave its filling out.

What is cheap per number is not done at once: batch norm and ReLU, and the derivative of both,
are noted as a *rule* that whoever reads the numbers applies. A pass over memory is saved each
time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba.vectors import VECTOR_BYTES, lanes

Numbers = npt.NDArray[Any]


class Rule(NamedTuple):
    """Read ``max(scale*x + shift, floor)``.

    The table is (5, C): scale, shift; gate, threshold: the derivative passes where
    ``gate*x + threshold > 0``; the mean of x, about which the sums for its batch norm are taken.
    """

    table: Numbers
    floor: Any


class Derivative(NamedTuple):
    """Read ``a*(d where gate*x + threshold > 0, else 0) + slope*(x - mean) + shift``.

    The table is (6, C): gate, threshold, a, mean, slope, shift; x is what batch norm normalised.
    """

    table: Numbers
    x: Numbers


class Sums(NamedTuple):
    """Sums of the upstream gradient, (pieces, C, 2), for the batch norm that has this table."""

    table: Numbers
    values: Numbers


class Batch:
    """A batch inside the numba backend: what `load` returns and every operator takes.

    Attributes
    ----------
    data : array, shape (blocks, C, H, W, V)
    count : int
        How many pictures there are.
    pending : Rule, Derivative or None
        How to read the data; None: as they are.
    moments : array of float64, shape (pieces, C, 3), or None
        For each piece of the batch: a pivot, and the sums of ``data - pivot`` and of its square.
    counts : array, shape (pieces,), or None
        Numbers a channel has in each piece.
    sums : Sums or None
    """

    def __init__(self, data: Numbers, count: int, pending: Rule | Derivative | None = None) -> None:
        self.data, self.count, self.pending = data, count, pending
        self.moments: Numbers | None = None
        self.counts: Numbers | None = None
        self.sums: Sums | None = None

    def __reduce__(self) -> str:
        raise TypeError("pictures inside cannot be copied or pickled; use backend.from_layout")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, N, H, W), as of the other backends' arrays."""
        _, C, H, W, _ = self.data.shape
        return C, self.count, H, W

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""
        return self.data.dtype

    @property
    def flat(self) -> Numbers:
        """The data as one long row."""
        return self.data.reshape(-1)


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

    def pictures(self, shape: tuple[int, int, int, int], dtype: npt.DTypeLike) -> Batch:
        """Return uninitialised pictures of this shape (C, N, H, W)."""
        C, N, H, W = shape
        V = lanes(dtype)
        return Batch(self.array((-(-N // V), C, H, W, V), dtype), N)

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
            self._drop(self.live + self.idle + size - (self.peak + self.peak // 4))
            memory = np.empty(size + VECTOR_BYTES, np.uint8)
        self.live += memory.nbytes
        self.peak = max(self.peak, self.live)
        return memory

    def _drop(self, excess: int) -> None:
        while excess > 0 and self.idle:
            size = next(size for size, memories in self._free.items() if memories)
            memory = self._free[size].pop()
            self.idle -= memory.nbytes
            excess -= memory.nbytes

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
