"""The compiled backend for CPUs: numba. Its kernels live in `compiled`; here they meet the
operators.

Inside, a batch is a `Batch` object, opaque to the layers. Batch norm computes no picture: it
notes how the next operator is to read what it normalises, forward and backward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.numba import pointwise
from igc_ref.backends.numba.batch import Batch, Derivative, Numbers, Rule
from igc_ref.backends.numba.convolution import Convolutions
from igc_ref.backends.numba.lazy import plane
from igc_ref.backends.numba.warm_up import warm_up
from igc_ref.backends.operators.library import DTYPES, Array
from igc_ref.backends.operators.pointwise import check_shuffle
from igc_ref.errors import SpecError, integer
from igc_ref.report import Report
from igc_ref.spec.block import output_length


class BatchNormSaved(NamedTuple):
    """What the backward pass of batch norm needs."""

    x: Batch
    rule: Rule
    gamma: Numbers
    inv_std: Numbers
    train: bool


class MaxPoolSaved(NamedTuple):
    """What the backward pass of max pooling needs."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    winner: Numbers
    window: tuple[int, int, int]


class NumbaBackend(Convolutions):
    """Compiled operators on NumPy arrays, on several threads.

    Parameters
    ----------
    threads : int, optional
        By default numba's number of threads: the cores, or what ``NUMBA_NUM_THREADS`` says. The
        bits of the results do not depend on it.
    """

    name = "numba"
    tile_bytes = 1 << 19

    def prepare(self, dtype: str, report: Report) -> None:
        """Compile the kernels, or load them from the disk."""
        warm_up(self, dtype, report)

    def batch_norm(
        self,
        x: Batch,
        gamma: Array,
        beta: Array,
        running_mean: Array,
        running_var: Array,
        *,
        momentum: float,
        eps: float,
        train: bool,
        relu: bool = False,
    ) -> tuple[Batch, BatchNormSaved]:
        """Note how to normalise every channel; see `GenericBackend.batch_norm`."""
        x = self._plain(x)
        arrays = {"gamma": gamma, "beta": beta}
        arrays |= {"running_mean": running_mean, "running_var": running_var}
        self.check_channels(arrays, x.shape[0], x.dtype)
        if x.moments is None:
            self._find_moments(x)
        table, inv_std = np.empty((5, len(gamma)), x.dtype), np.empty_like(gamma)
        pointwise.normalise_by(
            table, inv_std, x.moments, x.counts, gamma, beta, running_mean, running_var,
            momentum, eps, train, relu,
        )  # fmt: skip
        rule = Rule(table, x.dtype.type(0 if relu else -np.inf))
        y = Batch(x.data, x.count, rule)
        return y, BatchNormSaved(x, rule, gamma, inv_std, train)

    def batch_norm_backward(self, dy: Batch, saved: BatchNormSaved) -> tuple[Batch, Array, Array]:
        """Note how to derive; return the gradients with respect to x, gamma and beta."""
        x, rule, gamma, inv_std, train = saved
        self._check("dy", dy, x.shape, x.dtype)
        dy = self._plain(dy)
        C, N, H, W = x.shape
        if dy.sums is not None and dy.sums.table is rule.table:
            sums = dy.sums.values  # taken while dy was written
        else:
            sums = np.empty((len(x.data), C, 2))
            self._planes(pointwise.find_sums, x, sums, dy.flat, x.flat, rule.table, *plane(x), N)
        table = np.empty((6, C), x.dtype)
        dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
        pointwise.derive_by(
            table, dgamma, dbeta, sums, rule.table, inv_std, gamma, N * H * W, train
        )
        return Batch(dy.data, N, Derivative(table, x.flat)), dgamma, dbeta

    def _find_moments(self, x: Batch) -> None:
        blocks, C, H, W, V = x.data.shape
        x.moments = np.empty((blocks, C, 3))
        self._planes(pointwise.find_moments, x, x.moments, x.flat, *plane(x), x.count)
        x.counts = np.minimum(V, x.count - V * np.arange(blocks)) * float(H * W)

    def relu(self, x: Batch) -> tuple[Batch, Batch]:
        """Return max(x, 0)."""
        x, rule = self._by_rule(x)
        y = self.pool.pictures(x.shape, x.dtype)
        floor = max(rule.floor, x.dtype.type(0))
        self._planes(pointwise.apply_rule, x, y.flat, x.flat, rule.table, floor, *plane(x))
        return y, y

    def add(self, a: Batch, b: Batch) -> Batch:
        """Return a + b."""
        return self._add(a, b, -np.inf)

    def add_relu(self, a: Batch, b: Batch) -> tuple[Batch, Batch]:
        """Return max(a + b, 0)."""
        y = self._add(a, b, 0)
        return y, y

    def _add(self, a: Batch, b: Batch, lowest: float) -> Batch:
        (a, a_rule), (b, b_rule) = self._by_rule(a), self._by_rule(b)
        self._check("b", b, a.shape, a.dtype)
        y, floor = self.pool.pictures(a.shape, a.dtype), a.dtype.type(lowest)
        self._planes(pointwise.add, a, y.flat, a.flat, *a_rule, b.flat, *b_rule, floor, *plane(a))
        return y

    def relu_backward(self, dy: Batch, y: Batch) -> Batch:
        """Return the gradient of `relu`, and of `add_relu` with respect to both its arguments."""
        y = self._plain(y)
        self._check("dy", dy, y.shape, y.dtype)
        dy, dx = self._plain(dy), self.pool.pictures(y.shape, y.dtype)
        self._planes(pointwise.gate, y, dx.flat, dy.flat, y.flat, *plane(y))
        return dx

    def shuffle(self, x: Batch, groups: int) -> tuple[Batch, int]:
        """Return P x, P = interleave(groups, C/groups); see `GenericBackend.shuffle`."""
        x, rule = self._by_rule(x)
        C, size = x.shape[0], check_shuffle(x.shape[0], groups)
        y = self.pool.pictures(x.shape, x.dtype)
        self._planes(pointwise.shuffle, x, y.flat, x.flat, *rule, groups, *plane(x))
        if x.moments is not None:  # pending numbers have none; these are the same, elsewhere
            y.moments = x.moments[:, np.arange(C).reshape(groups, size).T.ravel()]
            y.counts = x.counts
        return y, groups

    def global_average_pool(self, x: Batch) -> tuple[Array, tuple[int, ...]]:
        """Average every channel of every picture: (C, N, H, W) to (N, C)."""
        x, rule = self._by_rule(x)
        y = np.empty((x.count, x.shape[0]), x.dtype)
        self._planes(pointwise.average, x, y, x.flat, *rule, *plane(x))
        return y, x.shape

    def global_average_pool_backward(self, dy: Array, shape: tuple[int, ...]) -> Batch:
        """Spread dy, shape (N, C), evenly over the positions."""
        C, N, H, W = shape
        if dy.shape != (N, C) or dy.dtype not in DTYPES:
            raise SpecError(f"dy is {dy.dtype} of shape {dy.shape}; {(N, C)} is needed")
        dx = self.pool.pictures((C, N, H, W), dy.dtype)
        self._planes(pointwise.spread, dx, dx.flat, dy, *plane(dx))
        return dx

    def max_pool(
        self, x: Batch, kernel_size: int, stride: int, padding: int
    ) -> tuple[Batch, MaxPoolSaved]:
        """Take the greatest pixel of every window; see `GenericBackend.max_pool`."""
        x, window = self._plain(x), (integer("kernel_size", kernel_size), stride, padding)
        if integer("padding", padding, 0) > kernel_size // 2 or integer("stride", stride) < 1:
            raise SpecError(f"padding={padding} is more than half of kernel_size={kernel_size}")
        C, N, H, W = x.shape
        rows, columns = (output_length(n, *window) for n in (H, W))
        if min(rows, columns) < 1:
            raise SpecError(f"a window of {kernel_size} is too large for pictures of {H}x{W}")
        y = self.pool.pictures((C, N, rows, columns), x.dtype)
        winner = np.zeros(y.data.shape, np.int16)
        self._planes(pointwise.max_pool, y, y.data, winner, x.data, *window)
        return y, MaxPoolSaved(x.shape, x.dtype, winner, window)

    def max_pool_backward(self, dy: Batch, saved: MaxPoolSaved) -> Batch:
        """Send every gradient to the pixel that won its window."""
        C, N, *_ = saved.shape
        self._check("dy", dy, (C, N, *saved.winner.shape[2:4]), saved.dtype)
        dy, dx = self._plain(dy), self.pool.pictures(saved.shape, dy.dtype)
        self._planes(pointwise.max_pool_backward, dx, dx.data, dy.data, saved.winner, *saved.window)
        return dx

    def sgd_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """Take one step of Nesterov's accelerated gradient, in place."""
        arrays = weight, gradient, velocity
        alike = {(array.shape, array.dtype.str) for array in arrays}
        if len(alike) == 1 and all(array.flags.c_contiguous for array in arrays):
            rows = (array.reshape(-1) for array in arrays)
            pointwise.sgd_step(*rows, lr, momentum, weight_decay)
        else:  # NumPy knows how; a flat copy of the weight would take the step in vain
            numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
            super().sgd_step(*arrays, **numbers)
