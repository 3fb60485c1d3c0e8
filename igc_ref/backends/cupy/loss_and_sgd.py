"""From features to new weights: linear layer, loss and optimiser on our own CUDA kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.cupy.base import MOST, THREADS
from igc_ref.backends.cupy.kernels import f32, i32
from igc_ref.backends.cupy.packing import Packing
from igc_ref.backends.operators.library import Array


class Rates(NamedTuple):
    """Learning rates in device memory; the optimiser takes number ``counter[0]`` of them."""

    values: Array
    counter: Array


class LossAndSGD(Packing):
    """What stands between features and new weights; what is not float32 is generic."""

    def linear(self, x: Array, weight: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return x Wᵀ + b for x (N, in), weight (out, in), bias (out,)."""
        self.check_linear(x, weight, bias)
        if x.dtype != np.float32 or max(x.size, len(x) * len(bias)) >= MOST:
            return super().linear(x, weight, bias)
        x, weight, bias = map(self.xp.ascontiguousarray, (x, weight, bias))
        (N, inputs), out = x.shape, len(weight)
        y = self._numbers(N, out)
        arguments = (y, x, weight, bias, i32(N), i32(inputs), i32(out))
        self.launch("learning.cu", "linear", (math.ceil(N * out / (THREADS // 32)),), *arguments)
        return y, (x, weight)

    def linear_backward(self, dy: Array, saved: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        """Return the gradients of `linear` with respect to x, weight and bias."""
        x, weight = saved
        self.check("the gradient", dy, x.dtype, shape=(len(x), len(weight)))
        if x.dtype != np.float32 or max(x.size, dy.size) >= MOST:
            return super().linear_backward(dy, saved)
        dy, (N, inputs), out = self.xp.ascontiguousarray(dy), x.shape, len(weight)
        dx, dweight, dbias = (self._numbers(*shape) for shape in (x.shape, weight.shape, (out,)))
        sizes = i32(N), i32(inputs), i32(out)
        grid = (math.ceil(N * inputs / THREADS),)
        self.launch("learning.cu", "linear_dx", grid, dx, dy, weight, *sizes)
        grids = math.ceil((inputs + 1) / 32), out
        self.launch("learning.cu", "linear_dweight", grids, dweight, dbias, dy, x, *sizes)
        return dx, dweight, dbias

    def loss(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Return mean loss, number of correct answers, and the gradient of the loss.

        A label that is no class makes the loss NaN: to look at labels is to wait for the device.
        """
        self.check_loss(logits, labels, smoothing)
        if logits.dtype != np.float32:
            return super().loss(logits, labels, smoothing)
        N, classes = logits.shape
        labels = self.xp.ascontiguousarray(labels.astype("int64", copy=False))
        logits = self.xp.ascontiguousarray(logits)
        losses, dlogits = self._numbers(N), self._numbers(N, classes)
        loss, row_correct = self._numbers(1), self.xp.empty(N, "int32")
        correct = self.xp.empty(1, "int32")
        numbers = i32(N), i32(classes), f32(smoothing)
        arguments = (losses, row_correct, dlogits, logits, labels, *numbers)
        grid = (math.ceil(N / (THREADS // 32)),)
        self.launch("learning.cu", "softmax_cross_entropy", grid, *arguments)
        self.launch("learning.cu", "mean_loss", (1,), loss, correct, losses, row_correct, i32(N))
        return loss.reshape(()), correct.reshape(()), dlogits

    def sgd_steps(
        self,
        weights: Mapping[str, Array],
        gradients: Mapping[str, Array],
        velocities: Mapping[str, Array],
        **numbers: Any,
    ) -> None:
        """Take one step of Nesterov's accelerated gradient for all parameters in one kernel.

        ``lr`` may be `Rates`.
        """
        self._add_up()
        self._packed = {}
        steps = [(weight, gradients[name], velocities[name]) for name, weight in weights.items()]
        for arrays in steps:
            self.check_step(*arrays)
        groups = [list(g) for g in zip(*(step for step in steps if step[0].size), strict=True)]
        if not groups:
            return
        in_place = (array.flags.c_contiguous for array in chain(groups[0], groups[2]))
        if not all(in_place) or any(array.dtype != np.float32 for array in chain(*groups)):
            for arrays in zip(*groups, strict=True):
                super().sgd_step(*arrays, **numbers)
            return
        groups[1] = [self.xp.ascontiguousarray(gradient) for gradient in groups[1]]
        rows = [(*map(self.device.address, row), row[0].size) for row in zip(*groups, strict=True)]
        table = self._table(rows)
        lr, decays = numbers["lr"], (numbers["momentum"], numbers["weight_decay"])
        if not isinstance(lr, Rates):
            counter = self.device.upload(np.zeros(1, "int32"))
            lr = Rates(self.device.upload(np.array([lr], "float32")), counter)
        grid = math.ceil(max(row[3] for row in rows) / (4 * THREADS)), len(rows)
        arguments = (table, lr.values, lr.counter, *map(f32, decays))
        self.launch("learning.cu", "sgd", grid, *arguments)

    def sgd_step(self, weight: Array, gradient: Array, velocity: Array, **numbers: Any) -> None:
        """Take one step for one parameter."""
        self.sgd_steps({"": weight}, {"": gradient}, {"": velocity}, **numbers)
