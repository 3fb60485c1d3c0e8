"""How pictures come into the numba backend, go out, and are read while something is pending."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.numba import pointwise
from igc_ref.backends.numba.batch import Batch, Derivative, Numbers, Pool, Rule
from igc_ref.backends.numba.threads import Team
from igc_ref.backends.numpy import NumpyBackend
from igc_ref.backends.operators.library import DTYPES, Array, kind_of
from igc_ref.errors import SpecError


class LazyBackend(NumpyBackend):
    """Base of the numba backend: its memory, its threads, and pictures in both layouts."""

    def __init__(self, threads: int | None = None) -> None:
        self.pool, self.team = Pool(), Team(threads)

    def to_layout(self, images: Array) -> Batch:
        """Interleave public images (N, C, H, W) into blocks."""
        if images.ndim != 4 or images.size == 0:
            raise SpecError(
                f"images have shape {images.shape}; allowed is (N, C, H, W), each at least 1"
            )
        if images.dtype not in DTYPES:
            raise TypeError(f"images are {images.dtype}; {' or '.join(DTYPES)} is needed")
        N, C, H, W = images.shape
        x = self.pool.pictures((C, N, H, W), images.dtype)
        self._planes(pointwise.load, x, x.data, images)
        return x

    def from_layout(self, x: Batch, gradient: bool = False) -> Array:  # noqa: ARG002
        """Write blocks as public pictures (N, C, H, W), with what is pending applied."""
        C, N, H, W = x.shape
        pictures = np.empty((N, C, H, W), x.dtype)
        self.team.run(pointwise.store, N, pictures, self._plain(x).data)
        return pictures

    def _planes(self, kernel: Callable[..., None], x: Batch, *arguments: Any) -> None:
        """Run a kernel on all planes, one channel of one block of x each."""
        self.team.run(kernel, x.data.shape[0] * x.data.shape[1], *arguments)

    def _plain(self, x: Batch) -> Batch:
        """Apply what is pending."""
        self._check("x", x)
        if x.pending is None:
            return x
        y = self.pool.pictures(x.shape, x.dtype)
        if isinstance(x.pending, Rule):
            self._planes(pointwise.apply_rule, x, y.flat, x.flat, *x.pending, *plane(x))
        else:
            table, normalised = x.pending
            self._planes(
                pointwise.apply_derivative, x, y.flat, x.flat, normalised, table, *plane(x)
            )
        return y

    def _by_rule(self, x: Batch) -> tuple[Batch, Rule]:
        """Return pictures and the rule to read them by."""
        self._check("x", x)
        if isinstance(x.pending, Rule):
            return x, x.pending
        return self._plain(x), _as_they_are(x.shape[0], x.dtype)

    def _by_derivative(self, d: Batch) -> tuple[Batch, Derivative]:
        """Return a gradient and how to read it."""
        if isinstance(d.pending, Derivative):
            return d, d.pending
        d = self._plain(d)
        return d, Derivative(_unchanged(d.shape[0], d.dtype), d.flat)

    def _check(
        self,
        name: str,
        x: Batch,
        shape: tuple[int, ...] | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        """Raise unless x came from `load`, with this shape and dtype: the kernels trust them."""
        if not isinstance(x, Batch):
            raise TypeError(
                f"{name} is {kind_of(x)}; the numba backend takes what its to_layout returns"
            )
        if dtype is not None and x.dtype != dtype:
            raise TypeError(f"{name} is {x.dtype}; {dtype} is needed")
        if shape is not None and x.shape != shape:
            raise SpecError(f"{name} has shape {x.shape}; {shape} is needed")


def plane(x: Batch) -> tuple[int, int]:
    """Return the numbers of one channel of one block, and V."""
    H, W, V = x.data.shape[2:]
    return H * W * V, V


@lru_cache
def _as_they_are(channels: int, dtype: Any) -> Rule:
    """Return the rule that changes nothing: scale 1, shift 0, the gate open."""
    table = np.zeros((5, channels), dtype)
    table[0] = table[3] = 1
    return Rule(table, table.dtype.type(-np.inf))


@lru_cache
def _unchanged(channels: int, dtype: Any) -> Numbers:
    """Return the derivative that changes nothing: the gate open, a = 1."""
    table = np.zeros((6, channels), dtype)
    table[1] = table[2] = 1
    return table
