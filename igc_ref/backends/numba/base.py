"""How a batch comes into the numba backend, goes out, and is read while something is pending."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from igc_ref.backends.numba import pointwise
from igc_ref.backends.numba.batch import NumbaBatch, Numbers, Pool
from igc_ref.backends.numba.layout import Layout, layout_of
from igc_ref.backends.numba.threads import Team
from igc_ref.backends.numba.vectors import VECTOR_BYTES, lanes
from igc_ref.backends.numpy import NumpyBackend
from igc_ref.backends.operators.lazy import NO_FLOOR, Derivative, LazyBackend, Rule
from igc_ref.backends.operators.library import DTYPES, Array

SMALL = 1 << 16  # numbers that one thread has done before another has woken up: about 20 us


class NumbaBase(LazyBackend, NumpyBackend):
    """The numba backend's memory and threads, and a batch in both layouts."""

    unit = VECTOR_BYTES // 4  # images that lie side by side; whole blocks in every layout

    def __init__(self, threads: int | None = None) -> None:
        super().__init__()
        self.pool, self.team = Pool(), Team(threads)

    def to_layout(self, images: Array) -> NumbaBatch:
        """Interleave public images (N, C, H, W) into blocks."""
        self.check("images", images, *DTYPES, shape="(N, C, H, W)")
        N, C, H, W = images.shape
        x = self._empty((C, N, H, W), images.dtype)
        last = images.transpose(0, 2, 3, 1)
        if one_in_a_lane(x) and last.flags.c_contiguous and not images.flags.c_contiguous:
            self.team.run(pointwise.interleave_last, x.rows, x.flat, _row(last), C, W, x.layout)
            return x
        return self._laid_out(_row(images), x)

    def from_layout(
        self,
        x: NumbaBatch,
        gradient: bool = False,  # noqa: ARG002
        channels_last: bool = False,
    ) -> Array:
        """Write blocks as public images (N, C, H, W), with what is pending applied.

        `channels_last` puts the channels of a pixel side by side in memory.
        """
        self.check_batch("x", x)
        x, (C, N, H, W) = self._plain(x), x.shape
        if not channels_last:
            return self._images(x)
        if not one_in_a_lane(x):
            last = np.ascontiguousarray(self._images(x).transpose(0, 2, 3, 1))
        else:
            last = self.pool.array((N, H, W, C), x.dtype)
            self.team.run(pointwise.separate_last, x.rows, last.reshape(-1), x.flat, C, W, x.layout)
        return last.transpose(0, 3, 1, 2)

    def _layout(self, images: int, height: int, lanes: int) -> Layout:
        """Return the layout of this process's images: that of the whole batch, if it is shared."""
        return layout_of(self.in_all(images), height, lanes)._replace(images=images)

    def _empty(
        self, shape: tuple[int, int, int, int], dtype: Any, layout: Layout | None = None
    ) -> NumbaBatch:
        """Return an uninitialised batch (C, N, H, W), in the layout of its shape or another."""
        C, N, H, W = shape
        return self.pool.batch(C, W, dtype, layout or self._layout(N, H, lanes(dtype)))

    def _laid_out(self, row: Numbers, x: NumbaBatch) -> NumbaBatch:
        self._planes(pointwise.interleave, x, x.flat, row, x.shape[0], x.shape[3], x.layout)
        return x

    def _images(self, x: NumbaBatch) -> Numbers:
        C, N, H, W = x.shape
        images = self.pool.array((N, C, H, W), x.dtype)
        self._planes(pointwise.separate, x, images.reshape(-1), x.flat, C, W, x.layout)
        return images

    def to_array(self, x: NumbaBatch) -> Array:
        """Return a batch as a plain array (C, N, H, W)."""
        return np.ascontiguousarray(self.from_layout(x).swapaxes(0, 1))

    def to_batch(self, array: Array) -> NumbaBatch:
        """Return a plain array (C, N, H, W) as a batch."""
        return self.to_layout(array.swapaxes(0, 1))

    def _planes(self, kernel: Callable[..., None], x: NumbaBatch, *arguments: Any) -> None:
        """Run a kernel on all planes, one channel of one block of x each."""
        planes = x.data.shape[0] * x.data.shape[1]
        if x.data.size < SMALL:
            kernel(0, planes, 0, *arguments)
        else:
            self.team.run(kernel, planes, *arguments)

    def _in_lanes(self, gates: Array, a: Layout) -> Numbers:
        """Return this process's rows of gates (N, groups) as vectors: (blocks, groups, V)."""
        image = np.arange(a.blocks)[:, None] * a.together + np.arange(a.lanes) % a.together
        rows = gates[self.mine][np.minimum(image, a.images - 1)]  # (blocks, V, groups)
        return np.ascontiguousarray(rows.swapaxes(1, 2))

    def _of_images(self, sums: Numbers, a: Layout) -> Array:
        """Return sums of lanes (blocks, C, V) as those of the images of all processes: (N, C)."""
        C = sums.shape[1]
        sums = sums.reshape(a.blocks, C, -1, a.together).sum(axis=2).swapaxes(1, 2)
        # Contiguous: the order in which NumPy adds depends on the strides.
        return self.gathered(np.ascontiguousarray(sums.reshape(-1, C)[: a.images]))

    def _relaid(self, x: NumbaBatch, layout: Layout, shape: Any = None) -> NumbaBatch:
        """Return a batch in this layout, maybe as one of another shape; what is pending stays."""
        if x.layout == layout and shape in (None, x.shape):
            return x
        images = self._images(x).reshape(-1)
        y = self._laid_out(images, self._empty(shape or x.shape, x.dtype, layout))
        y.pending = x.pending
        return y

    def _plain(self, x: NumbaBatch) -> NumbaBatch:
        """Apply what is pending."""
        if x.pending is None:
            return x
        y = self._empty(x.shape, x.dtype)
        if isinstance(x.pending, Rule):  # one group: channels stay where they are
            self._planes(pointwise.shuffle, x, y.flat, x.flat, *x.pending, 1, *x.plane)
        else:
            self._planes(pointwise.apply_derivative, x, y.flat, x.flat, *x.pending, *x.plane)
        return y

    def _by_rule(self, x: NumbaBatch) -> tuple[NumbaBatch, Rule]:
        """Return a batch and the rule to read it by."""
        if isinstance(x.pending, Rule):
            return x, x.pending
        return self._plain(x), _identity(x.shape[0], x.dtype)

    def _by_derivative(self, d: NumbaBatch) -> tuple[NumbaBatch, Derivative]:
        """Return a gradient and how to read it."""
        if isinstance(d.pending, Derivative):
            return d, d.pending
        d = self._plain(d)
        return d, Derivative(unchanged(d.shape[0], d.dtype), d.dtype.type(NO_FLOOR), d.flat)


def one_in_a_lane(x: NumbaBatch) -> bool:
    """Return whether every lane has an image of its own."""
    return x.layout.together == x.layout.lanes


def _row(images: Array) -> Numbers:
    """Return one long row of one kind, or numba would compile a kernel anew for every other."""
    return np.require(images, requirements=["C", "A", "W", "E"]).reshape(-1)


@lru_cache
def _identity(channels: int, dtype: Any) -> Rule:
    """Return the rule that changes nothing: scale 1, shift 0, no floor."""
    table = np.zeros((channels, 4), dtype)
    table[:, 0] = 1
    return Rule(table, table.dtype.type(NO_FLOOR))


@lru_cache
def unchanged(channels: int, dtype: Any) -> Numbers:
    """Return the derivative that changes nothing without a floor: a = 1. With one: if x > floor."""
    table = np.zeros((channels, 8), dtype)
    table[:, [0, 3]] = 1
    return table
