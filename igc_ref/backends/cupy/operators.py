"""Batch norm, residual sums and pooling on our own CUDA kernels; all operators together.

What the kernels do not do (float64, max pooling) goes to the generic operators; inside a CUDA graph
that is an error.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.cupy.batch import Batch, Derivative, Moments, Rule
from igc_ref.backends.cupy.convolution import Convolutions, GenericSaved
from igc_ref.backends.cupy.kernels import f32, i32, i64
from igc_ref.backends.cupy.lazy import NO_FLOOR, THREADS
from igc_ref.backends.cupy.loss_and_sgd import LossAndSGD
from igc_ref.backends.operators.library import Array, Saved
from igc_ref.backends.operators.pointwise import check_shuffle
from igc_ref.errors import SpecError

PART = 8192  # numbers of a channel that one CUDA block adds up


class BatchNormSaved(NamedTuple):
    """What the backward pass of batch norm needs."""

    x: Batch
    rule: Rule
    gamma: Array
    train: bool


class CudaOperators(Convolutions, LossAndSGD):
    """Operators of a training step."""

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
    ) -> tuple[Batch, Saved]:
        """Note how to normalise every channel; see `GenericBackend.batch_norm`."""
        x = self._plain(x)
        arrays = {"gamma": gamma, "beta": beta}
        arrays |= {"running_mean": running_mean, "running_var": running_var}
        C, N, H, W = x.shape
        self.check_channels(arrays, C, x.dtype, contiguous=True)
        if not self._fast(x):
            options: Any = {"momentum": momentum, "eps": eps, "train": train, "relu": relu}
            self._no_capture(f"batch norm of {x.dtype}")
            y, saved = super().batch_norm(self._array(x), *arrays.values(), **options)
            return self._wrap(y), GenericSaved(saved)
        if train and x.moments is None:
            x.moments = self._find_moments(x)
        moments = x.moments if x.moments is not None else Moments(self._one, 1)
        rule = Rule(self._numbers(C, 4), 0.0 if relu else NO_FLOOR)
        self.launch(
            "normalise.cu", "make_rule", (C,),
            rule.table, moments.values, i32(len(moments.values)), i64(N * H * W),
            i32(moments.part), *arrays.values(), f32(momentum), f32(eps), i32(train),
        )  # fmt: skip
        return Batch(x.data, rule), BatchNormSaved(x, rule, gamma, train)

    def batch_norm_backward(self, dy: Batch, saved: Saved) -> tuple[Batch, Array, Array]:
        """Note how to derive; return the gradients with respect to x, gamma and beta."""
        if isinstance(saved, GenericSaved):
            dx, *rest = super().batch_norm_backward(self._array(dy), saved.saved)
            return self._wrap(dx), rest[0], rest[1]
        x, rule, gamma, train = saved
        self._check_pictures("dy", dy, (x.shape, x.dtype))
        dy = self._plain(dy)
        C, N, H, W = x.shape
        length = N * H * W
        if dy.sums is not None and dy.sums.rule is rule.table:
            sums = dy.sums.values  # taken while dy was written
        else:
            parts = math.ceil(length / PART)
            sums = self._numbers(parts, C, 2)
            arguments = (sums, dy.data, x.data, rule.table, f32(rule.floor), i64(length), i32(PART))
            self.launch("normalise.cu", "find_sums", (parts, C), *arguments)
        table, dgamma, dbeta = self._numbers(C, 8), self._numbers(C), self._numbers(C)
        self.launch(
            "normalise.cu", "make_derivative", (C,),
            table, dgamma, dbeta, sums, i32(len(sums)), i64(length), rule.table, gamma,
            f32(1 / self.scale), i32(train),
        )  # fmt: skip
        return Batch(dy.data, Derivative(table, rule.floor, x.data)), dgamma, dbeta

    def _find_moments(self, x: Batch) -> Moments:
        C, N, H, W = x.shape
        parts = math.ceil(N * H * W / PART)
        values = self._numbers(parts, C, 3)
        arguments = (values, x.data, i64(N * H * W), i32(PART))
        self.launch("normalise.cu", "find_moments", (parts, C), *arguments)
        return Moments(values, PART)

    def relu(self, x: Batch) -> tuple[Batch, Batch]:
        """Return max(x, 0)."""
        if not self._fast(x):
            y = self._wrap(super().relu(self._array(x))[0])
            return y, y
        x, rule = self._by_rule(x)
        y = self._plain(Batch(x.data, Rule(rule.table, max(rule.floor, 0.0))))
        return y, y

    def add(self, a: Batch, b: Batch) -> Batch:
        """Return a + b."""
        return self._add(a, b, NO_FLOOR)

    def add_relu(self, a: Batch, b: Batch) -> tuple[Batch, Batch]:
        """Return max(a + b, 0)."""
        y = self._add(a, b, 0.0)
        return y, y

    def _add(self, a: Batch, b: Batch, lowest: float) -> Batch:
        self._check_pictures("a", a)
        self._check_pictures("b", b, (a.shape, a.dtype))
        if not (self._fast(a) and self._fast(b)):
            sums = super().add(self._array(a), self._array(b))
            return self._wrap(sums if lowest == NO_FLOOR else self.xp.maximum(sums, 0))
        (a, a_rule), (b, b_rule) = self._by_rule(a), self._by_rule(b)
        y, (C, N, H, W) = self._empty(a.shape), a.shape
        self.launch(
            "pointwise.cu", "add", self._grid(N * H * W, C),
            y.data, a.data, a_rule.table, f32(a_rule.floor), b.data, b_rule.table,
            f32(b_rule.floor), f32(lowest), i64(N * H * W),
        )  # fmt: skip
        return y

    def relu_backward(self, dy: Batch, y: Batch) -> Batch:
        """Return the gradient of `relu`, and of `add_relu` with respect to both its arguments."""
        self._check_pictures("dy", dy, (y.shape, y.dtype))
        if not self._fast(y):
            return self._wrap(super().relu_backward(self._array(dy), self._array(y)))
        y, dy = self._plain(y), self._plain(dy)
        dx, (C, N, H, W) = self._empty(y.shape), y.shape
        arguments = (dx.data, dy.data, y.data, i64(N * H * W))
        self.launch("pointwise.cu", "gate", self._grid(N * H * W, C), *arguments)
        return dx

    def shuffle(self, x: Batch, groups: int) -> tuple[Batch, int]:
        """Return P x, P = interleave(groups, C/groups); see `GenericBackend.shuffle`."""
        self._check_pictures("x", x)
        if not self._fast(x):
            self._no_capture(f"a channel shuffle of {x.dtype}")
            y, groups = super().shuffle(self._array(x), groups)
            return self._wrap(y), groups
        check_shuffle(x.shape[0], groups)
        x, rule = self._by_rule(x)
        y, (C, N, H, W) = self._empty(x.shape), x.shape
        arguments = (y.data, x.data, rule.table, f32(rule.floor), i32(groups), i64(N * H * W))
        self.launch("pointwise.cu", "shuffle", self._grid(N * H * W, C), *arguments)
        return y, groups

    def global_average_pool(self, x: Batch) -> tuple[Array, tuple[int, ...]]:
        """Average every channel of every picture: (C, N, H, W) to (N, C)."""
        self._check_pictures("x", x)
        if not self._fast(x):
            return super().global_average_pool(self._array(x))
        x, rule = self._by_rule(x)
        C, N, H, W = x.shape
        y, grid = self._numbers(N, C), (math.ceil(N / (THREADS // 32)), C)
        arguments = (y, x.data, rule.table, f32(rule.floor), i32(N), i32(H * W))
        self.launch("pointwise.cu", "average", grid, *arguments)
        return y, x.shape

    def global_average_pool_backward(self, dy: Array, shape: tuple[int, ...]) -> Batch:
        """Spread dy, shape (N, C), evenly over the positions."""
        self.check("dy", dy)
        C, N, H, W = shape
        if dy.shape != (N, C):
            raise SpecError(f"dy has shape {dy.shape}; {(N, C)} is needed")
        if dy.dtype != np.float32:
            return self._wrap(super().global_average_pool_backward(dy, shape))
        dx = self._empty((C, N, H, W))
        grid = self._grid(N * H * W, C)
        arguments = (dx.data, self.xp.ascontiguousarray(dy), f32(self.scale), i32(N), i32(H * W))
        self.launch("pointwise.cu", "spread", grid, *arguments)
        return dx

    def max_pool(
        self, x: Batch, kernel_size: int, stride: int, padding: int
    ) -> tuple[Batch, Saved]:
        """Take the greatest pixel of every window; see `GenericBackend.max_pool`."""
        self._no_capture("max pooling")
        y, saved = super().max_pool(self._array(x), kernel_size, stride, padding)
        return self._wrap(y), saved

    def max_pool_backward(self, dy: Batch, saved: Saved) -> Batch:
        """Send every gradient to the pixel that won its window."""
        return self._wrap(super().max_pool_backward(self._array(dy), saved))
