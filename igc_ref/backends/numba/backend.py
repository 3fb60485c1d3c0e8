"""The compiled backend for CPUs: every operator but the convolutions.

Batch norm computes no number of its output: it notes how the next operator is to read its input,
forward and backward. `igc_ref.backends.operators.lazy` explains this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from igc_ref.backends.numba import pointwise
from igc_ref.backends.numba.base import unchanged
from igc_ref.backends.numba.batch import NumbaBatch
from igc_ref.backends.numba.convolution import Convolutions
from igc_ref.backends.numba.layout import apart, counts_of
from igc_ref.backends.numba.vectors import AUTO, UNCACHED
from igc_ref.backends.numba.warm_up import warm_up
from igc_ref.backends.operators.lazy import NO_FLOOR, BatchNormSaved, Derivative, Moments, Rule
from igc_ref.backends.operators.library import DTYPES, Array, Saved
from igc_ref.backends.operators.normalisation import NormalisationOperators
from igc_ref.backends.operators.pointwise import MaxPoolSaved
from igc_ref.report import Report
from igc_ref.spec.block import output_length


class NumbaBackend(Convolutions):
    """Compiled operators on NumPy arrays, on several threads.

    Parameters
    ----------
    threads : int, optional
        By default numba's number of threads: the cores, or what ``NUMBA_NUM_THREADS`` says. The
        bits of the results do not depend on it.
    """

    name = "numba"

    def prepare(self, dtype: str, report: Report) -> None:
        """Compile the kernels, or load them from the disk."""
        warm_up(self, dtype, report)

    def batch_norm(
        self,
        x: NumbaBatch,
        gamma: Array,
        beta: Array,
        running_mean: Array,
        running_var: Array,
        *,
        momentum: float,
        eps: float,
        train: bool,
        relu: bool = False,
    ) -> tuple[NumbaBatch, BatchNormSaved]:
        """Note how to normalise every channel; see `GenericBackend.batch_norm`."""
        running = running_mean, running_var
        self.check_channels(x, gamma, beta, *running)
        x = self._plain(x)
        if x.moments is None:
            size, a = x.plane[0], x.layout
            counts = counts_of(a._replace(images=self.in_all(a.images)), x.shape[3], 1)
            x.moments = Moments(np.empty((a.blocks, len(gamma), 3)), counts)
            self._planes(pointwise.find_moments, x, x.moments.values, x.flat, size, a)
        rule = Rule(np.empty((len(gamma), 4), x.dtype), x.dtype.type(0 if relu else NO_FLOOR))
        values, counts = x.moments
        if train:
            blocks = x.layout._replace(images=self.in_all(x.layout.images)).blocks
            values = self.gathered(values, x.layout.together, len(counts) // blocks)
        pointwise.normalise_by(
            rule.table, values, counts, gamma, beta, *running, momentum, eps, train
        )
        return NumbaBatch(x.data, x.layout, rule), BatchNormSaved(x, rule, gamma, train)

    def batch_norm_backward(
        self, dy: NumbaBatch, saved: BatchNormSaved
    ) -> tuple[NumbaBatch, Array, Array]:
        """Note how to derive; return the gradients with respect to x, gamma and beta."""
        x, rule, gamma, train = saved
        self.check_batch("the gradient", dy, x.dtype, x.shape)
        dy = self._plain(dy)
        C, N, H, W = x.shape
        if dy.sums is not None and dy.sums.rule is rule.table:
            _, sums, *each = dy.sums  # taken while dy was written
        else:
            each, size = [x.layout.together], x.plane[0]
            sums = np.empty((len(x.data), C, 2))
            self._planes(pointwise.find_sums, x, sums, dy.flat, x.flat, *rule, size, x.layout)
        sums, N = self.gathered(sums, *each), self.in_all(N)
        table = np.empty((C, 8), x.dtype)
        dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
        pointwise.derive_by(table, dgamma, dbeta, sums, rule.table, gamma, N * H * W, train)
        derivative = Derivative(table, rule.floor, x.flat)
        return NumbaBatch(dy.data, x.layout, derivative), dgamma, dbeta

    group_norm = NormalisationOperators.group_norm  # which calls these two
    group_norm_backward = NormalisationOperators.group_norm_backward

    def add(self, a: NumbaBatch, b: NumbaBatch) -> NumbaBatch:
        """Return a + b."""
        return self._add(a, b, NO_FLOOR)

    def add_relu(self, a: NumbaBatch, b: NumbaBatch) -> tuple[NumbaBatch, NumbaBatch]:
        """Return max(a + b, 0)."""
        y = self._add(a, b, 0)
        return y, y

    def _add(self, a: NumbaBatch, b: NumbaBatch, lowest: float) -> NumbaBatch:
        self.check_pair("a", a, "b", b)
        (a, a_rule), (b, b_rule) = self._by_rule(a), self._by_rule(b)
        y, floor = self._empty(a.shape, a.dtype), a.dtype.type(lowest)
        self._planes(pointwise.add, a, y.flat, a.flat, *a_rule, b.flat, *b_rule, floor, *a.plane)
        return y

    def relu_backward(self, dy: NumbaBatch, y: NumbaBatch) -> NumbaBatch:
        """Return the gradient of `add_relu` with respect to either argument."""
        self.check_pair("y", y, "the gradient", dy)
        y, dy = self._plain(y), self._plain(dy)
        gate = Derivative(unchanged(y.shape[0], y.dtype), y.dtype.type(0), y.flat)
        return self._plain(NumbaBatch(dy.data, dy.layout, gate))

    def shuffle(self, x: NumbaBatch, groups: int) -> tuple[NumbaBatch, Saved]:
        """Return P x, P = interleave(groups, C/groups); see `GenericBackend.shuffle`."""
        groups = self.check_shuffle(x, groups)
        x, rule = self._by_rule(x)
        y = self._empty(x.shape, x.dtype)
        self._planes(pointwise.shuffle, x, y.flat, x.flat, *rule, groups, *x.plane)
        if x.moments is not None:  # pending numbers have none; these are the same, elsewhere
            dealt = np.arange(x.shape[0]).reshape(groups, -1).T.ravel()
            y.moments = Moments(x.moments.values[:, dealt], x.moments.counts)
        return y, (x.shape, x.dtype, groups)

    def concat(self, batches: Sequence[NumbaBatch]) -> NumbaBatch:
        """Return batches one after the other along the channels; see `GenericBackend.concat`."""
        self.check_concat(batches)
        ends = [*accumulate(x.shape[0] for x in batches)]
        y = self._empty((ends[-1], *batches[0].shape[1:]), batches[0].dtype)
        for x, last in zip(batches, ends, strict=True):
            self._move(x, y, 0, last - x.shape[0], x.shape[0])
        moments = [x.moments for x in batches if x.moments is not None]
        counts = [m.counts for m in moments]
        if len(moments) == len(batches) and all(np.array_equal(counts[0], n) for n in counts):
            y.moments = Moments(np.concatenate([m.values for m in moments], axis=1), counts[0])
        return y

    def split(self, x: NumbaBatch, sizes: Sequence[int]) -> list[NumbaBatch]:
        """Return runs of channels; see `GenericBackend.split`."""
        sizes = self.check_split(x, sizes)
        x, parts = self._by_rule(x)[0], []
        for n, last in zip(sizes, accumulate(sizes), strict=True):
            parts.append(y := self._empty((n, *x.shape[1:]), x.dtype))
            self._move(x, y, last - n, 0, n)
        return parts

    def _move(self, x: NumbaBatch, y: NumbaBatch, source: int, target: int, channels: int) -> None:
        """Copy channels of x from `source` on into y from `target` on."""
        x, rule = self._by_rule(x)
        smaller = x if x.shape[0] == channels else y
        numbers = source, target, channels, y.shape[0], *x.plane
        self._planes(pointwise.move, smaller, y.flat, x.flat, *rule, *numbers)

    def scale_channels(self, x: NumbaBatch, gates: Array) -> tuple[NumbaBatch, Saved]:
        """Multiply groups of channels by gates, of the images of all ranks: (N, groups)."""
        self.check_gates(x, gates, self.in_all(x.shape[1]))
        (x, rule), y = self._by_rule(x), self._empty(x.shape, x.dtype)
        lanes = self._in_lanes(gates, x.layout)
        self._planes(pointwise.scale_groups, x, y.flat, x.flat, *rule, lanes, x.plane[0])
        return y, (x, rule, gates, lanes)

    def scale_channels_backward(self, dy: NumbaBatch, saved: Saved) -> tuple[NumbaBatch, Array]:
        """Return the gradients of `scale_channels` with respect to x and the gates."""
        x, rule, gates, lanes = saved
        self.check_batch("the gradient", dy, x.dtype, x.shape)
        dy, same = self._by_rule(self._plain(dy))
        dx, size = self._empty(x.shape, x.dtype), x.plane[0]
        self._planes(pointwise.scale_groups, dx, dx.flat, dy.flat, *same, lanes, size)
        sums = self._sums_of_images(x, pointwise.products, dy.flat, x.flat, *rule)
        return dx, sums.reshape(*gates.shape, -1).sum(axis=2)

    def global_average_pool(self, x: NumbaBatch) -> tuple[Array, tuple[int, ...]]:
        """Average every channel of every image: (C, N, H, W) to (N, C)."""
        self.check_batch("x", x)
        x, rule = self._by_rule(x)
        sums = self._sums_of_images(x, pointwise.totals, x.flat, *rule)
        return sums / x.dtype.type(x.shape[2] * x.shape[3]), x.shape

    def _sums_of_images(self, x: NumbaBatch, kernel: Callable[..., None], *read: Any) -> Array:
        """Return sums over the positions, of all channels of every image: (N, C)."""
        sums = np.zeros((x.layout.blocks, x.shape[0], x.layout.lanes), x.dtype)
        self._planes(kernel, x, sums, *read, x.plane[0], x.layout)
        return self._of_images(sums, x.layout)

    def global_average_pool_backward(self, dy: Array, shape: tuple[int, ...]) -> NumbaBatch:
        """Spread dy, shape (N, C), evenly over the positions."""
        C, N, H, W = shape
        self.check("the gradient", dy, *DTYPES, shape=(self.in_all(N), C))
        dx = self._empty((C, N, H, W), dy.dtype)
        values = self._in_lanes(dy / dy.dtype.type(H * W), dx.layout)
        self._planes(pointwise.spread, dx, dx.flat, values, dx.plane[0])
        return dx

    def average_pool(
        self, x: NumbaBatch, kernel_size: int | tuple[int, int]
    ) -> tuple[NumbaBatch, Saved]:
        """Average every window; see `GenericBackend.average_pool`."""
        kh, kw = self.check_pool(x, kernel_size)
        C, N, H, W = x.shape
        x = self._apart(x, H // kh)
        y = self._empty_apart(x, H // kh, W // kw)
        self._planes(pointwise.average_windows, y, y.data, x.data, kh, kw)
        return self._whole(y, C, N), ((C, N, H, W), x.dtype, (kh, kw))

    def average_pool_backward(self, dy: NumbaBatch, saved: Saved) -> NumbaBatch:
        """Spread every gradient evenly over its window."""
        (C, N, H, W), dtype, (kh, kw) = saved
        self.check_batch("the gradient", dy, dtype, (C, N, H // kh, W // kw))
        dy = self._apart(dy, H)
        dx = self._empty_apart(dy, H, W)
        self._planes(pointwise.spread_windows, dx, dx.data, dy.data, kh, kw)
        return self._whole(dx, C, N)

    def max_pool(
        self, x: NumbaBatch, kernel_size: int, stride: int, padding: int
    ) -> tuple[NumbaBatch, MaxPoolSaved]:
        """Take the greatest pixel of every window; see `GenericBackend.max_pool`."""
        window = self.check_window(x, kernel_size, stride, padding)
        C, N, H, W = x.shape
        rows, columns = (output_length(n, *window) for n in (H, W))
        x = self._apart(x, rows)
        y = self._empty_apart(x, rows, columns)
        winner = np.empty(y.data.shape, np.int32)
        self._planes(pointwise.max_pool, y, y.data, winner, x.data, *window)
        return self._whole(y, C, N), MaxPoolSaved((C, N, H, W), x.dtype, winner)

    def max_pool_backward(self, dy: NumbaBatch, saved: MaxPoolSaved) -> NumbaBatch:
        """Send every gradient to the pixel that won its window."""
        (C, N, H, W), dtype, winner, _ = saved
        self.check_batch("the gradient", dy, dtype, (C, N, *winner.shape[2:4]))
        dy = self._apart(dy, H)
        dx = self._empty_apart(dy, H, W)
        self._planes(pointwise.max_pool_backward, dx, dx.data, dy.data, winner)
        return self._whole(dx, C, N)

    def _apart(self, x: NumbaBatch, height: int) -> NumbaBatch:
        """Lay out x for windows: one image in a lane, or as planes (1, N*C, H, W), one in a lane.

        The former if images of both heights, of x and of what is made of it, lie so anyway.
        """
        C, N, H, W = x.shape
        V = x.layout.lanes
        if any(self._layout(N, rows, V).together < V for rows in (H, height)):
            C, N = 1, N * C
        return self._relaid(self._plain(x), apart(N, H, V), (C, N, H, W))

    def _empty_apart(self, x: NumbaBatch, rows: int, columns: int) -> NumbaBatch:
        """Return images of another size as `_apart` has laid out those of x."""
        C, N, *_ = x.shape
        return self._empty((C, N, rows, columns), x.dtype, apart(N, rows, x.layout.lanes))

    def _whole(self, x: NumbaBatch, C: int, N: int) -> NumbaBatch:
        """Return what was laid out by `_apart` as other batches are."""
        _, _, H, W = x.shape
        return self._relaid(x, self._layout(N, H, x.layout.lanes), (C, N, H, W))

    def product(self, a: Array, b: Array) -> Array:
        """Return a @ b, with the same bits on any processor."""
        y = np.zeros((len(a), b.shape[1]), a.dtype)
        pointwise.product(y, a.copy(), b.copy())  # of one kind: see `_row`
        return y

    def of_each(self, function: str, x: Array) -> Array:
        """Return exp or log of every number: NumPy has others for every kind of processor."""
        numbers = map(getattr(math, function), x.ravel().tolist())
        return np.fromiter(numbers, x.dtype, x.size).reshape(x.shape)

    def sgd_step(self, weight: Array, gradient: Array, velocity: Array, **numbers: float) -> None:
        """Take one step of Nesterov's accelerated gradient, in place."""
        arrays = weight, gradient, velocity
        self.check_step(*arrays)
        if all(array.flags.c_contiguous for array in arrays):
            rows = (array.reshape(-1) for array in arrays)
            pointwise.sgd_step(*rows, **numbers)
        else:  # NumPy knows how; a flat copy of the weight would take the step in vain
            super().sgd_step(*arrays, **numbers)


def facts() -> dict[str, Callable[[], str]]:
    """Return where kernels are kept, not in NUMBA_CACHE_DIR if that cannot be used; the lanes."""
    return {
        "numba cache": lambda: pointwise.interleave.stats.cache_path or f"none: {UNCACHED}",
        "numba lanes": lambda: f"auto is {AUTO}",
    }
