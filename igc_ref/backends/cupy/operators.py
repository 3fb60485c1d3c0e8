"""Batch norm, residual sums and pooling on our own CUDA kernels; all operators together.

What the kernels do not compute (float64, max pooling, large images) goes to `super()`:
`LazyBackend` calls the generic operator. Inside a CUDA graph that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from igc_ref.backends.cupy.base import THREADS
from igc_ref.backends.cupy.convolution import Convolutions
from igc_ref.backends.cupy.geometry import divisors
from igc_ref.backends.cupy.kernels import f32, i32, i64
from igc_ref.backends.cupy.loss_and_sgd import LossAndSGD
from igc_ref.backends.operators.lazy import (
    NO_FLOOR,
    Batch,
    BatchNormSaved,
    Derivative,
    Moments,
    Rule,
)
from igc_ref.backends.operators.library import DTYPES, Array, Saved

PART = 8192  # numbers of a channel, in whole images, that one CUDA block adds up: a guess


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
        arrays = gamma, beta, running_mean, running_var
        self.check_channels(x, *arrays, contiguous=True)
        x, (C, N, H, W) = self._plain(x), x.shape
        if not self._fast(x):
            options: Any = {"momentum": momentum, "eps": eps, "train": train, "relu": relu}
            return super().batch_norm(x, *arrays, **options)
        if train and x.moments is None:
            part = self._images_of_a_part(H * W) * H * W
            parts = math.ceil(N * H * W / part)
            x.moments = Moments(self._numbers(parts, C, 3), part)
            found = (x.moments.values, x.data, i64(N * H * W), i32(part))
            self.launch("normalise.cu", "find_moments", (parts, C), *found)
        moments = x.moments if x.moments is not None else Moments(self._one, 1)
        values, N = moments.values, self.in_all(N)
        if train:
            values = self.gathered(values, moments.counts // (H * W))
        rule = Rule(self._numbers(C, 4), 0.0 if relu else NO_FLOOR)
        self.launch(
            "normalise.cu", "make_rule", (C,),
            rule.table, values, i32(len(values)), i64(N * H * W),
            i32(moments.counts), *arrays, f32(momentum), f32(eps), i32(train),
        )  # fmt: skip
        return Batch(x.data, rule), BatchNormSaved(x, rule, gamma, train)

    def batch_norm_backward(self, dy: Batch, saved: Saved) -> tuple[Batch, Array, Array]:
        """Note how to derive; return the gradients with respect to x, gamma and beta."""
        if not isinstance(saved, BatchNormSaved):
            return super().batch_norm_backward(dy, saved)
        x, rule, gamma, train = saved
        self.check_batch("the gradient", dy, x.dtype, x.shape)
        dy = self._plain(dy)
        C, N, H, W = x.shape
        length = N * H * W
        if dy.sums is not None and dy.sums.rule is rule.table:
            sums, images = dy.sums.values, dy.sums.images  # taken while dy was written
        else:
            images = self._images_of_a_part(H * W)
            parts, part = math.ceil(N / images), i32(images * H * W)
            sums = self._numbers(parts, C, 2)
            arguments = (sums, dy.data, x.data, rule.table, f32(rule.floor), i64(length), part)
            self.launch("normalise.cu", "find_sums", (parts, C), *arguments)
        sums, length = self.gathered(sums, images), self.in_all(N) * H * W
        table, dgamma, dbeta = self._numbers(C, 8), self._numbers(C), self._numbers(C)
        self.launch(
            "normalise.cu", "make_derivative", (C,),
            table, dgamma, dbeta, sums, i32(len(sums)), i64(length), rule.table, gamma,
            f32(1 / self.scale), i32(train),
        )  # fmt: skip
        return Batch(dy.data, Derivative(table, rule.floor, x.data)), dgamma, dbeta

    def _images_of_a_part(self, positions: int) -> int:
        """Return how many images `find_moments` and `find_sums` take together: a unit is cut."""
        return max(n for n in divisors(self.unit) if n == 1 or n * positions <= PART)

    def add(self, a: Batch, b: Batch) -> Batch:
        """Return a + b."""
        y = self._add(a, b, NO_FLOOR)
        return super().add(a, b) if y is None else y

    def add_relu(self, a: Batch, b: Batch) -> tuple[Batch, Batch]:
        """Return max(a + b, 0)."""
        y = self._add(a, b, 0.0)
        if y is None:
            y, _ = super().add_relu(a, b)
        return y, y

    def _add(self, a: Batch, b: Batch, lowest: float) -> Batch | None:
        """Return max(a + b, lowest), or None if the kernel cannot."""
        self.check_pair("a", a, "b", b)
        if not self._fast(a):
            return None
        (a, a_rule), (b, b_rule) = self._by_rule(a), self._by_rule(b)
        return self._each_number(
            "add", a.shape, a.data, a_rule.table, f32(a_rule.floor), b.data, b_rule.table,
            f32(b_rule.floor), f32(lowest),
        )  # fmt: skip

    def relu_backward(self, dy: Batch, y: Batch) -> Array:
        """Return the gradient of `add_relu` with respect to either argument."""
        self.check_pair("y", y, "the gradient", dy)
        if not self._fast(y):
            return super().relu_backward(dy, y)
        return self._each_number("gate", y.shape, self._plain(dy).data, self._plain(y).data)

    def shuffle(self, x: Batch, groups: int) -> tuple[Batch, Saved]:
        """Return P x, P = interleave(groups, C/groups); see `GenericBackend.shuffle`."""
        groups = self.check_shuffle(x, groups)
        if not self._fast(x):
            return super().shuffle(x, groups)
        x, rule = self._by_rule(x)
        arguments = x.data, rule.table, f32(rule.floor), i32(groups)
        return self._each_number("shuffle", x.shape, *arguments), (x.shape, x.dtype, groups)

    def concat(self, batches: Sequence[Batch]) -> Array:
        """Return batches one after the other along the channels; see `GenericBackend.concat`."""
        self.check_concat(batches)
        ends = [*accumulate(x.shape[0] for x in batches)]
        shape = ends[-1], *batches[0].shape[1:]
        if batches[0].dtype != np.float32 or not self._fits(shape):
            return super().concat(batches)
        y = self._empty(shape)
        for x, last in zip(batches, ends, strict=True):
            self._move(x, y, 0, last - x.shape[0], x.shape[0])
        return y

    def split(self, x: Batch, sizes: Sequence[int]) -> list[Batch]:
        """Return runs of channels; see `GenericBackend.split`."""
        sizes = self.check_split(x, sizes)
        if not self._fast(x):
            return super().split(x, sizes)
        x, parts = self._by_rule(x)[0], []
        for n, last in zip(sizes, accumulate(sizes), strict=True):
            parts.append(y := self._empty((n, *x.shape[1:])))
            self._move(x, y, last - n, 0, n)
        return parts

    def _move(self, x: Batch, y: Batch, source: int, target: int, channels: int) -> None:
        """Copy channels of x from `source` on into y from `target` on."""
        x, rule = self._by_rule(x)
        length = math.prod(x.shape[1:])
        arguments = rule.table, f32(rule.floor), i32(source), i32(target), i64(length)
        self.launch(
            "pointwise.cu", "move", self._grid(length, channels), y.data, x.data, *arguments
        )

    def global_average_pool(self, x: Batch) -> tuple[Array, tuple[int, ...]]:
        """Average every channel of every image: (C, N, H, W) to (N, C)."""
        self.check_batch("x", x)
        if not self._fast(x):
            return super().global_average_pool(x)
        x, rule = self._by_rule(x)
        C, N, H, W = x.shape
        y, grid = self._numbers(N, C), (math.ceil(N / (THREADS // 32)), C)
        arguments = (y, x.data, rule.table, f32(rule.floor), i32(N), i32(H * W))
        self.launch("pointwise.cu", "average", grid, *arguments)
        return self.gathered(y), x.shape

    def global_average_pool_backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        """Spread dy, shape (N, C), evenly over the positions."""
        C, N, H, W = shape
        self.check("the gradient", dy, *DTYPES, shape=(self.in_all(N), C))
        if dy.dtype != np.float32 or not self._fits(shape):
            return super().global_average_pool_backward(dy, shape)
        dx = self._empty((C, N, H, W))
        grid = self._grid(N * H * W, C)
        dy = self.xp.ascontiguousarray(dy[self.mine])
        arguments = (dx.data, dy, f32(self.scale), i32(N), i32(H * W))
        self.launch("pointwise.cu", "spread", grid, *arguments)
        return dx

    def average_pool(self, x: Batch, kernel_size: int | tuple[int, int]) -> tuple[Batch, Saved]:
        """Average every window; see `GenericBackend.average_pool`."""
        kh, kw = self.check_pool(x, kernel_size)
        if not self._fast(x):
            return super().average_pool(x, kernel_size)
        (x, rule), (C, N, H, W) = self._by_rule(x), x.shape
        shape, numbers = (C, N, H // kh, W // kw), map(i32, (kh, kw, H, W))
        arguments = x.data, rule.table, f32(rule.floor), *numbers
        y = self._each_number("average_windows", shape, *arguments)
        return y, (x.shape, x.dtype, (kh, kw))

    def average_pool_backward(self, dy: Batch, saved: Saved) -> Array:
        """Spread every gradient evenly over its window."""
        shape, dtype, (kh, kw) = saved
        C, N, H, W = shape
        self.check_batch("the gradient", dy, dtype, (C, N, H // kh, W // kw))
        if dtype != np.float32 or not self._fits(shape):
            return super().average_pool_backward(dy, saved)
        arguments = self._plain(dy).data, *map(i32, (kh, kw, H, W))
        return self._each_number("spread_windows", shape, *arguments)

    def _each_number(self, kernel: str, shape: tuple[int, int, int, int], *arguments: Any) -> Batch:
        """Return a batch whose every number a kernel computes; it also gets their count."""
        y, length = self._empty(shape), math.prod(shape[1:])
        grid = self._grid(length, shape[0])
        self.launch("pointwise.cu", kernel, grid, y.data, *arguments, i64(length))
        return y
